"""What can go wrong, as the service tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ChemtwinError(Exception):
    """The service did not do what it was asked for; `str()` is its own message.

    `status` is the HTTP status (None where there was no answer), `code` a stable word for programs, `message`
    what is wrong and what to do, `detail` the problems one by one. Where there are several problems they are
    the exception's notes too, so that a traceback shows them.
    """

    def __init__(
        self, message: str, code: str = "error", status: int | None = None, detail: Sequence[str] = ()
    ) -> None:
        super().__init__(message, code, status, tuple(detail))
        self.message, self.code, self.status, self.detail = message, code, status, tuple(detail)
        if len(self.detail) > 1:
            for line in self.detail:
                self.add_note(f"- {line}")

    def __str__(self) -> str:
        return self.message


class Unreachable(ChemtwinError):
    """Nothing answers at the address, or not in time."""


class Unauthorized(ChemtwinError):
    """401: no key, or not one that may do this."""


class NotFound(ChemtwinError):
    """404: no such star, or the model has no such answer."""


class Refused(ChemtwinError):
    """Any other 4xx: the request cannot be met as it is, and the message says why."""


class Busy(ChemtwinError):
    """503: the service was still busy, or its store out of reach, after all retries."""


class ChemtwinWarning(UserWarning):
    """What the service asks to mind of a star or a recast, and what the client does not use."""


def of_status(status: int) -> type[ChemtwinError]:
    """The class of an answer's HTTP status."""
    return {401: Unauthorized, 404: NotFound, 503: Busy}.get(
        status, Refused if 400 <= status < 500 else ChemtwinError
    )


def told(status: int, error: dict[str, Any]) -> ChemtwinError:
    """The exception that the service's error object is."""
    return of_status(status)(error["message"], error["code"], status, error.get("detail", ()))

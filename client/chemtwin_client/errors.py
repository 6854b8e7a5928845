"""The errors that the service reports, as exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ChemtwinError(Exception):
    """The service could not do what was requested; `str()` is its own message.

    Parameters
    ----------
    message : str
        What is wrong and what to do.
    code : str
        A stable word for programs.
    status : int or None
        The HTTP status, None where there was no response.
    detail : sequence of str
        The problems one by one. Several are the exception's notes too, so that a traceback shows them.
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
    """No response from the address, or not in time."""


class Unauthorized(ChemtwinError):
    """401: no key, or not one that may do this."""


class NotFound(ChemtwinError):
    """404: no such star, or the model cannot give this."""


class InvalidRequest(ChemtwinError):
    """Any other 4xx: the request cannot be met as it is, and the message says why."""


class Busy(ChemtwinError):
    """503: the service was still busy, or its store out of reach, after all retries."""


class ChemtwinWarning(UserWarning):
    """A warning of the service about a star or a recast, or of the client about labels that it does not use."""


def error_class(status: int) -> type[ChemtwinError]:
    """The class of a response's HTTP status."""
    return {401: Unauthorized, 404: NotFound, 503: Busy}.get(
        status, InvalidRequest if 400 <= status < 500 else ChemtwinError
    )


def error_of(status: int, error: dict[str, Any]) -> ChemtwinError:
    """The exception of the service's error object."""
    return error_class(status)(error["message"], error["code"], status, error.get("detail", ()))

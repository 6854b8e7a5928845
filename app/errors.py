"""Every error that the service reports to a client; `app.error_responses` makes responses of them.

ServiceError(status, code, message, detail)
├── NotFound, NoAbundances, NoSpectrum (404)   NotAcceptable (406)   TooSlow (408)   ModelMismatch (409)
├── TooLarge (413)           UnsupportedMedia (415)
└── Invalid (422)            Unauthorized (401)            Busy (503)
"""

from __future__ import annotations

from collections.abc import Sequence


class ServiceError(Exception):
    """A response other than success.

    Parameters
    ----------
    code
        Stable name of the error, for programs.
    message
        What is wrong and what to do.
    detail
        The problems one by one.
    """

    status = 500
    headers: dict[str, str] | None = None

    def __init__(self, code: str, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.detail = code, message, list(detail)


DEFECT = ServiceError("internal_error", "the service failed on this request; it has been logged")


class Unauthorized(ServiceError):
    """No key, or not one that may do this."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012


class NotFound(ServiceError):
    """No such star."""

    status = 404

    def __init__(self, star_id: str) -> None:
        super().__init__("star_not_found", f"there is no star {star_id}; POST /embed stores one")


class NoAbundances(ServiceError):
    """The model has no readout of abundances."""

    status = 404


class NoSpectrum(ServiceError):
    """The star's observed spectrum is not known."""

    status = 404

    def __init__(self, star_id: str) -> None:
        super().__init__(
            "no_spectrum",
            f"the spectrum of {star_id} is not stored: set CHEMTWIN_STORE_SPECTRA=true, then store it again",
        )


class NotAcceptable(ServiceError):
    """The Accept header allows none of the response's forms."""

    status = 406


class TooSlow(ServiceError):
    """The body takes too long to arrive."""

    status = 408


class ModelMismatch(ServiceError):
    """The star was embedded with another model."""

    status = 409


class TooLarge(ServiceError):
    """The body is over the limit."""

    status = 413


class UnsupportedMedia(ServiceError):
    """A Content-Type that is not accepted."""

    status = 415


class Invalid(ServiceError):
    """The request is understood, and cannot be done."""

    status = 422


class Busy(ServiceError):
    """The service cannot do this now."""

    status = 503
    headers = {"Retry-After": "1"}  # noqa: RUF012

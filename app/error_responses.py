"""The one shape in which the service says what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from app import metrics
from app.service_errors import DEFECT, Busy, Invalid, ServiceError
from index.errors import StoreError
from model.errors import ChemtwinError

MAX_DETAIL = 10
CODES = {404: "not_found", 405: "method_not_allowed"}
log = logging.getLogger("chemtwin")


def body(code: str, message: str, detail: Sequence[str] = ()) -> dict[str, Any]:
    """The one error shape."""
    return {"error": {"code": code, "message": message, "detail": list(detail)[:MAX_DETAIL]}}


def answer_body(content: Any) -> bytes:
    """JSON; numpy arrays become lists, NaN becomes null."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def answer_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of `content`, as `answer_body` writes it."""
    return Response(
        answer_body(content),
        status,
        dict(headers) if headers else None,
        "application/json",
    )


def refused(error: ServiceError) -> Response:
    """The answer that a refusal is, counted by its code."""
    metrics.ERRORS.labels(error.code).inc()
    return answer_json(body(error.code, error.message, error.detail), error.status, error.headers)


def problems(errors: Sequence[Any]) -> list[str]:
    """What pydantic found, place by place, without the values that it found there."""
    lines = []
    for error in errors:
        place = ".".join(str(part) for part in error["loc"] if part not in ("body", "query", "path")) or "body"
        lines.append(f"{place[:80]}: {error['msg'][:200]}")
    return lines


def invalid(errors: Sequence[Any]) -> Invalid:
    """The refusal of a request that does not fit its schema."""
    lines = problems(errors)
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return Invalid("invalid_request", f"{lines[0]}{more}" if lines else "the request is invalid", lines)


def as_service_error(error: Exception) -> ServiceError | None:
    """The service's answer to an error of the model, the store or pydantic; None for a defect of ours."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, ChemtwinError):
        return Invalid(error.code, error.message, error.detail)
    if isinstance(error, (RequestValidationError, ValidationError)):
        return invalid(error.errors())
    if isinstance(error, StoreError):
        log.error("%s", error)
        return Busy(
            "store_unavailable",
            "the star store cannot be read or written"
            + (f" ({error.reason})" if error.reason else "")
            + "; nothing was stored. Try again.",
        )
    return None


def one_of_several(error: Exception) -> dict[str, Any]:
    """What an error is among the results of several stars: its status and the one error shape. Counts it."""
    refusal = as_service_error(error)
    if refusal is None:
        log.exception("unexpected error in one star of several", exc_info=error)
        refusal = DEFECT
    metrics.ERRORS.labels(refusal.code).inc()
    return {"status": refusal.status, **body(refusal.code, refusal.message, refusal.detail)}


def install(app: FastAPI) -> None:
    """Give every error response one shape, whatever raised it. Defects are left to `app.operations.logs`."""

    def known(_: Request, error: Exception) -> Response:
        answer = as_service_error(error)
        assert answer is not None
        return refused(answer)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "http_error")
        metrics.ERRORS.labels(code).inc()
        headers = {"Allow": _methods(app, request)} if error.status_code == 405 else error.headers
        return answer_json(body(code, str(error.detail)), error.status_code, headers)

    def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, gone)
    for kind in (ServiceError, ChemtwinError, RequestValidationError, ValidationError, StoreError):
        app.add_exception_handler(kind, known)


def _methods(app: FastAPI, request: Request) -> str:
    """The methods of all routes of a request's path."""
    met = (
        route for route in app.routes if isinstance(route, Route) and route.path_regex.match(request.url.path)
    )
    return ", ".join(sorted({method for route in met for method in route.methods or ()}))

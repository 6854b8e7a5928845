"""Error responses: one form for every error, whatever raised it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app import metrics
from app.errors import DEFECT, Busy, Invalid, ServiceError
from app.json_response import json_response
from index.errors import StoreError
from model.errors import ChemtwinError

MAX_DETAIL = 10
CODES = {404: "not_found", 405: "method_not_allowed"}
PLAIN = {"missing": "is required", "extra_forbidden": "is not a parameter of this call"}
"""Texts in place of pydantic's, by its type of error."""
STARLETTE = {
    "Not Found": "there is nothing at this address: GET /docs lists the calls",
    "Method Not Allowed": "this address takes another method: the header Allow has it",
}
"""Texts in place of Starlette's."""
log = logging.getLogger("chemtwin")


def error_body(code: str, message: str, detail: Sequence[str] = ()) -> dict[str, Any]:
    """The body of every error response."""
    return {"error": {"code": code, "message": message, "detail": list(detail)[:MAX_DETAIL]}}


def error_response(error: ServiceError) -> Response:
    """The response to an error, counted by its code."""
    metrics.ERRORS.labels(error.code).inc()
    return json_response(error_body(error.code, error.message, error.detail), error.status, error.headers)


def problems(errors: Sequence[Any]) -> list[str]:
    """A line for each of pydantic's errors: the field and what is wrong, without the value that was sent.

    Of a value that may be absent, pydantic also reports that it is not None, and names both kinds in brackets.
    """
    lines = []
    for error in errors:
        if error["type"] == "none_required":
            continue
        names = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
        named = (name for name in names if not name.endswith("]") and name != "constrained-str")
        field = ".".join(named) or "body"
        text = PLAIN.get(error["type"]) or error["msg"].removeprefix("Value error, ")
        lines.append(f"{field[:80]}: {text.replace('Input should', 'must')[:200]}")
    return lines


def as_service_error(error: Exception) -> ServiceError | None:
    """The service's error for one of the model, the store or pydantic; None for a defect of ours."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, ChemtwinError):
        return Invalid(error.code, error.message, error.detail)
    if isinstance(error, (RequestValidationError, ValidationError)):
        return _invalid(error.errors())
    if isinstance(error, StoreError):
        log.error("%s", error)
        return Busy(
            "store_unavailable",
            "the star store cannot be read or written"
            + (f" ({error.reason})" if error.reason else "")
            + "; nothing was stored. Try again.",
        )
    return None


def _invalid(errors: Sequence[Any]) -> Invalid:
    """The error of a request that does not fit its schema."""
    lines = problems(errors)
    more = f" ({len(lines) - 1} more in detail)" if len(lines) > 1 else ""
    return Invalid("invalid_request", f"{lines[0]}{more}" if lines else "the request is invalid", lines)


def error_result(error: Exception) -> dict[str, Any]:
    """An error among the results of several stars: its status and the body of an error response. Counts it."""
    known = as_service_error(error)
    if known is None:
        log.exception("unexpected error in one star of several", exc_info=error)
        known = DEFECT
    metrics.ERRORS.labels(known.code).inc()
    return {"status": known.status, **error_body(known.code, known.message, known.detail)}


def install(app: FastAPI) -> None:
    """Give every error response of `app` one form. Defects are left to `app.operations.logs`."""

    def known(_: Request, error: Exception) -> Response:
        service_error = as_service_error(error)
        assert service_error is not None
        return error_response(service_error)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "http_error")
        metrics.ERRORS.labels(code).inc()
        headers = {"Allow": _methods(app, request)} if error.status_code == 405 else error.headers
        message = STARLETTE.get(str(error.detail), str(error.detail))
        return json_response(error_body(code, message), error.status_code, headers)

    def disconnected(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, disconnected)
    for kind in (ServiceError, ChemtwinError, RequestValidationError, ValidationError, StoreError):
        app.add_exception_handler(kind, known)


def _methods(app: FastAPI, request: Request) -> str:
    """The methods of all routes of a request's path."""
    methods: set[str] = set()
    for route in iter_route_contexts(app.routes):
        if route.path_regex is not None and route.path_regex.match(request.url.path):
            methods |= route.methods or set()
    return ", ".join(sorted(methods))

"""One line of log for each request and event, with the id of the request that it belongs to."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics
from app.error_responses import error_response
from app.errors import DEFECT

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
QUIET = ("/healthz", "/readyz", "/metrics")
"""Routes that machines ask all the time: their successes are logged at level debug."""

DISCONNECTED = 499
"""nginx's number for a client that has gone."""

METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
log = logging.getLogger("chemtwin")


def _named(record: logging.LogRecord) -> bool:
    record.request_id = _request_id.get() or "-"
    vars(record).pop("color_message", None)  # uvicorn's message again, with a terminal's colours
    return True


def configure(form: Literal["text", "json"], level: str) -> None:
    """Send all logs of this process, uvicorn's too, to stderr as lines of text or of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_named)
    fields = "asctime levelname name request_id message"
    handler.setFormatter(
        JsonFormatter(fields.split(), rename_fields={"asctime": "time", "levelname": "level", "name": "logger"})
        if form == "json"
        else logging.Formatter(" ".join(f"%({field})s" for field in fields.split()))
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("faiss").setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


class RequestLog:
    """ASGI middleware: gives each request an id, logs its end, and counts it.

    The id is the sender's `X-Request-ID`, where it is one, and goes back with the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.match(given) else secrets.token_hex(8)
        token = _request_id.set(request_id)
        start = time.perf_counter()
        sent: dict[str, Any] = {"status": DISCONNECTED, "bytes": 0}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            else:
                sent["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if sent["status"] != DISCONNECTED:
                raise
            log.exception("unexpected error")
            await error_response(DEFECT)(scope, receive, send_with_id)
        finally:
            _log_response(scope, sent, time.perf_counter() - start)
            _request_id.reset(token)


def _log_response(scope: Scope, sent: dict[str, Any], seconds: float) -> None:
    """Count a response and write its line; `sent` are its status and bytes."""
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in METHODS else "other"
    metrics.count_response(method, route, sent["status"], seconds)
    level = logging.DEBUG if route in QUIET and sent["status"] < 400 else logging.INFO
    if log.isEnabledFor(level):
        line = f"{method} {route} {sent['status']} {1e3 * seconds:.1f} ms"
        log.log(level, line, extra={"method": method, "route": route, "ms": round(1e3 * seconds, 1), **sent})

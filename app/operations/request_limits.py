"""Limits on every request, before its route: slow, compressed and too many bodies, parameters given twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_responses import error_response
from app.errors import Busy, Invalid, ServiceError, TooSlow, UnsupportedMedia

DRAIN_S, PAUSE_S = 2.0, 0.5
"""Seconds for which the rest of a body is read after an error, and for which its sender may pause, before the
connection is closed: a sender that is cut off at once may never see the response."""


class RequestLimits:
    """ASGI middleware.

    Parameters
    ----------
    app
        What requests are passed on to.
    body_timeout
        Seconds for a body to arrive.
    most_bytes
        Bytes of all bodies that may be in memory at once.
    """

    def __init__(self, app: ASGIApp, body_timeout: float, most_bytes: int) -> None:
        self._app = app
        self.body_timeout, self.most_bytes = body_timeout, most_bytes
        self.bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or send an error response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(self, headers, receive, send)
        try:
            _check(headers, scope["query_string"])
            await self._app(scope, body.receive, body.send)
        except ServiceError as error:
            await error_response(error)(scope, body.receive, body.send)
        finally:
            self.bytes -= body.size


class _Body:
    """One request's body on its way in."""

    def __init__(self, limits: RequestLimits, headers: Headers, receive: Receive, send: Send) -> None:
        self._limits, self._receive, self._send = limits, receive, send
        self._complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self._invited = "expect" not in headers
        self._deadline: float | None = None
        self._slow = False
        self.size = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        self._invited = True
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._limits.body_timeout
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - now))
        except TimeoutError:
            self._slow = True
            raise TooSlow(
                "body_too_slow", f"the body did not arrive within {self._limits.body_timeout:g} seconds"
            ) from None
        self._complete = not message.get("more_body", False)
        size = len(message.get("body", b""))
        if self._limits.bytes + size > self._limits.most_bytes:
            self._limits.bytes -= self.size  # at once, for the other bodies
            self.size = 0
            raise Busy("busy", "too many large bodies are being handled; try again in a second")
        self.size += size
        self._limits.bytes += size
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._complete:
            if self._invited and not self._slow:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._drain(), DRAIN_S)
            if not self._complete:
                MutableHeaders(scope=message)["Connection"] = "close"
        await self._send(message)

    async def _drain(self) -> None:
        while not self._complete:
            message = await asyncio.wait_for(self._receive(), PAUSE_S)
            self._complete = not message.get("more_body", False)


def _check(headers: Headers, query: bytes) -> None:
    """Raise what is wrong with a request before its body is read."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia(
            "unsupported_encoding", "send the body as it is: no Content-Encoding (gzip, ...) is accepted"
        )
    if b"&" in query:
        names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
        if len(set(names)) < len(names):
            twice = next(name[:40] for name in names if names.count(name) > 1)
            raise Invalid("invalid_request", f"{twice!a} is given more than once in the query string")

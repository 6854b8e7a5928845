"""What every request passes before its route: bodies slow, packed or too many, parameters given twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import refused
from app.service_errors import Busy, Invalid, ServiceError, TooSlow, UnsupportedMedia

QUERY = "chemtwin.query"
"""Where a request's scope has its parameters."""

DRAIN_S, PAUSE_S = 2.0, 0.5
"""How long the rest of a refused body is read, and how long its sender may pause, before the connection is
closed: a sender that is cut off at once may never see the answer."""


class Guard:
    """Middleware: `timeout` seconds for a body to arrive, `room` bytes of bodies in memory at once."""

    def __init__(self, app: ASGIApp, timeout: float, room: int) -> None:
        self._app = app
        self.timeout, self.room = timeout, room
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(self, headers, receive, send)
        try:
            scope[QUERY] = _checked(headers, scope["query_string"])
            await self._app(scope, body.receive, body.send)
        except ServiceError as error:
            await refused(error)(scope, body.receive, body.send)
        finally:
            self.held -= body.size


class _Body:
    """One request's body on its way in."""

    def __init__(self, guard: Guard, headers: Headers, receive: Receive, send: Send) -> None:
        self._guard, self._receive, self._send = guard, receive, send
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
            self._deadline = now + self._guard.timeout
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - now))
        except TimeoutError:
            self._slow = True
            raise TooSlow(
                "body_too_slow", f"the body did not arrive within {self._guard.timeout:g} seconds"
            ) from None
        self._complete = not message.get("more_body", False)
        size = len(message.get("body", b""))
        if self._guard.held + size > self._guard.room:
            self._guard.held -= self.size  # at once, so that the others find room
            self.size = 0
            raise Busy("busy", "too many large bodies are being handled; try again in a second")
        self.size += size
        self._guard.held += size
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


def query_of(request: Request) -> dict[str, str]:
    """The parameters of a request's query string, each of which was given once."""
    return dict(request.scope[QUERY])


def _checked(headers: Headers, query: bytes) -> dict[str, str]:
    """The parameters of a query string. Raises what is wrong with a request before its body is looked at."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia(
            "unsupported_encoding", "send the body as it is: no Content-Encoding (gzip, ...) is taken"
        )
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    parameters = dict(given)
    if len(parameters) < len(given):
        twice = next(name[:40] for name, count in Counter(name for name, _ in given).items() if count > 1)
        raise Invalid("invalid_request", f"{twice!a} is given more than once in the query string")
    return parameters

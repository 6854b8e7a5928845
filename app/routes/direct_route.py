"""A route that FastAPI documents and does not resolve, which for a search takes a good part of its time."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from app.schemas.requests import is_star_id


class DirectRoute(APIRoute):
    """A route of an endpoint `(star_id, request) -> Response`, which runs in a thread.

    Its dependencies are coroutines of the request alone. What FastAPI has to refuse, it is left to refuse.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that fits the route's path."""
        star_id = scope["path_params"]["star_id"]
        if scope["method"] not in (self.methods or ()) or not is_star_id(star_id):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        for depends in self.dependencies:
            assert depends.dependency is not None
            await depends.dependency(request)
        response: Response = await asyncio.to_thread(self.endpoint, star_id, request)
        await response(scope, receive, send)

"""A route that FastAPI documents and does not resolve, which for a search takes a good part of its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.schemas import is_star_id


class DirectRoute(APIRoute):
    """A route of an endpoint `(star_id, request) -> Response`, which runs in a thread.

    Its dependencies are coroutines of the request alone. What FastAPI has to refuse, it is left to refuse.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request; FastAPI calls this once."""
        resolved, endpoint = super().get_route_handler(), self.endpoint
        checks = [depends.dependency for depends in self.dependencies if depends.dependency is not None]

        async def handle(request: Request) -> Response:
            star_id = request.path_params["star_id"]
            if not is_star_id(star_id):
                return await resolved(request)
            for check in checks:
                await check(request)
            answer: Response = await asyncio.to_thread(endpoint, star_id, request)
            return answer

        return handle

"""A route that FastAPI documents and does not resolve."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import Request, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from app.routes.dependencies import KeyCheck
from app.values.star_ids import STAR_ID


class DirectRoute(Route):
    """GET of a path with a star id, without FastAPI's resolving of routers, dependencies and parameters.

    Parameters
    ----------
    path
        The path, with `{star_id}`. FastAPI has a route of it too, which is in the OpenAPI document and gets every
        request that is not a GET of a valid star id, so that its error responses are FastAPI's.
    endpoint
        The function of FastAPI's route.
    check
        Checks the API key, as the dependency of FastAPI's route does; None where no keys are set.
    """

    def __init__(
        self, path: str, endpoint: Callable[[str, Request], Awaitable[Response]], check: KeyCheck | None
    ) -> None:
        async def respond(request: Request) -> Response:
            if check is not None:
                await check(request)
            return await endpoint(request.path_params["star_id"], request)

        super().__init__(path, respond, include_in_schema=False)
        self.methods = {"GET"}

    def matches(self, scope: Scope) -> tuple[Match, MutableMapping[str, Any]]:
        """Whether this route gets a request, and what is added to the request's scope."""
        match, found = super().matches(scope)
        if match is not Match.FULL or re.match(STAR_ID, found["path_params"]["star_id"]) is None:
            return Match.NONE, {}
        return match, {**found, "route": self}

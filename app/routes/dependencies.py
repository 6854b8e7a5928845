"""What routes depend on: a key, an empty query string, and the parts of the running service."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Depends, Path, Request
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from app.errors import Invalid, Unauthorized
from app.inference.batcher import Batcher
from app.inference.embedder import Embedded, Job
from app.inference.latent_map import LatentMap
from app.inference.service import Service
from app.schemas.fields import documented
from app.values.star_ids import STAR_ID

Query = TypeVar("Query", bound=BaseModel)


class KeyCheck(HTTPBearer):
    """Dependency of a route that wants one of some keys; the OpenAPI document shows it."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(scheme_name="HTTPBearer", auto_error=False)
        self._keys = [key.encode() for key in keys]

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials | None:
        """Raise Unauthorized without one of the keys."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        sent = key.strip().encode("latin-1")  # as the header's bytes were read
        allowed = [hmac.compare_digest(sent, known) for known in self._keys]
        if scheme.lower() != "bearer" or not any(allowed):
            raise Unauthorized("unauthorized", "send a key that may do this: Authorization: Bearer <key>")
        return None


async def no_query(request: Request) -> None:
    """Raise Invalid for a query string: a form that a response does not have is never silently another."""
    if request.query_params:
        names = ", ".join(repr(name[:40]) for name in list(request.query_params)[:10])
        raise Invalid("invalid_request", f"this call takes no parameters in its query string: {names}")


def query_of(form: type[Query], request: Request) -> Query:
    """The query string as a `form` without required fields. Raises ValidationError.

    FastAPI takes 0.7 ms for it, at every request; most clients send the same with each star.
    """
    found: Query = _validated(form, request.scope["query_string"].decode("latin-1"))
    return found


@lru_cache(maxsize=256)
def _validated(form: type[BaseModel], text: str) -> Any:
    return form.model_validate(dict(parse_qsl(text, keep_blank_values=True)))


async def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


async def _batcher(request: Request) -> Batcher[Job, Embedded, Embedded]:
    found: Batcher[Job, Embedded, Embedded] = request.app.state.batcher
    return found


async def _latent_map(request: Request) -> LatentMap:
    found: LatentMap = request.app.state.latent_map
    return found


ServiceDep = Annotated[Service, Depends(_service)]
BatcherDep = Annotated[Batcher[Job, Embedded, Embedded], Depends(_batcher)]
LatentMapDep = Annotated[LatentMap, Depends(_latent_map)]
NO_QUERY = [Depends(no_query)]

StarPath = Annotated[str, Path(pattern=documented(STAR_ID), description="star id")]

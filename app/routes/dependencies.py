"""What a route asks of a request before it is answered: a key, or no query string."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.service_errors import Invalid, Unauthorized


def one_of(keys: Sequence[str]) -> list[Any]:
    """Dependencies of a route that wants one of these keys, also told of in the OpenAPI document."""
    known = [key.encode() for key in keys]

    async def check(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        sent = key.strip().encode("latin-1")  # as the header's bytes were read
        allowed = [hmac.compare_digest(sent, one) for one in known]
        if scheme.lower() != "bearer" or not any(allowed):
            raise Unauthorized("unauthorized", "send a key that may do this: Authorization: Bearer <key>")

    return [Depends(check), Depends(HTTPBearer(auto_error=False))]


async def no_query(request: Request) -> None:
    """Refuse a query string, so that a form that an answer does not have is never silently another."""
    if request.query_params:
        names = ", ".join(repr(name[:40]) for name in list(request.query_params)[:10])
        raise Invalid("invalid_request", f"this call takes no parameters in its query string: {names}")

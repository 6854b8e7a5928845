"""JSON as the service writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response

JSON = "application/json"


def json_bytes(content: Any) -> bytes:
    """JSON of `content`; numpy arrays become lists, NaN becomes null."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of `content`, as `json_bytes` writes it."""
    return Response(json_bytes(content), status, dict(headers) if headers else None, JSON)

"""JSON as the service writes it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from fastapi import Response

JSON = "application/json"


def json_bytes(content: Any) -> bytes:
    """JSON of `content`; numpy arrays become lists, NaN becomes null."""
    if isinstance(content, dict) and "wavelength" in content:
        content = content | {"wavelength": _wavelengths(content["wavelength"].tobytes())}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


@lru_cache(maxsize=4)
def _wavelengths(values: bytes) -> orjson.Fragment:
    """JSON of the wavelengths of a grid, float64: they are the same in every response."""
    return orjson.Fragment(orjson.dumps(np.frombuffer(values), option=orjson.OPT_SERIALIZE_NUMPY))


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of `content`, as `json_bytes` writes it."""
    return Response(json_bytes(content), status, dict(headers) if headers else None, JSON)

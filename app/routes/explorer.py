"""The explorer at `/`, the API's page at `/docs`, and their files: they hold no data, so no key is asked for.

Everything comes from this service: plotly.js and Swagger UI are the copies inside installed wheels.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).parent.parent / "static"
PAGE = "index.html"
LIBRARIES = {
    "plotly.min.js": ("plotly", "package_data"),
    "swagger-ui-bundle.js": ("fastapi_offline", "static"),
    "swagger-ui.css": ("fastapi_offline", "static"),
}
"""Files of installed packages, and the folders in which they are."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",  # cached, and asked for again by its ETag
    "Vary": "Accept-Encoding",
}
"""Inline styles are plotly's; scripts come from files of this origin only."""


@dataclass(frozen=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    packed: bytes
    media_type: str
    tag: str


@cache
def files() -> dict[str, Path]:
    """The files that may be asked for, by name."""
    own = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}
    return own | {name: _folder(package) / folder / name for name, (package, folder) in LIBRARIES.items()}


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def asset(name: str) -> Asset:
    """A file, read and packed once. Raises HTTPException for a name that is not one of `files`."""
    path = files().get(name)
    if path is None:
        raise HTTPException(404, "the explorer has no such file")
    content = path.read_bytes()
    packed = gzip.compress(content, 6, mtime=0)
    return Asset(content, packed, TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:20])


@router.api_route("/", methods=["GET", "HEAD"])
def page(request: Request) -> Response:
    """The explorer."""
    return _response(request, PAGE)


@router.api_route("/docs", methods=["GET", "HEAD"])
def api_page() -> Response:
    """The API's own page, by Swagger UI."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Chemtwin: API",
        swagger_js_url="explorer/swagger-ui-bundle.js",
        swagger_css_url="explorer/swagger-ui.css",
        swagger_favicon_url="explorer/icon.svg",
    )


@router.api_route("/explorer/{name}", methods=["GET", "HEAD"])
def file(name: Annotated[str, InPath(max_length=64)], request: Request) -> Response:
    """A file of the explorer."""
    return _response(request, name)


def _response(request: Request, name: str) -> Response:
    found = asset(name)
    takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
    tag = f'"{found.tag}-gzip"' if takes_gzip else f'"{found.tag}"'
    headers = HEADERS | {"ETag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if takes_gzip:
        headers["Content-Encoding"] = "gzip"
    content = found.packed if takes_gzip else found.content
    return Response(content, media_type=found.media_type, headers=headers)

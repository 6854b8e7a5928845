"""Responses that are saved as files, and the name of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import Response

from app.formats.negotiation import MEDIA

SUFFIX = {"csv": "csv", "votable": "vot", "fits": "fits", "png": "png"}


def file_response(content: bytes, form: str, name: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response to be saved as a file.

    Parameters
    ----------
    content
        The file.
    form
        A key of `SUFFIX`.
    name
        The file's name, without the suffix.
    headers
        Other headers of the response.
    """
    disposition = "inline" if form == "png" else "attachment"
    own = {"Content-Disposition": f'{disposition}; filename="{name}.{SUFFIX[form]}"'}
    response = Response(content, headers={**own, **(headers or {})})
    response.headers["Content-Type"] = MEDIA[form][0] + (
        "; charset=utf-8; header=present" if form == "csv" else ""
    )
    return varying(response)


def file_name(*parts: str) -> str:
    """A file's name that every system takes."""
    return re.sub(r"[^A-Za-z0-9+._-]", "_", "-".join(part for part in parts if part))


def varying(response: Response) -> Response:
    """The response, marked for caches: another Accept header gets another form."""
    response.headers["Vary"] = "Accept"
    return response

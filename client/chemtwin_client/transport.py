"""HTTP: the key, retries while the service is busy, and error responses as exceptions."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from chemtwin_client import labels
from chemtwin_client.errors import ChemtwinError, Unreachable, error_class, error_of
from chemtwin_client.version import VERSION

STAR_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:-]{0,63}")

LONGEST_PAUSE = 30.0
"""Longest pause before a retry in seconds, even if the service suggests more."""

Query = Mapping[str, str | int | float]


class Transport:
    """Requests to one service. `retries`: how often a request is repeated after a 503."""

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        """Raises ValueError for a url or key that no request can carry; the key is never shown."""
        address = httpx.URL(url)
        if address.userinfo:
            raise ValueError("the address holds a user or password, which logs would show: use key=")
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(f"{url!r} is not an address like http://localhost:8000")
        self.url = str(address).rstrip("/")
        self.timeout, self.retries = timeout, retries
        headers = {"User-Agent": f"chemtwin-client/{VERSION}"}
        if key is not None and (key := key.strip()):
            if not (key.isascii() and key.isprintable()):
                raise ValueError("the key has characters that a header cannot carry")
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(base_url=address, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def json(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> Any:
        """The parsed response. Raises ChemtwinError for any other status than success."""
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": kind})
        response = self._with_retries(method, path, params=dict(query or {}), content=body, headers=headers)
        try:
            parsed = orjson.loads(response.content)
            if response.is_success:
                return parsed
            raise error_of(response.status_code, parsed["error"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise self._not_chemtwin(response) from None

    def _with_retries(self, method: str, path: str, **request: Any) -> httpx.Response:
        for retries_left in range(self.retries, -1, -1):
            try:
                response = self._client.request(method, path, **request)
            except httpx.TimeoutException:
                raise Unreachable(
                    f"{self.url} did not respond within {self.timeout:g} s; Chemtwin(timeout=...) waits longer",
                    "timeout",
                ) from None
            except httpx.TransportError as error:
                raise Unreachable(
                    f"no response from {self.url} ({error}): is the service running there? "
                    "`chemtwin serve` or `make serve` starts one",
                    "unreachable",
                ) from None
            if response.status_code != 503 or not retries_left:
                break
            time.sleep(pause(response.headers.get("Retry-After", "")))
        return response

    def _not_chemtwin(self, response: httpx.Response) -> ChemtwinError:
        """The error for a response of a proxy or of another service."""
        location = response.headers.get("Location")
        return error_class(response.status_code)(
            f"{self.url} responded {response.status_code} {response.reason_phrase}, but not as Chemtwin does"
            + (f"; it leads to {location}" if location else ""),
            "not_chemtwin",
            response.status_code,
        )


def pause(retry_after: str) -> float:
    """Seconds to wait by a Retry-After header, 1 where it is no whole number."""
    return min(float(retry_after), LONGEST_PAUSE) if retry_after.isdecimal() else 1.0


def in_path(star_id: object) -> str:
    """A star's id as part of a URL's path. Raises ValueError for what cannot be one."""
    star_id = labels.star_id(star_id)
    if not STAR_ID.fullmatch(star_id) or star_id.endswith((".fits", ".fits.gz")):
        raise ValueError(f"{star_id!r} is not a star's id; a file's path goes as pathlib.Path(...)")
    return quote(star_id, safe="")

"""Routes past FastAPI: the same responses, errors and counts as through FastAPI's own route."""

import asyncio
import re
import shutil

import httpx
import orjson
import pytest

from app.application import create_app
from app.routes.direct import DirectRoutes
from app.settings import Settings

STAR = "/twins/SYN-202-000000A"
REQUESTS = [
    ("GET", STAR),
    ("GET", f"{STAR}?k=3&fe_h_within=any"),
    ("GET", f"{STAR}?format=csv"),
    ("GET", f"{STAR}?rank=likelihood&k=2"),
    ("GET", f"{STAR}?k=0"),
    ("GET", f"{STAR}?k=3&k=4"),
    ("GET", f"{STAR}?k=%2B3&format="),
    ("GET", f"{STAR}?unknown=1"),
    ("GET", "/twins/NOBODY"),
    ("GET", "/twins/not%20an%20id"),
    ("GET", "/twins/%0A"),
    ("GET", f"{STAR}%0A"),
    ("GET", f"{STAR}/"),
    ("HEAD", STAR),
    ("DELETE", STAR),
    ("OPTIONS", STAR),
]
PIXELS = [1.0] * 8575
BODIES = [
    ("/embed", b"{}"),
    ("/embed", b"no JSON"),
    ("/embed", b'{"stars": []}'),
    ("/embed?k=1", b"{}"),
    ("/embed/", b"{}"),
    ("/embed", orjson.dumps({"star_id": "A", "flux": PIXELS, "teff": 4500, "logg": 2, "fe_h": 0})),
    ("/embed", orjson.dumps({"star_id": "A", "flux": PIXELS[1:], "teff": 4500, "logg": 2, "fe_h": 0})),
    ("/recast", b'{"star_id": "SYN-202-000000A", "to": {"teff": 4400}}'),
    ("/recast", b'{"star_id": "NOBODY", "to": {"teff": 4400}}'),
    ("/recast?format=csv", b'{"star_id": "SYN-202-000000A", "to": {}}'),
    ("/recast", b'{"star_id": "SYN-202-000000A", "to": {"teff": "hot"}}'),
    ("/recast", b'{"star_ids": ["SYN-202-000000A", "NOBODY"], "to": {"teff": 4400}}'),
]
HEADERS = [
    {"Authorization": "Bearer r"},
    {"Authorization": "Bearer w", "Accept": "text/csv"},
    {"Authorization": "Bearer r", "Accept": "image/png"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Basic r"},
    {},
]


async def responses(data_dir, direct):
    """Of every request with every header: status, body and headers; and what /metrics counted of it all."""
    app = create_app(Settings(data_dir=data_dir, api_keys="w", read_keys="r"))
    if not direct:
        app.user_middleware = [each for each in app.user_middleware if each.cls is not DirectRoutes]
    found = []
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
        before = await counts(client)
        for method, url in REQUESTS:
            for headers in HEADERS:
                response = await client.request(method, url, headers=headers)
                shown = {name: value for name, value in response.headers.items() if name != "x-request-id"}
                found.append((method, url, headers, response.status_code, response.content, shown))
        for url, content in BODIES:
            for key in ("r", "w", "wrong"):
                for kind in ("application/json", "text/plain"):
                    headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
                    response = await client.post(url, content=content, headers=headers)
                    shown = {name: value for name, value in response.headers.items() if name != "x-request-id"}
                    found.append(("POST", url, headers, response.status_code, response.content, shown))
        after = await counts(client)
    return found, {line: after[line] - before.get(line, 0) for line in after}


async def counts(client):
    text = (await client.get("/metrics", headers={"Authorization": "Bearer r"})).text
    lines = re.findall(r"^(chemtwin_(?:requests|errors)_total\{.*\}) (\S+)$", text, re.M)
    return {name: float(value) for name, value in lines if "/metrics" not in name}


@pytest.fixture(scope="module")
def both(catalogue_data, tmp_path_factory):
    found = []
    for direct in (True, False):
        data_dir = tmp_path_factory.mktemp("direct") / "data"
        shutil.copytree(catalogue_data, data_dir)
        found.append(asyncio.run(responses(data_dir, direct)))
    return found


def test_same_responses(both):
    (directly, _), (through_fastapi, _) = both
    assert {200, 201, 401, 404, 405, 406, 415, 422} <= {status for *_, status, _, _ in directly}
    for ours, theirs in zip(directly, through_fastapi, strict=True):
        assert ours == theirs


def test_same_counts(both):
    (_, directly), (_, through_fastapi) = both
    assert directly == through_fastapi
    assert any('route="/twins/{star_id}"' in line and 'status="200"' in line for line in directly)

"""What the explorer page is made of, and what it asks of the service."""

import gzip
import json
import re

import httpx
import numpy as np
import pytest

from app.routes.explorer import STATIC, files
from tests.app.routes.test_errors import FITS, LABELS, check
from tests.conftest import APSTAR, ASPCAP, GIANT, Server
from training.emulator.emulator import LABELS as EMULATED

STAR = "SYN-202-000000A"
TWIN = "SYN-202-000000B"


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """A server that keeps spectra and asks for keys."""
    settings = {"CHEMTWIN_STORE_SPECTRA": "1", "CHEMTWIN_API_KEYS": "w", "CHEMTWIN_READ_KEYS": "r"}
    server = Server(tmp_path_factory.mktemp("keeping") / "data", settings, [])
    server.wait()
    yield server
    server.stop()


@pytest.fixture
def owner(keeping):
    with httpx.Client(base_url=keeping.url, timeout=60, headers={"Authorization": "Bearer w"}) as client:
        yield client


READER = {"Authorization": "Bearer r"}


@pytest.mark.parametrize("path", ["/", *(f"/explorer/{name}" for name in files())])
def test_every_file_comes_without_a_key_packed_and_is_asked_for_by_its_tag(keeping, path):
    url = keeping.url + path
    response = httpx.get(url)
    assert response.status_code == 200
    assert response.headers["content-encoding"] == "gzip"
    assert "'unsafe-eval'" not in response.headers["content-security-policy"]
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "connect-src 'self'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(url, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = httpx.get(url, headers={"Accept-Encoding": "identity"})
    assert plain.content == response.content
    assert plain.headers["etag"] != response.headers["etag"]
    with httpx.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as packed:
        assert gzip.decompress(b"".join(packed.iter_raw())) == plain.content


def test_other_files_are_not_there(client):
    for name in ("explorer.py", "..%2Fapi.py", "plotly.js"):
        check(client.get(f"/explorer/{name}"), 404, "not_found")
    assert client.post("/").headers["allow"] == "GET, HEAD"


def test_no_file_of_ours_names_another_address():
    for path in STATIC.iterdir():
        named = set(re.findall(r"""(?:https?:)?//[a-z0-9.-]+\.[a-z]+""", path.read_text()))
        assert named <= {"http://www.w3.org"}, path  # the namespace of SVG
        assert not re.search(r"\bon[a-z]+=[\"']", path.read_text()), "a handler in the markup"


def test_the_api_s_page_names_no_other_address(client):
    named = re.findall(r"""(?:src|href|url)\W{1,3}([^"' >]+)""", client.get("/docs").text)
    assert "explorer/swagger-ui-bundle.js" in named
    assert not any("//" in url for url in named)


def test_the_lines_are_where_the_emulator_has_them(emulator, model):
    wavelength, labels = model.grid.wavelength, np.zeros((1, len(EMULATED)))
    labels[0, :3] = 4600, 2.2, -0.1
    lines = json.loads((STATIC / "lines.json").read_text())
    assert len(lines) > 20
    elements = sorted({element for element, _ in lines})
    richer = np.repeat(labels, 1 + len(elements), axis=0)
    for row, element in enumerate(elements, 1):
        richer[row, EMULATED.index(element)] = 0.2
    before, *after = emulator(richer)
    for element, line in lines:
        deeper = before - after[elements.index(element)]
        near = np.abs(wavelength - line) < 2.5
        peak = wavelength[near][np.argmax(deeper[near])]
        assert peak == pytest.approx(line, abs=1.3), element
        assert deeper[near].max() > 0.004, element


def test_stars_by_the_beginning_of_their_id(client):
    ids = [star["star_id"] for star in client.get("/stars?prefix=SYN-202-00001&limit=4").json()["stars"]]
    assert ids == [f"SYN-202-00001{i}{half}" for i in range(2) for half in "AB"]
    assert client.get("/stars?prefix=syn").json() == {"stars": [], "next": None}
    check(client.get("/stars?prefix=%25"), 422, "invalid_request")
    table = client.get("/stars?prefix=SYN-202-00001&limit=2&format=csv")
    following = re.search(r"<(.*)>", table.headers["link"])[1]
    assert client.get(following).text.splitlines()[1].startswith("SYN-202-000011A")


def test_stars_by_their_ids(client):
    response = client.get(f"/stars?star_ids={TWIN},{STAR},NO").json()
    assert [star["star_id"] for star in response["stars"]] == [STAR, TWIN]
    assert client.get(f"/stars?star_ids={TWIN},{STAR}&limit=1").json()["next"] == STAR
    assert client.get(f"/stars?star_ids={STAR},{TWIN}&after={STAR}").json()["stars"][0]["star_id"] == TWIN
    check(client.get("/stars?star_ids=A,,B"), 422, "invalid_request")
    check(client.get(f"/stars?star_ids={','.join('A' for _ in range(1001))}"), 422, "invalid_request")


def test_the_map_places_stars_by_their_latents(client):
    response = client.get("/map").json()
    points = response["points"]
    assert response["stars"] >= 1200
    assert len({*points["star_id"]}) == len(points["star_id"]) >= 1190
    mean, axes = np.array(response["mean"]), np.array(response["axes"])
    assert np.allclose(axes @ axes.T, np.eye(2), atol=1e-5)
    star = client.get(f"/stars/{STAR}").json()
    at = points["star_id"].index(STAR)
    there = axes @ (np.array(star["latent"]) - mean)
    assert there == pytest.approx([points["x"][at], points["y"][at]], abs=2e-3)
    assert points["teff"][at] == pytest.approx(star["teff"], abs=1e-2)
    latents = np.array(
        [one["latent"] for one in client.get("/stars?prefix=SYN-202&limit=1000").json()["stars"]]
    )
    shares = np.sort(np.linalg.eigvalsh(np.cov(latents.T)))[::-1][:2] / np.trace(np.cov(latents.T))
    assert response["explained"] == pytest.approx(shares, rel=0.1)
    magnesium = next(
        one["x_fe"]
        for one in client.get(f"/stars/{STAR}/abundances").json()["abundances"]
        if one["element"] == "Mg"
    )
    assert response["abundances"]["Mg"][at] == pytest.approx(magnesium, abs=2e-3)


def test_the_map_of_few_stars_and_its_drawing_again(start_server, star):
    with httpx.Client(base_url=start_server().url, timeout=60) as client:
        empty = client.get("/map").json()
        assert (empty["stars"], empty["points"]["star_id"], empty["explained"]) == (0, [], [0, 0])
        for number in range(4):
            flux = (np.array(star["flux"]) ** (1 + number / 50)).tolist()
            stored = client.post("/embed", json=star | {"star_id": f"M{number}", "flux": flux})
            assert stored.status_code == 201
            points = client.get("/map").json()["points"]
            assert sorted(points["star_id"]) == [f"M{i}" for i in range(number + 1)]
            assert len(points["x"]) == number + 1
        client.delete("/stars/M0")
        assert "M0" not in client.get("/map").json()["points"]["star_id"]


def test_a_spectrum_that_was_stored_is_shown_as_the_model_sees_it(owner, model):
    client = owner
    content = APSTAR.read_bytes()
    stored = client.post("/embed", params=GIANT, content=content, headers={"Content-Type": FITS}).json()
    shown = client.get(f"/stars/{stored['star_id']}/spectrum").json()
    unstored = client.post("/spectrum", params=GIANT, content=content, headers={"Content-Type": FITS}).json()
    assert shown["latent"] == stored["latent"] == unstored["latent"]
    flux, own = (np.array(one["flux"], dtype=float) for one in (shown, unstored))
    assert np.nanmax(np.abs(flux - own)) < 2e-5  # what is kept is rounded to single precision
    assert np.isnan(flux).mean() == pytest.approx(stored["masked_fraction"])
    error = np.array(shown["error"], dtype=float)
    assert np.nanmedian(flux / error) == pytest.approx(stored["snr"], rel=0.01)
    assert shown["wavelength"] == pytest.approx(model.grid.wavelength)
    recast = client.post("/recast", json={"star_id": stored["star_id"], "to": {}}).json()
    assert shown["reconstruction"] == pytest.approx(recast["flux"], abs=1e-5)
    assert np.nanstd(flux - np.array(shown["reconstruction"])) < 0.05
    assert shown["processing"] == stored["processing"]


def test_a_spectrum_that_was_not_stored_is_reconstructed_only(client):
    shown = client.get(f"/stars/{STAR}/spectrum").json()
    assert (shown["flux"], shown["error"], shown["processing"]) == (None, None, [])
    assert len(shown["reconstruction"]) == len(shown["wavelength"])
    check(client.get("/stars/NO/spectrum"), 404, "star_not_found")


def test_spectra_to_look_at_are_not_stored(client, star):
    before = client.get("/model").json()["stars"]
    bare = {name: value for name, value in star.items() if name not in ("ivar", "star_id")}
    shown = client.post("/spectrum", json=bare).json()
    assert [shown[name] for name in ("star_id", "error", "snr", "latent_sd")] == [None] * 4
    headers = {"Content-Type": FITS}
    labelled = client.post("/spectrum", content=ASPCAP.read_bytes(), headers=headers).json()
    assert labelled["star_id"] == "2M17334253-1654573"
    assert client.get("/model").json()["stars"] == before
    check(client.post("/spectrum", content=APSTAR.read_bytes(), headers=headers), 422, "missing_labels")
    check(client.post(f"/spectrum?{LABELS}", json=bare), 422, "invalid_request")
    npz = {"Content-Type": "application/x-npz"}
    check(client.post("/spectrum", content=b"", headers=npz), 415, "unsupported_media_type")


def test_several_are_recast_in_one_call(client):
    to = {"teff": 4400.0, "logg": 2.0, "fe_h": 0.0}
    response = client.post("/recast", json={"star_id": STAR, "star_ids": [TWIN, "NO"], "to": to}).json()
    assert [result["status"] for result in response["results"]] == [200, 200, 404]
    for star_id, result in zip((STAR, TWIN), response["results"], strict=False):
        alone = client.post("/recast", json={"star_id": star_id, "to": to}).json()
        assert result["flux"] == pytest.approx(alone["flux"], abs=1e-5)
        for name in ("star_id", "from", "to", "in_domain", "warnings"):
            assert result[name] == alone[name]
    assert response["wavelength"] == alone["wavelength"]
    own = client.post("/recast", json={"star_ids": [STAR, TWIN], "to": {}}).json()["results"]
    assert [result["from"] == result["to"] for result in own] == [True, True]
    assert own[0]["from"] != own[1]["from"]


def test_a_latent_is_recast_as_its_star(client):
    star = client.get(f"/stars/{STAR}").json()
    body = {"latent": star["latent"], "from": {name: star[name] for name in ("teff", "logg", "fe_h")}}
    response = client.post("/recast", json={"star": body, "to": {"teff": 4800}}).json()
    stored = client.post("/recast", json={"star_id": STAR, "to": {"teff": 4800}}).json()
    assert response["flux"] == stored["flux"]
    assert (response["star_id"], response["flux_sd"]) == (None, None)
    table = client.post("/recast?format=csv", json={"star": body, "to": {}})
    assert len(table.text.splitlines()) == len(response["flux"]) + 1


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"star_id": STAR, "star": {"latent": [0.0] * 18, "from": GIANT}, "to": {}}, "invalid_request"),
        ({"star_ids": [], "to": {}}, "invalid_request"),
        ({"star_ids": [STAR] * 101, "to": {}}, "invalid_request"),
        ({"star": {"latent": [0.0] * 17, "from": GIANT}, "to": {}}, "bad_latent"),
        ({"star": {"latent": [1e7] * 18, "from": GIANT}, "to": {}}, "bad_latent"),
        ({"star": {"latent": [0.0] * 18, "from": GIANT | {"parameters": {"x": 1.0}}}, "to": {}}, "unknown_parameters"),
        ({"star": {"latent": [0.0] * 18, "from": {"teff": 4500.0}}, "to": {}}, "invalid_request"),
    ],
)  # fmt: skip
def test_recasts_that_are_refused(client, wish, code):
    check(client.post("/recast", json=wish), 422, code)


def test_several_come_as_json_only(client):
    check(client.post("/recast?format=csv", json={"star_ids": [STAR], "to": {}}), 422, "invalid_request")


def test_what_the_page_asks_for_needs_a_read_key(keeping):
    for path in ("/map", "/stars?prefix=A", "/stars/A/spectrum"):
        check(httpx.get(keeping.url + path), 401, "unauthorized")
        assert httpx.get(keeping.url + path, headers=READER).status_code in (200, 404)
    url = f"{keeping.url}/spectrum"
    check(httpx.post(url, json={}), 401, "unauthorized")
    check(httpx.post(url, json={}, headers=READER), 422, "invalid_request")

"""Cone search by pyvo and astropy's validator, over a running service."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import pyvo
import requests
from astropy.io.votable import parse, validate
from astropy.table import Table

from index.stores.sqlite import SqliteStore
from index.stores.star import Star
from tests.conftest import APSTAR, GIANT

MOST = 10_000


@pytest.fixture(scope="module")
def sky(model, tmp_path_factory):
    """The folder of a catalogue of 10,100 stars within 2 degrees of (10, 80)."""
    folder = tmp_path_factory.mktemp("sky")
    generator = np.random.default_rng(1)
    store = SqliteStore(folder / "stars.sqlite")
    ra, dec = generator.uniform(5, 15, 10_100), generator.uniform(79, 81, 10_100)
    latent = np.zeros(model.card.latent_dim, np.float32)
    store.upsert(
        [
            Star(f"S{row}", model.card.identity, latent, None, 4500, 2, 0, ra=ra[row], dec=dec[row])
            for row in range(10_100)
        ]
    )
    store.close()
    return folder


@pytest.fixture
def cone(sky: Path, start_server):
    return start_server(sky).url + "/cone"


def infos_of(response):
    assert response.headers["content-type"] == "application/x-votable+xml"
    return {info.name: info.value for info in parse(io.BytesIO(response.content)).resources[0].infos}


def test_pyvo_finds_the_stars_of_a_circle(cone):
    found = pyvo.conesearch(cone, pos=(10, 80), radius=0.2)
    table = found.to_table()
    assert 100 < len(table) < 1000
    assert found[0].id == table["star_id"][0]
    assert found[0].pos.separation(found[-1].pos).deg < 0.4
    separations = np.asarray(table["separation"])
    assert np.all(np.diff(separations) >= 0)
    assert separations[-1] <= 0.2
    assert {"teff", "logg", "fe_h", "model"} <= set(table.colnames)
    assert "latent" not in table.colnames
    assert pyvo.conesearch(cone, pos=(10, 80), radius=0.2, verbosity=3).to_table()["latent"].ndim == 2
    brief = pyvo.conesearch(cone, pos=(10, 80), radius=0.2, verbosity=1).to_table()
    assert brief.colnames == ["star_id", "ra", "dec", "separation", "teff", "logg", "fe_h"]


def test_responses_are_valid_and_their_columns_alike(cone):
    headers = set()
    for query in (
        "RA=10&DEC=80&SR=1",
        "RA=10&DEC=80&SR=0",
        "ra=200&dec=-80&sr=1&Format=x",
        "RA=1",
        "RA=1&DEC=2&SR=-1",
    ):
        response = httpx.get(f"{cone}?{query}")
        report = io.StringIO()
        assert validate(io.BytesIO(response.content), output=report), report.getvalue()
        tables = parse(io.BytesIO(response.content)).resources[0].tables
        headers |= {tuple((f.name, f.datatype, f.arraysize, f.ucd) for f in table.fields) for table in tables}
    assert len(headers) == 1
    (columns,) = headers
    main = {name: ucd for name, _, _, ucd in columns if ucd.isupper()}
    assert main == {"star_id": "ID_MAIN", "ra": "POS_EQ_RA_MAIN", "dec": "POS_EQ_DEC_MAIN"}


def test_what_is_wrong_is_reported_in_a_votable(cone):
    for query, wrong in (("RA=1&DEC=2", "SR"), ("RA=1&DEC=91&SR=1", "DEC"), ("RA=nan&DEC=1&SR=1", "RA")):
        infos = infos_of(httpx.get(f"{cone}?{query}"))
        assert infos["QUERY_STATUS"] == "ERROR"
        assert infos["Error"].startswith(f"{wrong}: ")
    with pytest.raises(pyvo.DALQueryError, match="SR"):
        pyvo.conesearch(cone, pos=(1, 2), radius=200)


def test_a_circle_with_too_many_stars_says_so(cone):
    response = httpx.get(f"{cone}?RA=10&DEC=80&SR=5&VERB=1", timeout=60)
    assert infos_of(response)["QUERY_STATUS"] == "OVERFLOW"
    assert len(Table.read(io.BytesIO(response.content), format="votable")) == MOST
    assert infos_of(httpx.get(f"{cone}?RA=10&DEC=80&SR=0.5&VERB=1"))["QUERY_STATUS"] == "OK"


def test_a_read_key_is_asked_for(sky, start_server):
    url = start_server(sky, CHEMTWIN_API_KEYS="w", CHEMTWIN_READ_KEYS="r").url
    assert httpx.get(f"{url}/cone?RA=1&DEC=2&SR=1").status_code == 401
    session = requests.Session()
    session.headers["Authorization"] = "Bearer r"
    assert len(pyvo.dal.SCSService(url + "/cone", session=session).search(pos=(10, 80), radius=0.2)) > 100


def test_every_way_in_brings_the_position(client, service, star):
    flux = np.array([star["flux"]])
    labels = {name: np.array([star[name]]) for name in ("teff", "logg", "fe_h")}
    with io.BytesIO() as file:
        np.savez(file, star_id=["NPZ-SKY"], flux=flux, ra=[201.5], dec=[-33.25], **labels)
        sent = client.post("/embed", content=file.getvalue(), headers={"Content-Type": "application/x-npz"})
    assert sent.json()["results"][0]["status"] == 201
    client.post("/embed", json={**star, "star_id": "JSON-SKY", "ra": 201.6, "dec": -33.25}).raise_for_status()
    fits = {"headers": {"Content-Type": "application/fits"}, "content": APSTAR.read_bytes()}
    own = client.post("/embed", params=GIANT, **fits).json()["star_id"]
    position = client.get(f"/stars/{own}").json()
    table = pyvo.conesearch(service.url + "/cone", pos=(201.55, -33.25), radius=0.06).to_table()
    assert sorted(table["star_id"]) == ["JSON-SKY", "NPZ-SKY"]
    near = pyvo.conesearch(
        service.url + "/cone", pos=(position["ra"], position["dec"]), radius=0.001
    ).to_table()
    assert list(near["star_id"]) == [own]
    for star_id in ("NPZ-SKY", "JSON-SKY", own):
        client.delete(f"/stars/{star_id}")


def test_twins_tell_where_they_are(client, star):
    for row in range(2):
        client.post("/embed", json={**star, "star_id": f"SKY-{row}", "ra": 10.0 + row, "dec": 5.0})
    first = client.get("/twins/SKY-0?k=1").json()["twins"][0]
    assert (first["star_id"], first["ra"], first["dec"]) == ("SKY-1", 11.0, 5.0)
    for row in range(2):
        client.delete(f"/stars/SKY-{row}")


def test_many_circles_at_once_leave_the_rest_of_the_service_alone(cone):
    asked = {"RA": 10, "DEC": 80, "SR": 0.3, "VERB": 3}
    started = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        circles = [pool.submit(httpx.get, cone, params=asked, timeout=120) for _ in range(20)]
        time.sleep(0.5)
        began = time.monotonic()
        assert httpx.get(cone.replace("/cone", "/healthz"), timeout=120).status_code == 200
        assert httpx.get(cone.replace("/cone", "/stars/S1"), timeout=120).status_code == 200
        waited = time.monotonic() - began
        assert not all(circle.done() for circle in circles)
        assert {circle.result().status_code for circle in circles} == {200}
    assert waited < (time.monotonic() - started) / 2, "others wait for the circles"

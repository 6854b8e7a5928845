"""POST /embed of a star that is stored already: what stays of it, and what goes."""

import io

import httpx
import numpy as np
import pytest

from app.inference.stars import SPECTRUM_DELETED
from tests.conftest import APSTAR, GIANT

SPECTRA = {"CHEMTWIN_STORE_SPECTRA": "1"}
ABOUT = {"ra": 132.9, "dec": 11.8, "meta": {"cluster": "M67", "note": "blue straggler?"}}


@pytest.fixture
def about(client, star):
    """A stored star with a position and a cluster; deleted at the end of the test."""
    body = {**star, "star_id": "AGAIN"}
    client.post("/embed", json=body | ABOUT).raise_for_status()
    yield body
    client.delete("/stars/AGAIN")


def stored(client) -> dict:
    found = client.get("/stars/AGAIN").json()
    return {name: found[name] for name in ABOUT} | {"cluster": found["cluster"]}


def test_position_and_meta_that_are_not_sent_stay(client, about):
    again = client.post("/embed", json=about | {"teff": about["teff"] + 1}).json()
    assert (again["replaced"], again["warnings"]) == (True, [])
    assert stored(client) == ABOUT | {"cluster": "M67"}
    assert client.get("/stars/AGAIN").json()["teff"] == about["teff"] + 1
    members = client.get("/stars", params={"cluster": "M67"}).json()["stars"]
    assert [one["star_id"] for one in members] == ["AGAIN"]


def test_what_is_sent_replaces_what_was_there(client, about):
    client.post("/embed", json=about | {"ra": 10.0, "dec": -5.0}).raise_for_status()
    assert stored(client) == {"ra": 10.0, "dec": -5.0, "meta": ABOUT["meta"], "cluster": "M67"}
    client.post("/embed", json=about | {"meta": {"cluster": "NGC 188"}}).raise_for_status()
    assert stored(client) == {"ra": 10.0, "dec": -5.0, "meta": {"cluster": "NGC 188"}, "cluster": "NGC 188"}


def test_a_file_brings_its_own_kind_and_position(client):
    sent = {"content": APSTAR.read_bytes(), "headers": {"Content-Type": "application/fits"}}
    first = client.post("/embed", params=GIANT, **sent).json()
    star_id = first["star_id"]
    flux = {"flux": [1.0, 0.9] * 3757, "ivar": [1e4] * 7514, **GIANT}
    meta = {"cluster": "field", "source": "elsewhere.fits", "digest": "0" * 32}
    client.post("/embed", json={"star_id": star_id, "meta": meta, **flux}).raise_for_status()
    client.post("/embed", params=GIANT, **sent).raise_for_status()
    found = client.get(f"/stars/{star_id}").json()
    assert found["meta"] == {"cluster": "field", "file": "apStar"}, "what describes the other spectrum is gone"
    assert found["cluster"] == "field"
    assert found["ra"] is not None
    client.delete(f"/stars/{star_id}")


def test_many_stars_keep_theirs_too(client, about):
    labels = {name: np.array([about[name]]) for name in ("star_id", "teff", "logg", "fe_h")}
    out = io.BytesIO()
    np.savez(out, flux=np.array([about["flux"]]), ivar=np.array([about["ivar"]]), **labels)
    npz = {"content": out.getvalue(), "headers": {"Content-Type": "application/x-npz"}}
    for body in ({"json": {"stars": [about]}}, npz):
        (result,) = client.post("/embed", **body).json()["results"]
        assert (result["status"], result["replaced"]) == (200, True)
        assert stored(client) == ABOUT | {"cluster": "M67"}


def test_the_position_that_stays_is_compared_with_the_id(client, star):
    body = {**star, "star_id": "2M17335483-2753043"}
    far = client.post("/embed", json=body | {"ra": 10.0, "dec": 10.0}).json()["warnings"]
    assert "degrees from the one in the id" in far[0]
    assert client.post("/embed", json=body).json()["warnings"] == far
    client.delete("/stars/2M17335483-2753043")


def test_a_stored_spectrum_is_that_of_the_stored_latent(start_server, star, tmp_path):
    """It is replaced with the star; where none is stored it is deleted, and the response says so."""
    body, other = {**star, "star_id": "AGAIN"}, {**star, "star_id": "AGAIN", "flux": [1.0, 0.9] * 3757}
    server = start_server(**SPECTRA)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.post("/embed", json=body | ABOUT).status_code == 201
        before = client.get("/stars/AGAIN/spectrum").json()["flux"]
        assert SPECTRUM_DELETED not in client.post("/embed", json=other).json()["warnings"]
        after = client.get("/stars/AGAIN/spectrum").json()["flux"]
        assert before is not None
        assert after not in (None, before)
    server.stop()
    server = start_server()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.post("/embed", json=body).json()["warnings"] == [SPECTRUM_DELETED]
        found = client.get("/stars/AGAIN/spectrum").json()
        assert (found["flux"], found["cluster"], found["warnings"]) == (None, "M67", [])
        assert client.post("/embed", json=body).json()["warnings"] == [], "there is none any more"

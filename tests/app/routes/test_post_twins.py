"""POST /twins, asked of a running server: nothing is stored, and each star has its own fate."""

import io

import numpy as np
import pytest

from tests.app.routes.test_errors import check
from tests.conftest import APSTAR, GIANT, Server
from tests.model.spectra.mwm_files import APOGEE_ID, from_apstar

FITS, NPZ = {"Content-Type": "application/fits"}, {"Content-Type": "application/x-npz"}


@pytest.fixture
def nothing_stored(client):
    before = client.get("/readyz").json()["stars"]
    yield
    assert client.get("/readyz").json()["stars"] == before


@pytest.fixture
def stored(client, star):
    """What GET answers for the test star, stored for a moment."""
    assert client.post("/embed", json=star).status_code == 201
    response = client.get("/twins/TEST-1?k=4&teff_max=4900").json()
    client.delete("/stars/TEST-1")
    return response


def npz(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def test_a_spectrum_has_the_twins_that_it_has_when_stored(client, star, stored, nothing_stored):
    response = client.post("/twins?k=4&teff_max=4900", json=star)
    assert response.status_code == 200, response.text
    unstored_twins = response.json()
    assert (unstored_twins["in_domain"], unstored_twins["warnings"]) == (True, [])
    assert unstored_twins == stored | {"searched": stored["searched"] - 1}
    unnamed = client.post(
        "/twins?k=4&teff_max=4900", json={n: v for n, v in star.items() if n != "star_id"}
    ).json()
    assert (unnamed["star_id"], unnamed["twins"]) == (None, stored["twins"])


def test_the_stored_row_of_its_own_id_is_left_out(client, star, nothing_stored):
    own = "SYN-202-000000A"
    twins = client.post("/twins?k=5", json=star).json()["twins"]
    assert twins[0]["star_id"] == own, "the test star is a copy of it"
    others = client.post("/twins?k=4", json=star | {"star_id": own}).json()["twins"]
    assert others == twins[1:]


def test_a_fits_file_and_filters_in_one_query(client, nothing_stored):
    response = client.post(
        "/twins", content=APSTAR.read_bytes(), params=GIANT | {"k": 3, "teff_min": 4500}, headers=FITS
    )
    assert response.status_code == 200, response.text
    assert response.json()["star_id"] == "2M00004994+1621552"
    assert len(response.json()["twins"]) == 3
    assert all(twin["teff"] >= 4500 for twin in response.json()["twins"])
    missing = client.post("/twins?k=3", content=APSTAR.read_bytes(), headers=FITS)
    check(missing, 422, "missing_labels")
    check(
        client.post("/twins", content=APSTAR.read_bytes(), params=GIANT | {"kk": 3}, headers=FITS),
        422,
        "invalid_request",
    )


def test_an_mwmstar_is_the_apstar_in_another_layout(client, nothing_stored):
    old = client.post("/twins", content=APSTAR.read_bytes(), params=GIANT, headers=FITS).json()
    file = from_apstar(APSTAR, **GIANT, e_teff=0.0)
    new = client.post("/twins", content=file, headers=FITS).json()
    assert new["star_id"] == APOGEE_ID
    assert [twin["star_id"] for twin in new["twins"]] == [twin["star_id"] for twin in old["twins"]]
    np.testing.assert_allclose(
        [twin["distance"] for twin in new["twins"]], [twin["distance"] for twin in old["twins"]], rtol=1e-3
    )


def test_an_mwmstar_is_stored_with_its_pipelines_labels_and_errors(client):
    file = from_apstar(APSTAR, **GIANT, e_teff=80.0, e_logg=0.1)
    response = client.post("/embed?star_id=MWM-1", content=file, headers=FITS)
    assert response.status_code == 201, response.text
    exact = client.post("/embed?star_id=MWM-1&teff_err=0&logg_err=0", content=file, headers=FITS).json()
    assert np.mean(response.json()["latent_sd"]) > np.mean(exact["latent_sd"])
    saved = client.get("/stars/MWM-1").json()
    assert saved["meta"] == {"file": "mwmStar"}
    assert saved["teff"] == GIANT["teff"]
    refused = client.post("/embed?star_id=MWM-2", content=from_apstar(APSTAR), headers=FITS)
    check(refused, 422, "missing_labels")
    assert "doppler_" in refused.json()["error"]["message"]
    client.delete("/stars/MWM-1")


@pytest.mark.parametrize("named", [True, False])
def test_an_npz_of_several_gives_results_in_order(client, star, named, nothing_stored):
    labels = {name: np.array([star[name], -9999.0, star[name]]) for name in ("teff", "logg", "fe_h")}
    names = {"star_id": np.array(["N-1", "N-2", "N-3"])} if named else {}
    flux = np.array([star["flux"]] * 3)
    body = npz(flux=flux, ivar=np.full(flux.shape, 1e4), **labels, **names)
    response = client.post("/twins?k=2", content=body, headers=NPZ)
    results = response.json()["results"]
    assert [result["status"] for result in results] == [200, 422, 200]
    assert results[0]["star_id"] == ("N-1" if named else None)
    assert results[1]["error"]["code"] == "bad_parameters"
    assert results[0]["twins"] == results[2]["twins"] == client.post("/twins?k=2", json=star).json()["twins"]


def test_several_as_json_each_have_their_own_fate(client, star, nothing_stored):
    stars = [star, star | {"flux": [1.0]}, 17, star | {"star_id": "a b"}, star]
    results = client.post("/twins?k=1", json={"stars": stars}).json()["results"]
    assert [result["status"] for result in results] == [200, 422, 422, 422, 200]
    assert results[0] == results[4]
    assert results[0]["in_domain"] is True


def test_stored_ids_come_in_order_as_from_get(client):
    ids = ["SYN-202-000005B", "nobody", "SYN-202-000003A", "SYN-202-000005B"]
    response = client.post("/twins?fe_h_within=any&snr_min=10", json={"star_ids": ids, "k": 3}).json()[
        "results"
    ]
    assert [result.pop("status") for result in response] == [200, 404, 200, 200]
    assert response[1]["error"]["code"] == "star_not_found"
    for star_id, result in zip(ids, response, strict=True):
        if star_id != "nobody":
            assert result == client.get(f"/twins/{star_id}?k=3&fe_h_within=any&snr_min=10").json()


def test_more_than_a_batch_of_ids_keeps_its_order(client):
    ids = [f"SYN-202-{number:06d}A" for number in range(150)]
    results = client.post("/twins?rank=distance", json={"star_ids": ids, "k": 1}).json()["results"]
    assert [result["star_id"] for result in results] == ids


def test_ranking_by_likelihood_refuses_one_star_and_not_the_others(client, star):
    bare = {name: value for name, value in star.items() if name != "ivar"}
    assert client.post("/embed", json=bare | {"star_id": "BARE"}).status_code == 201
    ids = ["SYN-202-000003A", "BARE"]
    results = client.post("/twins?rank=likelihood&k=2", json={"star_ids": ids}).json()["results"]
    client.delete("/stars/BARE")
    assert [result["status"] for result in results] == [200, 422]
    assert results[1]["error"]["code"] == "no_errors"
    check(client.post("/twins?rank=likelihood", json=bare), 422, "no_errors")


MANY = {"star_ids": ["SYN-202-000000A"] * 101}
REFUSED = {
    "no ids": ("", {"star_ids": []}, 422, "invalid_request"),
    "ids no list": ("", {"star_ids": "SYN"}, 422, "invalid_request"),
    "a bad id": ("", {"star_ids": ["a b"]}, 422, "invalid_request"),
    "too many ids": ("", {"star_ids": ["A"] * 1001}, 422, "too_many_stars"),
    "too many twins": ("?k=1000", MANY, 422, "too_many_twins"),
    "too many to rank": ("?rank=likelihood", MANY, 422, "too_many_twins"),
    "k twice": ("?k=3", {"star_ids": ["A"], "k": 4}, 422, "invalid_request"),
    "k of 0": ("", {"star_ids": ["A"], "k": 0}, 422, "invalid_request"),
    "filters in the body": ("", {"star_ids": ["A"], "teff_min": 4000}, 422, "invalid_request"),
    "a misspelt filter": ("?tef_min=4000", {"star_ids": ["A"]}, 422, "invalid_request"),
    "labels in the query": ("?teff=4000", {"star_ids": ["A"]}, 422, "invalid_request"),
    "several as CSV": ("?format=csv", {"star_ids": ["A"]}, 422, "invalid_request"),
    "stars no list": ("", {"stars": 3}, 422, "invalid_request"),
    "no stars": ("", {"stars": []}, 422, "too_many_stars"),
    "a list": ("", [1, 2], 422, "invalid_request"),
    "no flux": ("", {"star_id": "A"}, 422, "invalid_request"),
}


@pytest.mark.parametrize(("query", "body", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(client, query, body, status, code):
    check(client.post(f"/twins{query}", json=body), status, code)


def test_other_bodies_are_refused(client):
    check(client.post("/twins", content=b"x", headers={"Content-Type": "application/x-hdf5"}), 415, None)
    accepting = {"Accept": "text/csv"}
    check(client.post("/twins", json={"star_ids": ["A"]}, headers=accepting), 406, "not_acceptable")


def test_a_read_key_is_enough(start_server, star):
    import httpx

    server: Server = start_server(CHEMTWIN_API_KEYS="write-key", CHEMTWIN_READ_KEYS="read-key")
    for key, status in (("read-key", 200), ("write-key", 200), ("other", 401)):
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.post(server.url + "/twins", json=star, headers=headers, timeout=60).status_code == status
    assert httpx.get(server.url + "/readyz").json()["stars"] == 0

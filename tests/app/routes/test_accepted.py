"""What a request may hold, beyond what test_errors.py refuses: rows of the table in docs/reference/file-formats.md."""

import io

import numpy as np
import pytest

from tests.conftest import ASPCAP

FITS = {"Content-Type": "application/fits"}
NPZ = {"Content-Type": "application/x-npz"}


@pytest.fixture(autouse=True)
def _left_as_it_was(client):
    yield
    client.delete("/stars/TEST-1")


def npz(star: dict, **changes: object) -> bytes:
    out = io.BytesIO()
    arrays = {name: np.array([star[name]]) for name in ("star_id", "flux", "ivar", "teff", "logg", "fe_h")}
    np.savez(out, **(arrays | {name: np.array([value]) for name, value in changes.items()}))
    return out.getvalue()


def refused(response, *words: str) -> None:
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    said = " ".join([error["message"], *error["detail"]])
    for word in words:
        assert word in said


@pytest.mark.parametrize("star_id", ["12345.0", "4.29581E+18", "nan", "None", "NULL", "NaT", "inf"])
def test_an_id_that_was_a_number_or_stands_for_none_is_refused(client, star, star_id):
    refused(client.post("/embed", json=star | {"star_id": star_id}), "is not a star id")


@pytest.mark.parametrize("value", [-9999.0, -9999.99, 99.99])
@pytest.mark.parametrize("name", ["teff", "logg", "fe_h"])
def test_an_unknown_label_is_refused_over_http(client, star, name, value):
    refused(client.post("/embed", json=star | {name: value}), name)
    refused(client.post("/embed", json=star | {name: None}), name)
    refused(
        client.post("/embed", params={name: value, "star_id": "A"}, content=ASPCAP.read_bytes(), headers=FITS),
        name,
    )
    for unknown in (value, np.nan, np.inf):
        done = client.post("/embed", content=npz(star, **{name: unknown}), headers=NPZ).json()["results"][0]
        assert done["status"] == 422
        assert name in str(done["error"])


def test_an_unknown_position_of_an_npz_is_none(client, star):
    for ra, dec in ((np.nan, 10.0), (10.0, np.nan)):
        done = client.post("/embed", content=npz(star, ra=ra, dec=dec), headers=NPZ).json()["results"][0]
        assert done["status"] in (200, 201)
        stored = client.get("/stars/TEST-1").json()
        assert None in (stored["ra"], stored["dec"])


@pytest.mark.parametrize("value", ["4705", True, [4705]])
def test_text_is_no_number_over_http(client, star, value):
    refused(client.post("/embed", json=star | {"teff": value}), "teff")


@pytest.mark.parametrize("text", ["4,705", "4705 K", "nan", "inf", "1e400", "0x10", "1_000", "true"])
def test_a_query_string_holds_plain_numbers(client, text):
    labels = {"teff": text, "logg": 1.1, "fe_h": 0, "star_id": "A"}
    refused(client.post("/embed", params=labels, content=ASPCAP.read_bytes(), headers=FITS), "teff")


def test_wavelengths_in_nanometres_are_refused_with_a_hint(client, star, model):
    wavelength = (model.grid.wavelength / 10).tolist()
    refused(client.post("/embed", json=star | {"wavelength": wavelength}), "look like nanometres")


def test_errors_that_say_nothing_ignore_the_pixel(client, star):
    error = [0.01] * len(star["flux"])
    error[10], error[11], error[12] = 0, None, -1
    body = {name: value for name, value in star.items() if name != "ivar"} | {"error": error}
    assert client.post("/embed", json=body).json()["masked_fraction"] == pytest.approx(3 / 7514)
    refused(client.post("/embed", json=star | {"ivar": [-1.0, *star["ivar"][1:]]}), "ivar must not be negative")


def test_a_flux_that_is_not_finite_must_be_masked(client, star):
    flux = [None, *star["flux"][1:]]
    refused(client.post("/embed", json=star | {"flux": flux}), "1 pixels have no finite flux")
    response = client.post("/embed", json=star | {"flux": flux, "ivar": [0, *star["ivar"][1:]]})
    assert response.json()["masked_fraction"] == pytest.approx(1 / 7514)


def test_a_file_of_another_star_is_refused_over_http(client):
    labels = {"star_id": "2M00004994+1621552", "teff": 4050, "logg": 1.6, "fe_h": 0}
    response = client.post("/embed", params=labels, content=ASPCAP.read_bytes(), headers=FITS)
    refused(response, "the file is of 2M17334253-1654573, another star than 2M00004994+1621552")


def test_errors_of_labels_in_an_npz_widen_the_latent(client, star):
    def embedded(**errors: float) -> list[float]:
        content = npz(star, star_id="ERR", **errors)
        return client.post("/embed", content=content, headers=NPZ).json()["results"][0]["latent_sd"]

    assert embedded(teff_err=np.nan, fe_h_err=np.nan) == embedded()
    assert max(np.divide(embedded(teff_err=100.0, fe_h_err=np.nan), embedded())) > 1.1
    client.delete("/stars/ERR")


def test_of_stars_with_one_id_in_a_body_the_first_is_stored(client, star):
    body = {"stars": [star | {"star_id": "ONE"}, star | {"star_id": "ONE", "teff": 4900.0}]}
    first, second = client.post("/embed", json=body).json()["results"]
    assert first["status"] == 201
    assert (second["status"], second["error"]["code"]) == (422, "duplicate_id")
    assert client.get("/stars/ONE").json()["teff"] == star["teff"]
    client.delete("/stars/ONE")
    refused(client.post("/embed", json=body["stars"]), '{"stars": [...]}')


def test_half_a_position_is_none(client, star):
    response = client.post("/embed", json=star | {"ra": 10.0}).json()
    assert response["warnings"] == ["ra = 10 is no position in degrees, and was left out"]
    refused(client.post("/embed", json=star | {"ra": 400.0, "dec": 0.0}), "ra")
    stored = client.get("/stars/TEST-1").json()
    assert (stored["ra"], stored["dec"]) == (None, None)


def test_a_position_far_from_the_designation_is_a_warning(client, star):
    named = star | {"star_id": "2M00004994+1621552", "ra": 0.2081, "dec": 16.3653}
    assert not client.post("/embed", json=named).json()["warnings"]
    (warning,) = client.post("/embed", json=named | {"ra": 180.0}).json()["warnings"]
    assert "degrees from the one in the id 2M00004994+1621552" in warning
    client.delete("/stars/2M00004994+1621552")


def test_labels_far_from_the_files_own_are_a_warning(client):
    def warnings(**labels: float) -> list[str]:
        body = client.post("/spectrum", params=labels, content=ASPCAP.read_bytes(), headers=FITS).json()
        return [text for text in body["warnings"] if "far from the file's own" in text]

    assert not warnings(teff=3900, logg=1.2, fe_h=0)
    assert warnings(teff=4500, logg=1.2, fe_h=0) == [
        "teff = 4500 is far from the file's own 3788.4: is it another star's?"
    ]


@pytest.mark.parametrize("query", ["teff_min=4.5", "teff_max=-9999", "logg_min=40", "fe_h_min=5"])
def test_filters_that_no_star_passes_are_refused(client, query):
    refused(client.get(f"/twins/SYN-202-000000A?{query}"), query.partition("_")[0])


def test_a_maximum_below_the_minimum_is_refused(client):
    response = client.get("/twins/SYN-202-000000A?teff_min=4500&teff_max=4400")
    refused(response, "teff_max")
    assert "4400 is below the minimum, 4500" in response.json()["error"]["message"]
    assert client.get("/twins/SYN-202-000000A?teff_min=4500&teff_max=4500").status_code == 200

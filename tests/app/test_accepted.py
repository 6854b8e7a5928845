"""What a request may hold, beyond what test_refusals.py refuses: rows of the table in docs/file-formats.md."""

import io

import numpy as np
import pytest

from tests.conftest import ASPCAP

FITS = {"Content-Type": "application/fits"}
NPZ = {"Content-Type": "application/x-npz"}


def npz(star: dict, **changes: object) -> bytes:
    out = io.BytesIO()
    arrays = {name: np.array([star[name]]) for name in ("star_id", "flux", "ivar", "teff", "logg", "fe_h")}
    np.savez(out, **(arrays | {name: np.array([value]) for name, value in changes.items()}))
    return out.getvalue()


def refused(answer, *words: str) -> None:
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    said = " ".join([error["message"], *error["detail"]])
    for word in words:
        assert word in said


@pytest.fixture(autouse=True)
def deleted(client):
    """The test star is not left in the service that all tests share."""
    yield
    client.delete("/stars/TEST-1")


def test_an_id_with_a_point_is_text_over_http(client, star):
    assert client.post("/embed", json=star | {"star_id": "12345.0"}).json()["star_id"] == "12345.0"
    client.delete("/stars/12345.0")


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
    answer = client.post("/embed", json=star | {"flux": flux, "ivar": [0, *star["ivar"][1:]]})
    assert answer.json()["masked_fraction"] == pytest.approx(1 / 7514)


def test_a_file_of_another_star_is_refused_over_http(client):
    labels = {"star_id": "2M00004994+1621552", "teff": 4050, "logg": 1.6, "fe_h": 0}
    answer = client.post("/embed", params=labels, content=ASPCAP.read_bytes(), headers=FITS)
    refused(answer, "the file is of 2M17334253-1654573, another star than 2M00004994+1621552")


def test_errors_of_labels_in_an_npz_widen_the_latent(client, star):
    def embedded(**errors: float) -> list[float]:
        content = npz(star, star_id="ERR", **errors)
        return client.post("/embed", content=content, headers=NPZ).json()["results"][0]["latent_sd"]

    assert embedded(teff_err=np.nan, fe_h_err=np.nan) == embedded()
    assert max(np.divide(embedded(teff_err=100.0, fe_h_err=np.nan), embedded())) > 1.1
    client.delete("/stars/ERR")

"""Errors of parameters that are not given: those typical of the model's own survey, which its card has."""

import dataclasses

import httpx
import numpy as np
import pytest

from model.bundle import REFERENCE, load_model, save_model
from tests.conftest import APSTAR, GIANT

TYPICAL = {"teff": 70.0, "logg": 0.12, "fe_h": 0.04}
GIVEN = {f"{name}_err": error for name, error in TYPICAL.items()}
WARNING = (
    "typical errors are used where none were given: teff_err = 70 K, logg_err = 0.12 dex (cgs), fe_h_err = 0.04"
)


@pytest.fixture
def typical(start_server, tmp_path):
    """A service whose model has typical errors."""
    model = load_model(REFERENCE)
    model.card = dataclasses.replace(model.card, typical_errors=TYPICAL)
    path = tmp_path / "typical.safetensors"
    save_model(model, path)
    assert load_model(path).card.identity != load_model(REFERENCE).card.identity, (
        "latents change, so the version does"
    )
    with httpx.Client(base_url=start_server(CHEMTWIN_MODEL=str(path)).url, timeout=60) as client:
        yield client


def embedded(client, star, **fields):
    return client.post("/embed", json=star | fields).raise_for_status().json()


def test_errors_that_are_not_given_are_the_typical_ones_and_0_is_exact(typical, star):
    assert typical.get("/model").json()["typical_errors"] == TYPICAL
    none, given = embedded(typical, star), embedded(typical, star, **GIVEN)
    assert WARNING in none["warnings"][0]
    assert given["warnings"] == []
    assert (none["latent"], none["latent_sd"]) == (given["latent"], given["latent_sd"])
    exact = embedded(typical, star, **dict.fromkeys(GIVEN, 0))
    assert exact["warnings"] == []
    assert np.mean(exact["latent_sd"]) < np.mean(given["latent_sd"])
    some = embedded(typical, star, teff_err=0, logg_err=None, fe_h_err=0.01)
    assert some["warnings"] == [
        "the model's typical errors are used where none were given: logg_err = 0.12 dex (cgs)"
    ]


def test_the_typical_error_of_fe_h_widens_the_limit_of_its_twins(typical, star):
    embedded(typical, star)
    assert typical.get("/twins/TEST-1").json()["fe_h_within"] == pytest.approx(np.hypot(0.1, np.sqrt(8) * 0.04))


def test_a_file_without_errors_of_its_labels_has_the_typical_ones(typical):
    headers, content = {"Content-Type": "application/fits"}, APSTAR.read_bytes()

    def warnings(**labels):
        response = typical.post("/embed", params=GIANT | labels, content=content, headers=headers)
        return response.raise_for_status().json()["warnings"]

    assert any(WARNING in text for text in warnings())
    assert not any("typical" in text for text in warnings(**dict.fromkeys(GIVEN, 0)))


def test_a_spectrum_without_errors_has_nothing_to_widen(typical, star):
    bare = {name: value for name, value in star.items() if name != "ivar"}
    response = embedded(typical, bare)
    assert (response["warnings"], response["latent_sd"]) == ([], None)


def test_a_model_without_typical_errors_takes_labels_as_exact(client, star):
    assert client.get("/model").json()["typical_errors"] == {}
    none, exact = embedded(client, star), embedded(client, star, **dict.fromkeys(GIVEN, 0))
    assert none["warnings"] == []
    assert (none["latent"], none["latent_sd"]) == (exact["latent"], exact["latent_sd"])

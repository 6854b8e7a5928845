"""How far a catalogue's stars are from what the model expects."""

from dataclasses import replace

import httpx
import numpy as np
import pytest

from app.inference.drift import DriftCheck, drift_of
from index.search.twin_index import TwinIndex
from index.stores.sqlite import SqliteStore
from index.stores.star import Star

STARS = 2000


@pytest.fixture
def index(model, tmp_path):
    """A search over an empty store."""
    store = SqliteStore(tmp_path / "stars.sqlite")
    yield TwinIndex(store, model.card.identity, model.card.latent_dim, tmp_path)
    store.close()


def add(index, model, *, outside=0.0, shift=0.0, first=0, count=STARS, teff=4500.0, fe_h=0.0):
    """Store stars as the model expects them, with a mean latent `shift` sigma off and some outside the domain."""
    unit = np.random.default_rng(first).normal(size=(count, model.card.latent_dim))
    unit[:, 3] += shift
    latents = (unit @ model.metric).astype(np.float32)
    index.upsert(
        [
            Star(f"S{first + row}", model.card.identity, latent, None, teff, 2.0, fe_h, in_domain=row >= outside * count)
            for row, latent in enumerate(latents)
        ]
    )  # fmt: skip


def test_no_stars_have_no_drift(index, model):
    found = drift_of(model, index)
    assert (found.stars_checked, found.outside_domain, found.latent_offset) == (0, None, None)
    assert (found.outside_range, found.unlike_spectra, found.large) == (0, 0, False)


def test_stars_as_the_model_expects_them_need_no_advice(index, model):
    add(index, model, outside=0.05)
    found = drift_of(model, index)
    assert (found.stars_checked, found.outside_domain) == (STARS, pytest.approx(0.05))
    assert found.latent_offset < 0.15, "the mean of 2000 unit Gaussians in 18 dimensions is 0.09 long"
    assert found.message.startswith("of 2,000 stars checked 5.0 % lie outside the model's domain")
    assert not found.large
    assert "adapt" not in found.message


def test_other_stars_come_with_the_advice_to_adapt_the_model(index, model):
    add(index, model, outside=0.2, shift=3.0)
    found = drift_of(model, index)
    assert found.outside_domain == pytest.approx(0.2)
    assert found.latent_offset == pytest.approx(3.0, abs=0.1)
    assert found.large
    assert (found.outside_range, found.unlike_spectra) == (0, 400)
    assert "chemtwin model adapt" in found.message


def test_stars_whose_parameters_are_outside_the_range_are_no_reason_to_adapt(index, model):
    add(index, model, outside=0.05)
    add(index, model, outside=1.0, first=STARS, count=500, teff=6000.0)
    found = drift_of(model, index)
    assert found.outside_domain == pytest.approx(0.24)
    assert (found.outside_range, found.unlike_spectra, found.large) == (500, 100, True)
    assert "500 by their parameters, 100 by spectra unlike the model's" in found.message
    assert "adapt" not in found.message
    assert "in_domain=true" in found.message
    add(index, model, outside=1.0, first=STARS + 500, count=200)
    assert "chemtwin model adapt" in drift_of(model, index).message


def test_metal_poor_stars_are_no_reason_to_adapt(index, model, monkeypatch):
    """The reference was tested on no siblings; an adapted model was, above [Fe/H] -0.28."""
    add(index, model, outside=0.05)
    add(index, model, outside=1.0, first=STARS, count=500, fe_h=-0.9)
    assert "chemtwin model adapt" in drift_of(model, index).message
    quality = {"siblings_left_out": {"fe_h": [-0.28, 0.46]}}
    monkeypatch.setattr(model, "card", replace(model.card, quality=quality))
    found = drift_of(model, index)
    assert (found.outside_range, found.unlike_spectra, found.large) == (0, 600, True)
    assert "chemtwin model adapt" not in found.message
    assert "leave them out (in_domain=true): the [Fe/H] of most is far from those" in found.message


def test_a_catalogue_is_checked_again_when_a_hundredth_of_it_has_changed(index, model):
    add(index, model)
    check = DriftCheck(model)
    first = check.drift(index)
    add(index, model, first=STARS, count=STARS // 200, outside=1.0)
    assert check.drift(index) is first
    add(index, model, first=2 * STARS, count=STARS // 50, outside=1.0)
    assert check.drift(index).outside_domain > 0.02


def test_the_model_card_says_it(client, giants):
    card = client.get("/model").json()
    assert card["drift"]["stars_checked"] == pytest.approx(card["stars"], rel=0.02)
    assert card["drift"]["outside_domain"] < 0.05
    assert "adapt" not in card["drift"]["message"]
    observed = httpx.get(f"{giants.url}/model").json()["drift"]
    assert observed["outside_domain"] > 0.1
    assert observed["latent_offset"] > 0
    assert observed["outside_range"] > observed["unlike_spectra"] > 0
    assert "adapt" not in observed["message"]

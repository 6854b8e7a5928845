"""Components of observed spectra outside a model's basis."""

from __future__ import annotations

import numpy as np
import pytest

from model.bundle import REFERENCE, load_model
from model.methods.gaussdis import GaussDis
from model.spectra.grid import Array
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum
from training.fitting.adapt import unadapted
from training.fitting.observed_basis import with_observed_components, without_observed_components

STARS, SNR = 250, 100.0


@pytest.fixture(scope="module")
def model() -> GaussDis:
    loaded = load_model(REFERENCE)
    assert isinstance(loaded, GaussDis)
    return loaded


def observed(model: GaussDis, components: Array, masked: float) -> list[Spectrum]:
    """Spectra at S/N 100 that vary by `components` (J, P) too, with a fraction of masked pixels."""
    random = np.random.default_rng(3)
    labels = random.uniform(*model.ranges.T, size=(STARS, 3))
    flux = model.decode(random.normal(size=(STARS, model.card.latent_dim)), labels)
    flux += random.normal(size=(STARS, len(components))) @ components
    snr = SNR * random.uniform(0.5, 1.5, size=(STARS, 1))
    flux += random.normal(size=flux.shape) / snr
    ivar = np.where(random.random(flux.shape) < masked, 0.0, snr**2)
    flux[ivar == 0] = 9.0
    return [
        Spectrum(one, own, Parameters(*values), has_errors=True)
        for one, own, values in zip(flux, ivar, labels, strict=True)
    ]


def outside(model: GaussDis) -> Array:
    """Two smooth components (2, P) with nothing of the model's basis in them."""
    x = np.linspace(0, 1, len(model.grid))
    waves = np.stack([np.sin(40 * x), np.sin(70 * x)])
    return waves - (waves @ model.basis.by_pixel) @ model.basis.components


@pytest.mark.parametrize("masked", [0.0, 0.15])
def test_they_are_found_through_noise_and_masked_pixels(model: GaussDis, masked: float) -> None:
    true = np.array([[0.008], [0.004]]) * outside(model)
    spectra = observed(model, true, masked)
    found = with_observed_components(model, spectra)
    size = len(model.basis.components)
    assert len(found.basis.components) == size + 2, "noise is no component"
    components = found.basis.components[size:]
    across = np.linalg.svd(components @ np.linalg.qr(true.T)[0], compute_uv=False)
    assert across.min() > 0.95
    variances = np.linalg.svd(true, compute_uv=False) ** 2
    assert found.basis.variances[size:] == pytest.approx(variances, rel=0.3)
    assert np.allclose(found.basis.components @ found.basis.components.T, np.eye(size + 2), atol=1e-6)


def test_a_star_means_what_it_meant(model: GaussDis) -> None:
    """The response is 0 in the new components: latents decode to the same spectra."""
    spectra = observed(model, 0.008 * outside(model), 0.0)
    found = with_observed_components(model, spectra)
    labels = np.stack([s.parameters.values(model.parameter_names) for s in spectra[:5]])
    latents = np.random.default_rng(1).normal(size=(5, model.card.latent_dim))
    assert np.allclose(found.decode(latents, labels), model.decode(latents, labels), atol=1e-6)


def test_they_can_be_taken_off(model: GaussDis) -> None:
    found = with_observed_components(model, observed(model, 0.008 * outside(model), 0.0))
    again = without_observed_components(found)
    expected, arrays = model.arrays(), again.arrays()
    assert set(arrays) == set(expected)
    assert all(np.array_equal(arrays[name], expected[name]) for name in set(arrays) - {"continuum"})
    assert unadapted(found).arrays().keys() == expected.keys()


def test_noise_alone_adds_none(model: GaussDis) -> None:
    found = with_observed_components(model, observed(model, np.zeros((1, len(model.grid))), 0.15))
    assert len(found.basis.components) == len(model.basis.components)

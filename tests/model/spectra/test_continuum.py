import numpy as np
import pytest

from model.errors import SpectrumError
from model.spectra.continuum import Normaliser


@pytest.fixture(scope="module")
def normaliser(model) -> Normaliser:
    assert model.normaliser is not None
    return model.normaliser


@pytest.fixture(scope="module")
def slope(model):
    """What a telescope does to a continuum: another level, slope and curvature in each detector, in counts."""
    shape = np.empty(len(model.grid))
    for i, part in enumerate(model.grid.detectors):
        x = np.linspace(-1, 1, part.stop - part.start)
        shape[part] = (900 + 300 * i) * (1 + 0.25 * x - 0.1 * x**2 + 0.05 * i * x**3)
    return shape


def test_a_slope_does_not_show(normaliser, spectra, slope):
    for flux in spectra[:20].astype(float):
        plain, _ = normaliser(flux, np.ones(len(flux)))
        sloped, ivar = normaliser(flux * slope, np.full(len(flux), 4.0))
        assert np.abs(sloped / plain - 1).max() < 8e-3
        assert np.median(np.abs(sloped / plain - 1)) < 1e-3
        assert np.allclose(ivar, 4 * (flux * slope / sloped) ** 2)


def test_observed_and_synthetic_spectra_take_the_same_way(normaliser, spectra):
    together = normaliser.batch(spectra[:8])
    for flux, expected in zip(spectra[:8].astype(float), together, strict=True):
        assert np.allclose(normaliser(flux, np.ones(len(flux)))[0], expected, atol=1e-5)


def test_the_continuum_does_not_drift_with_the_noise(normaliser, spectra):
    flux = spectra[3].astype(float)
    quiet, _ = normaliser(flux, np.ones(len(flux)))
    generator = np.random.default_rng(1)
    noisy = [
        normaliser(flux + generator.normal(0, 1 / 20, len(flux)), np.ones(len(flux)))[0] for _ in range(60)
    ]
    drift = np.mean(noisy, axis=0) - quiet
    assert abs(drift.mean()) < 5 * (1 / 20) / np.sqrt(60 * len(normaliser.pixels)) + 2e-4


def test_projections_of_small_noise_are_known_before_normalising(normaliser, spectra):
    flux = normaliser.batch(spectra[:1])[0].astype(np.float64)
    noise = 1e-4 * np.random.default_rng(1).normal(size=(20, len(flux)))
    components = np.random.default_rng(2).normal(size=(3, len(flux)))
    ivar = np.ones_like(flux)
    change = np.stack([normaliser(flux + own, ivar)[0] for own in noise]) - normaliser(flux, ivar)[0]
    seen = noise @ normaliser.seen_through(components, flux).T
    assert np.allclose(seen, change @ components.T, rtol=0, atol=1e-3 * seen.std())
    assert not np.allclose(seen, noise @ components.T, rtol=0, atol=1e-2 * seen.std())


def test_a_cosmic_ray_on_a_continuum_pixel_is_left_out(normaliser, spectra):
    flux = spectra[5].astype(float)
    clean, _ = normaliser(flux, np.ones(len(flux)))
    hit = flux.copy()
    hit[normaliser.pixels[::40]] = 20.0
    struck, _ = normaliser(hit, np.ones(len(flux)))
    untouched = hit < 2
    assert np.abs(struck - clean)[untouched].max() < 5e-3


def test_a_detector_without_continuum_is_masked_whole(normaliser, spectra):
    flux, ivar = spectra[0].astype(float), np.ones(spectra.shape[1])
    first = normaliser.grid.detectors[0]
    ivar[normaliser.pixels[normaliser.pixels < first.stop]] = 0
    _, after = normaliser(flux, ivar)
    assert np.all(after[first] == 0)
    assert np.all(after[normaliser.grid.detectors[1]] > 0)


@pytest.mark.parametrize(("fraction", "fitted"), [(0.3, True), (0.2, False)])
def test_a_quarter_of_its_continuum_pixels_is_what_a_detector_needs(normaliser, spectra, fraction, fitted):
    flux, ivar = spectra[0].astype(float), np.ones(spectra.shape[1])
    first = normaliser.grid.detectors[0]
    own = normaliser.pixels[normaliser.pixels < first.stop]
    ivar[np.random.default_rng(1).permutation(own)[round(fraction * len(own)) :]] = 0
    found, after = normaliser(flux, ivar)
    assert np.any(after[first] > 0) == fitted
    if fitted:
        good = ivar[first] > 0
        whole, _ = normaliser(flux, np.ones(len(flux)))
        assert np.abs(found[first] / whole[first] - 1)[good].max() < 0.01


def test_a_spectrum_without_light_is_refused(normaliser):
    with pytest.raises(SpectrumError) as caught:
        normaliser(np.zeros(len(normaliser.grid)), np.ones(len(normaliser.grid)))
    assert caught.value.code == "no_continuum"

import copy
import dataclasses

import numpy as np
import pytest

from model.methods.base import Card, Model
from model.methods.basis import design, exponents
from model.methods.polydis import PolyDis
from model.spectra.grid import Grid
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum

PIXELS, LATENTS = 400, 5
RANGES = {"teff": (4000.0, 5000.0), "logg": (1.5, 3.0), "fe_h": (-1.0, 0.5)}


@pytest.fixture(scope="module")
def toy() -> PolyDis:
    generator = np.random.default_rng(1)
    terms = len(exponents(3, 4))
    polynomial = generator.normal(0, 0.01, (terms, PIXELS))
    polynomial[0] += 1
    components = np.linalg.qr(generator.normal(size=(PIXELS, LATENTS)))[0].T
    card = Card("toy", "1", "polydis", RANGES, LATENTS, "Euclidean")
    grid = Grid(10 ** (4.2 + 6e-6 * np.arange(PIXELS)))
    return PolyDis(
        card,
        grid,
        None,
        polynomial=polynomial,
        components=components,
        variances=np.array([1.0, 0.5, 0.2, 0.1, 0.05]),
        discarded=np.array([1e-8]),
        twins=np.eye(LATENTS),
    )


@pytest.fixture(scope="module")
def stars(toy):
    generator = np.random.default_rng(2)
    latents = generator.normal(size=(30, LATENTS)) * np.sqrt(toy.basis.variances)
    known = generator.uniform(toy.ranges[:, 0], toy.ranges[:, 1], (30, 3))
    return latents, known, toy.decode(latents, known)


def test_a_fourth_order_polynomial_of_three_parameters_has_35_terms():
    assert len(exponents(3, 4)) == 35
    assert len(exponents(2, 4)) == 15


def test_the_design_is_scaled_to_the_ranges():
    ranges = np.array([[4000.0, 5000.0]])
    assert np.allclose(
        design(np.array([[4000.0], [4500.0], [5000.0]]), ranges, 2), [[1, -1, 1], [1, 0, 0], [1, 1, 1]]
    )


def test_embedding_undoes_decoding(toy, stars):
    latents, known, flux = stars
    assert np.allclose(toy.encode(flux, known), latents, atol=1e-6)


def test_missing_pixels_are_filled_in(toy, stars):
    latents, known, flux = stars
    good = np.random.default_rng(3).random(flux.shape) > 0.4
    spoiled = np.where(good, flux, 99.0)
    assert np.allclose(toy.encode(spoiled, known, np.where(good, 0.0, np.inf)), latents, atol=1e-3)


def test_the_papers_recast_moves_the_whole_residual(toy, stars):
    latents, known, flux = stars
    odd = flux + 0.01
    assert np.allclose(
        toy.transfer(odd, known, known[::-1]), toy.decode(latents, known[::-1]) + 0.01, atol=1e-6
    )


@pytest.mark.parametrize("masked", [0, 40, 150])
def test_the_covariance_is_that_of_the_error(toy, masked):
    """Stars drawn from the model with variance outside its components, noisy, given wrong parameters: their latents
    miss the truth as the covariance says."""
    generator = np.random.default_rng(4)
    errors = {"teff_err": 20.0, "logg_err": 0.05, "fe_h_err": 0.02}
    rough = copy.deepcopy(toy)
    rough.basis.discarded = 2e-4
    sigma, repeats = 0.02, 6000
    known = np.tile([4400.0, 2.1, -0.2], (repeats, 1))
    drawn = generator.normal(size=(repeats, LATENTS)) * np.sqrt(rough.basis.variances - rough.basis.discarded)
    flux = rough.decode(drawn, known) + generator.normal(0, np.sqrt(rough.basis.discarded), (repeats, PIXELS))
    truth = rough.encode(flux, known)
    given = known + generator.normal(size=(repeats, 3)) * list(errors.values())
    good = np.arange(PIXELS) >= masked
    noisy = flux + generator.normal(0, sigma, flux.shape)
    found = rough.encode(noisy, given, np.tile(np.where(good, sigma**2, np.inf), (repeats, 1)))
    spectrum = Spectrum(flux[0], np.where(good, sigma**-2, 0), Parameters(*known[0], **errors), has_errors=True)
    expected, measured = rough.covariance(spectrum), np.cov((found - truth).T)
    assert np.allclose(np.diag(measured), np.diag(expected), rtol=0.1)
    assert np.linalg.norm(measured - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("detector", [0, 1, 2])
def test_a_missing_detector_costs_little(model, spectra, survey, detector):
    """A noisy star without one detector stays far nearer its own latent than the catalogue's stars are to each other."""
    flux = model.normaliser.batch(spectra[:100]).astype(float)
    known = survey.parameters[:100]
    whole = model.encode(flux, known)
    variance = np.full(flux.shape, 1e-4)
    variance[:, model.grid.detectors[detector]] = np.inf
    noisy = flux + np.random.default_rng(1).normal(0, 0.01, flux.shape)
    error = np.linalg.norm(model.encode(noisy, known, variance) - whole, axis=1)
    apart = np.linalg.norm(whole[:50] - whole[50:], axis=1)
    assert np.median(error) < 0.5 * np.median(apart)


def test_the_recast_error_is_that_of_the_latent(toy):
    covariance = np.diag([0.1, 0.2, 0.0, 0.0, 0.0])
    draws = np.random.default_rng(5).multivariate_normal(np.zeros(5), covariance, 20_000)
    assert np.allclose(
        (draws @ toy.basis.components).std(axis=0),
        toy.decode_sd(np.zeros(LATENTS), toy.ranges.mean(axis=1), covariance),
        rtol=0.1,
    )


def prepared(model: Model, flux, parameters, ivar=1e4) -> Spectrum:
    clean = flux if model.normaliser is None else model.normaliser.batch(flux[None].astype(np.float32))[0]
    return Spectrum(clean.astype(float), np.full(len(clean), ivar), parameters, has_errors=True)


def test_embedding_tells_the_domain(model, spectra, survey):
    inside = Parameters(*survey.parameters[0])
    outside = dataclasses.replace(inside, teff=3600.0, logg=4.6)
    near, far = model.embed([prepared(model, spectra[0], inside), prepared(model, spectra[0], outside)])
    assert near.in_domain
    assert near.warnings == ()
    assert near.chi2 == pytest.approx(0, abs=0.2)
    assert not far.in_domain
    assert far.warnings[0].startswith("teff = 3600 is outside the model's training range")
    assert far.warnings[1].startswith("logg = 4.6 is outside")


def test_the_ends_of_table_1_are_inside(model):
    assert model.outside(Parameters(4000.0, 1.5, 0.5)) == model.outside(Parameters(5000.0, 3.0, -1.0)) == []
    assert len(model.outside(Parameters(3990.0, 3.01, 0.6))) == 3


def test_a_spectrum_that_is_no_giant_is_out_of_domain(model, spectra, survey):
    shuffled = np.random.default_rng(6).permutation(spectra[0])
    (odd,) = model.embed([prepared(model, shuffled, Parameters(*survey.parameters[0]))])
    assert not odd.in_domain
    assert "reconstruction is off" in odd.warnings[0]


def test_neighbours_in_a_batch_do_not_matter(model, spectra, survey):
    together = [prepared(model, spectra[i], Parameters(*survey.parameters[i])) for i in range(3)]
    together[1].ivar[:500] = 0
    alone = [model.embed([spectrum])[0].latent for spectrum in together]
    assert np.allclose([e.latent for e in model.embed(together)], alone, atol=1e-6)

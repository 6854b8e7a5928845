"""Parameters with errors are fitted along with latents: `toy` of test_gaussdis is a known generator."""

from pathlib import Path

import numpy as np
import pytest

from model.bundle import load_model
from model.methods.basis import design
from model.methods.measured_stars import Measured
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare
from tests.model.methods.test_gaussdis import LATENTS, drawn, noisy, toy
from training.fitting.gaussdis import with_offset

SNR = 100.0
ERRORS = np.array([25.0, 0.05, 0.03])


def observed(times: float):
    """A model, latents and parameters, those with `times` ERRORS, the errors, and what was measured."""
    model = toy(bend=0.0)
    latents, known, flux = drawn(model)
    errors = np.broadcast_to(times * ERRORS, known.shape)
    given = model.nearest(known + errors * np.random.default_rng(8).normal(size=known.shape))
    residual = noisy(flux, np.full(flux.shape, SNR**-2)) - model.basis.expected(given)
    return model, latents, known, given, errors, model._measured(residual, np.full(flux.shape, SNR**-2))


def chi_square(model, latents, fitted):
    gap = fitted.latents - latents
    information = fitted.information + np.eye(LATENTS)
    return np.einsum("nd,nde,ne->n", gap, information, gap).mean() / LATENTS


@pytest.mark.parametrize(("times", "least", "most"), [(0.5, 0.93, 1.07), (1, 0.93, 1.07), (2, 0.93, 1.25)])
def test_latents_are_as_far_from_the_truth_as_their_errors_say(times, least, most):
    model, latents, _, given, errors, measured = observed(times)
    found = model._fit_latents(*measured, given, errors)
    assert found.converged.all()
    assert least < chi_square(model, latents, found) < most


def test_slopes_where_the_parameters_are_known_to_be_give_latents_whose_errors_are_too_small(monkeypatch):
    model, latents, _, given, errors, measured = observed(2)
    monkeypatch.setattr("model.methods.latent_fit.FARTHEST", 0.0)
    assert chi_square(model, latents, model._fit_latents(*measured, given, errors)) > 1.4


def test_the_most_probable_parameters_are_nearer_the_truth_than_the_known_ones():
    model, _, known, given, errors, measured = observed(1)
    found = model._fit_latents(*measured, given, errors)
    rms = np.sqrt(np.mean(np.square((found.parameters - known) / errors), axis=0))
    assert np.all(rms < 0.9)  # 1 are those of the given ones
    assert np.all(rms > 0.4)


@pytest.mark.parametrize("start", [0.0, 1.0], ids=["the prior's mean", "anywhere"])
def test_fits_that_start_elsewhere_end_as_near(start):
    model, latents, _, given, errors, measured = observed(1)
    cold = model._fit_latents(*measured, given, errors)
    elsewhere = start * np.random.default_rng(11).normal(size=latents.shape)
    other = model._fit_latents(*measured, given, errors, elsewhere)
    apart = np.einsum("nd,nde,ne->n", gap := other.latents - cold.latents, cold.information, gap)
    assert np.quantile(apart, 0.95) < 0.05
    assert chi_square(model, latents, other) < 1.07


def test_an_offset_counts_as_if_it_were_in_the_response():
    model, _, _, given, errors, (coefficients, noise) = observed(1)
    offset = np.random.default_rng(12).normal(0, 0.02, (4, coefficients.shape[1]))
    stars = Measured(
        coefficients, np.broadcast_to(noise, (len(given), *noise.shape)), given, errors, given[:, 0]
    )
    found, other = (
        model.fit(stars, offset=offset),
        with_offset(model, np.zeros(len(model.grid)), offset).fit(stars),
    )
    assert found.latents == pytest.approx(other.latents, abs=1e-6)
    assert found.slopes == pytest.approx(other.slopes, abs=1e-6)
    expected = other.coefficients - design(other.parameters, model.ranges, 1) @ offset
    assert found.coefficients == pytest.approx(expected, abs=1e-6)


def test_parameters_without_errors_stay():
    model, _, _, given, errors, measured = observed(1)
    errors = errors * [1, 0, 1]
    errors[::2] = 0
    found = model._fit_latents(*measured, given, errors)
    assert np.array_equal(found.parameters[:, 1], given[:, 1])
    assert np.array_equal(found.parameters[::2], given[::2])
    exact = model._fit_latents(measured[0][::2], measured[1], given[::2])
    assert np.allclose(found.latents[::2], exact.latents, atol=1e-3)
    assert not np.array_equal(found.parameters[1::2, 0], given[1::2, 0])


def test_an_exact_log_g_stays_where_its_range_depends_on_teff():
    model = load_model(Path("model/branch.safetensors"))
    teff = np.linspace(3800.0, 5200.0, 60)
    least, greatest = model.logg_range(teff)
    known = model.nearest(np.stack([teff, greatest + 0.19 * (greatest - least), np.full(60, -0.3)], axis=1))
    generator = np.random.default_rng(13)
    noise = 1e-6 * np.eye(len(model.scatter))
    coefficients = model.coefficients(generator.normal(size=(60, model.card.latent_dim)), known)
    errors = np.broadcast_to([150.0, 0.0, 0.1], known.shape)
    found = model._fit_latents(
        coefficients + 0.05 * generator.normal(size=coefficients.shape), noise, known, errors
    )
    assert np.abs(found.parameters[:, 0] - known[:, 0]).max() > 50
    assert np.array_equal(found.parameters[:, 1], known[:, 1])


def test_the_chi_square_of_a_star_of_the_population_has_as_many_degrees_as_coefficients():
    model = toy(bend=0.0, population=0.6 * np.eye(LATENTS))
    generator = np.random.default_rng(14)
    known = generator.uniform(*model.ranges.T, (2000, 3))
    response = model.response(0.6 * generator.normal(size=(2000, LATENTS)), known)
    size = response.shape[1]
    scatter = np.diagonal(model.scatter) + SNR**-2
    coefficients = response + np.sqrt(scatter) * generator.normal(size=response.shape)
    noise = np.broadcast_to(SNR**-2 * np.eye(size), (2000, size, size))
    stars = Measured(coefficients, noise, known, np.zeros_like(known), known[:, 0])
    assert model._chi_squares(model.fit(stars)).mean() == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize("place", [0.0, 0.7, 1.1], ids=["middle", "inside", "beyond the range"])
def test_slopes_are_those_of_small_steps(place):
    model = toy()
    low, high = model.ranges.T
    at = (0.5 * (low + high) + place * 0.5 * (high - low))[None].repeat(2, axis=0)
    latents = np.random.default_rng(9).normal(size=(2, LATENTS))
    slopes, by_pixel = model.response.slope(latents, at), model.basis.slope(at[0])
    for number, step in enumerate(1e-5 * np.diag(high - low)):
        expected = model.response(latents, at + step) - model.response(latents, at - step)
        assert slopes[:, number] == pytest.approx(expected / (2 * step[number]), rel=1e-5, abs=1e-7)
        expected = model.basis.expected(at[:1] + step) - model.basis.expected(at[:1] - step)
        assert by_pixel[number] == pytest.approx(expected[0] / (2 * step[number]), rel=1e-5, abs=1e-7)


def test_a_spectrum_is_compared_with_the_model_at_the_most_probable_parameters(model, survey, spectra):
    flux = np.asarray(spectra[:8], dtype=np.float64)
    flux += np.random.default_rng(10).normal(size=flux.shape) / SNR
    chi2 = {}
    for errors in ({}, {"teff_err": 70.0}):
        stars = [
            Observation(own, Parameters(teff + 70.0, logg, fe_h, **errors), np.full(len(own), SNR**2))
            for own, (teff, logg, fe_h) in zip(flux, survey.parameters[:8].tolist(), strict=True)
        ]
        found = model.embed([prepare(star, model.grid, model.normaliser) for star in stars])
        chi2[bool(errors)] = np.median([one.chi2 for one in found])
    assert chi2[True] == pytest.approx(1.0, abs=0.03)
    assert chi2[False] > chi2[True] + 0.02

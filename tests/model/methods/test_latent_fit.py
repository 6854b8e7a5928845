"""Parameters with errors are fitted along with latents: `toy` of test_gaussdis is a known generator."""

import numpy as np
import pytest

from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare
from tests.model.methods.test_gaussdis import LATENTS, drawn, noisy, toy

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


def test_known_latents_spare_the_first_fit():
    model, _, _, given, errors, measured = observed(1)
    cold = model._fit_latents(*measured, given, errors)
    warm = model._fit_latents(*measured, given, errors, cold.latents)
    apart = np.einsum("nd,nde,ne->n", gap := warm.latents - cold.latents, cold.information, gap)
    assert np.quantile(apart, 0.9) < 0.1


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

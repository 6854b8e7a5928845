"""Single precision and compiled loops against the same in double precision and plain numpy."""

import numpy as np
import pytest

from model.methods.gaussdis import NOISELESS_SNR
from model.spectra.continuum import GROSS, OUTLIER, ROUNDS
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare

LABEL_ERRORS = {"teff_err": 70.0, "logg_err": 0.1, "fe_h_err": 0.05}


@pytest.fixture(scope="module")
def observed(model, survey, spectra):
    """Observations (24) with uneven ivar, a twentieth of their pixels masked, slopes and errors of the labels."""
    generator = np.random.default_rng(5)
    flux = np.asarray(spectra[:24], dtype=np.float64)
    ivar = generator.uniform(2e3, 2e4, flux.shape)
    flux = (flux + generator.normal(size=flux.shape) / np.sqrt(ivar)) * np.linspace(0.95, 1.05, flux.shape[1])
    ivar[generator.random(flux.shape) < 0.05] = 0
    return [
        Observation(
            own,
            Parameters(*survey.parameters[row].tolist(), **(LABEL_ERRORS if row % 2 else {})),
            ivar=ivar[row],
        )
        for row, own in enumerate(flux)
    ]


def information_in_double(components, ivar):
    return np.stack([(components * own) @ components.T for own in ivar])


@pytest.mark.parametrize("stars", [3, 24], ids=["star by star", "many at once"])
def test_information_in_single_precision_differs_by_a_millionth(model, stars):
    generator = np.random.default_rng(6)
    ivar = generator.uniform(10, 2e4, (stars, len(model.grid))) * (generator.random((stars, 1)) < 0.9)
    found, _ = model.basis.information(np.zeros_like(ivar), ivar)
    exact = information_in_double(model.basis.components, ivar)
    size = np.sqrt(np.einsum("nii,njj->nij", exact, exact))
    assert np.all(np.abs(found - exact) <= 3e-6 * size)


def normalised_by_numpy(normaliser, flux, ivar):
    """As the normaliser describes it: unweighted polynomials through the continuum pixels, outliers left out."""
    flux, ivar = flux.copy(), ivar.copy()
    for detector, basis, pixels in normaliser._designs:
        part, good = flux[detector], pixels[ivar[detector][pixels] > 0]
        continuum = np.full(len(part), np.median(part[good]))
        for limit in (GROSS, *(OUTLIER,) * (ROUNDS - 1)):
            good = good[np.abs(part[good] / continuum[good] - 1) < limit]
            fit, *_ = np.linalg.lstsq(basis[good], part[good] / continuum[good])
            continuum = continuum * (basis @ fit)
        flux[detector], ivar[detector] = part / continuum, ivar[detector] * continuum**2
    return flux, ivar


def fit_in_double(model, star):
    """The fit of an observation's latent, all in double precision."""
    good = star.ivar > 0
    flux, ivar = normalised_by_numpy(model.normaliser, np.where(good, star.flux, 0.0), star.ivar)
    known = star.parameters.values(model.parameter_names)[None]
    basis, expected = model.basis.components, model.basis.expected(known)[0]
    residual = np.where(good, flux - expected, 0.0)
    projected, masked = basis @ residual, basis[:, ~good]
    filled = projected
    for _ in range(2):
        filled = projected + masked @ (masked.T @ filled)
    left = np.where(good, residual - basis.T @ filled, 0.0)
    noise = np.divide(1.0, ivar, out=np.zeros_like(ivar), where=good)
    unexplained = max(0.0, (left @ left - noise.sum()) / (good.sum() - len(basis)))
    weight = np.where(good, 1 / np.maximum(noise + unexplained, NOISELESS_SNR**-2), 0.0)
    root = np.linalg.inv(np.linalg.cholesky((basis * weight) @ basis.T))
    covariance = root.T @ (np.eye(len(basis)) + model.continuum) @ root + model.scatter
    measured = (root.T @ root @ (basis @ (weight * residual)))[None]
    errors = star.parameters.errors(model.parameter_names)[None]
    if not errors.any():
        return model.response.fit(measured, known, np.linalg.inv(covariance))

    def coefficients(latents, parameters):
        return model.basis.expected(parameters) @ basis.T + model.response(latents, parameters)

    def slopes(latents, parameters):
        steps = 1e-3 * np.diag(errors[0])
        changes = [coefficients(latents, parameters + s) - coefficients(latents, parameters - s) for s in steps]
        return np.concatenate(changes) / 2e-3

    by_errors = slopes(np.zeros((1, model.card.latent_dim)), known)
    fit = model.response.fit(measured, known, np.linalg.inv(covariance + by_errors.T @ by_errors))
    by_errors = slopes(fit.latents, known)
    weight = np.linalg.inv(covariance + by_errors.T @ by_errors)
    moved = (measured - model.response(fit.latents, known)) @ weight @ by_errors.T
    found = known + errors * moved
    by_errors = slopes(fit.latents, found)
    there = measured + (model.basis.expected(known) - model.basis.expected(found)) @ basis.T + moved @ by_errors
    weight = np.linalg.inv(covariance + by_errors.T @ by_errors)
    return model.response.fit(there, found, weight, fit.latents)


def test_posterior_means_differ_by_less_than_a_thousandth_of_their_errors(model, observed):
    prepared = [prepare(star, model.grid, model.normaliser) for star in observed]
    for star, inferred in zip(observed, model.infer(prepared), strict=True):
        fit = fit_in_double(model, star)
        mean = model._posterior_means(fit.latents, fit.information)[0]
        sd = np.sqrt(np.diag(inferred.covariance))
        assert np.all(np.abs(inferred.latent - mean) < 1e-3 * sd)
        assert model._posterior_covariances(fit.information)[0] == pytest.approx(
            inferred.covariance, abs=1e-3 * sd.max() ** 2
        )


def test_the_compiled_continuum_is_that_of_least_squares(model, observed):
    for star in observed:
        flux, ivar = model.normaliser(np.where(star.ivar > 0, star.flux, 0.0), star.ivar)
        expected = normalised_by_numpy(model.normaliser, np.where(star.ivar > 0, star.flux, 0.0), star.ivar)
        assert flux == pytest.approx(expected[0], abs=1e-10)
        assert ivar == pytest.approx(expected[1], rel=1e-9)

"""The continuum that is fitted along with the coefficients, against least squares in double precision."""

import numpy as np
import pytest

from model.bundle import REFERENCE, load_model, save_model
from model.methods.continuum_fit import CONTINUUM_SD
from model.methods.gaussdis import GaussDis
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum

STARS, SNR = 6, 100.0


@pytest.fixture(scope="module")
def model():
    """The reference model, with the continuum fitted along."""
    shipped = load_model(REFERENCE)
    arrays = {name: values for name, values in shipped.arrays().items() if name != "continuum"}
    return GaussDis(shipped.card, shipped.grid, shipped.normaliser, **arrays)


@pytest.fixture(scope="module")
def drawn(model):
    """Coefficients (6, K), residuals (6, P) of that and of an error of the continuum, and uneven ivar."""
    generator = np.random.default_rng(1)
    coefficients = generator.normal(size=(STARS, len(model.scatter))) * np.sqrt(model.basis.variances)
    flux = model.basis.expected(model.ranges.mean(axis=1)[None])[0]
    slopes = np.zeros((STARS, len(flux)))
    for detector in model.grid.detectors:
        x = np.linspace(-1, 1, detector.stop - detector.start)
        slopes[:, detector] = 0.01 * (generator.normal(size=(STARS, 3)) @ np.stack([x**0, x, x**2]))
    ivar = SNR**2 * generator.uniform(0.1, 2, slopes.shape) * (generator.random(slopes.shape) < 0.9)
    return coefficients, coefficients @ model.basis.components + flux * slopes, ivar


def test_an_error_of_the_continuum_moves_no_coefficient(model, drawn):
    coefficients, residual, ivar = drawn
    for variance in (np.full_like(ivar, SNR**-2), 1 / np.where(ivar > 0, ivar, 1e-300)):
        measured, _ = model._measured(residual, variance)
        error = np.abs(measured - coefficients)
        assert error.max() < 1e-3 / SNR
        plain = residual @ model.basis.components.T
        assert np.abs(plain - coefficients).max() > 100 * error.max()


def test_coefficients_are_those_of_least_squares(model, drawn):
    _, residual, ivar = drawn
    ivar = ivar.copy()
    ivar[0, model.grid.detectors[1]] = 0.0
    residual = np.where(ivar > 0, residual + np.random.default_rng(2).normal(size=ivar.shape) / SNR, 0.0)
    variance = np.divide(1.0, ivar, out=np.full_like(ivar, np.inf), where=ivar > 0)
    measured, covariances = model._measured(residual, variance)
    flux = model.basis.expected(model.ranges.mean(axis=1)[None])[0]
    rows = [model.basis.components]
    for detector, polynomials in model.normaliser.templates(flux):
        rows.append(np.zeros((len(polynomials), len(flux))))
        rows[-1][:, detector] = polynomials
    design = np.concatenate(rows)
    size, count = len(model.scatter), len(design)
    prior = np.diag(np.where(np.arange(count) < size, 0.0, CONTINUUM_SD**-2))
    for star in range(STARS):
        covariance = np.linalg.inv((design * ivar[star]) @ design.T + prior)
        expected = covariance @ (design @ (ivar[star] * residual[star]))
        sd = np.sqrt(np.diag(covariance)[:size])
        assert np.all(np.abs(measured[star] - expected[:size]) < 1e-3 * sd)
        assert np.all(np.abs(covariances[star] - covariance[:size, :size]) < 1e-3 * np.outer(sd, sd))


def test_white_noise_has_the_covariance_that_is_expected(model):
    """Also that part of it which the normaliser turns into an error of the continuum."""
    flux = model.basis.expected(model.ranges.mean(axis=1)[None])
    noise = np.random.default_rng(3).normal(size=(4000, len(model.grid))) / SNR
    normalised = model.normaliser.batch((flux + noise).astype(np.float32)).astype(np.float64)
    measured, covariance = model._measured(normalised - flux, np.full_like(noise, SNR**-2))
    scatter = np.cov(measured.T)
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    assert np.linalg.eigvalsh(root @ scatter @ root.T) == pytest.approx(1, abs=0.35)
    assert np.trace(root @ scatter @ root.T) / len(scatter) == pytest.approx(1, abs=0.02)
    assert np.trace(model.continuum) < 0.3 * np.trace(load_model(REFERENCE).continuum)


def test_a_saved_model_fits_the_continuum_too(model, drawn, tmp_path):
    path = tmp_path / "again.safetensors"
    save_model(model, path)
    again, old = load_model(path), load_model(REFERENCE)
    coefficients, residual, ivar = drawn
    parameters = Parameters(*model.ranges.mean(axis=1))
    flux = model.basis.expected(model.ranges.mean(axis=1)[None])[0]

    def moved(one: GaussDis) -> list[float]:
        """How far an error of the continuum moves latents, in standard deviations."""
        plain, sloped = (
            one.embed(
                [Spectrum(row * (own > 0), own, parameters, True) for row, own in zip(rows, ivar, strict=True)]
            )
            for rows in (flux + coefficients @ one.basis.components, flux + residual)
        )
        gaps = [two.latent.astype(float) - first.latent for first, two in zip(plain, sloped, strict=True)]
        return [
            float(np.sqrt(gap @ np.linalg.solve(first.covariance.astype(float), gap)))
            for gap, first in zip(gaps, plain, strict=True)
        ]

    assert max(moved(again)) < 0.5
    assert moved(again) == pytest.approx(moved(model), abs=1e-3)
    assert min(moved(old)) > 5 * max(moved(again))

import numpy as np
import pytest

from model.methods.basis import design
from model.methods.polydis import PolyDis
from tests.training.small_surveys import thinned
from training.fitting.polydis import fit
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize


@pytest.fixture(scope="module")
def fitted(thin_survey) -> PolyDis:
    return fit(thin_survey, components=40, normalise=False)


def test_the_streamed_fit_is_the_plain_one(fitted, thin_survey):
    """Against numpy's least squares and singular values of the whole survey at once."""
    terms = design(thin_survey.parameters, fitted.ranges, 4)
    flux = thin_survey.flux(slice(None)).astype(np.float64)
    polynomial, *_ = np.linalg.lstsq(terms, flux, rcond=None)
    assert np.abs(terms @ (fitted.basis.polynomial - polynomial)).max() < 2e-4
    residual = flux - terms @ polynomial
    _, values, vectors = np.linalg.svd(residual, full_matrices=False)
    assert fitted.basis.variances == pytest.approx(values[:40] ** 2 / len(flux), rel=2e-3)
    overlap = np.linalg.svd(fitted.basis.components[:15] @ vectors[:15].T)[1]
    assert overlap.min() > 0.99
    assert fitted.basis.discarded == pytest.approx(
        np.sum(values[40:] ** 2) / len(flux) / (flux.shape[1] - 40), rel=0.02
    )
    assert fitted.basis.components @ fitted.basis.components.T == pytest.approx(np.eye(40), abs=1e-5)


def test_the_latent_knows_less_of_u_than_the_spectrum(fitted, emulator, tmp_path):
    """On a survey that the fit has not used, by a quadratic regression of each parameter."""
    synthesize(tmp_path / "whole.h5", emulator, 400, seed=303)
    fresh = Survey.open(thinned(tmp_path / "whole.h5", tmp_path / "fresh.h5"))
    flux = np.concatenate([block for _, block in fresh.blocks("read")]).astype(float)
    latents = fitted.encode(flux, fresh.parameters)
    spectral = (flux - flux.mean(axis=0)) @ fitted.basis.components.T
    for i in range(3):
        explained, hidden = (_explained(x[:, :8], fresh.parameters[:, i]) for x in (spectral, latents))
        assert explained > 0.5
        assert hidden < 0.25 * explained


def _explained(inputs, target):
    """Share of the variance of the second half of `target` (N,) that a quadratic fitted on the first explains."""
    squares = np.stack([inputs[:, i] * inputs[:, j] for i in range(8) for j in range(i + 1)], axis=1)
    terms = np.hstack([np.ones((len(inputs), 1)), inputs, squares])
    half = len(terms) // 2
    coefficients, *_ = np.linalg.lstsq(terms[:half], target[:half], rcond=None)
    rest = target[half:] - terms[half:] @ coefficients
    return 1 - rest.var() / target[half:].var()


def test_noise_and_fewer_parameters(thin_survey):
    quiet, noisy = (
        fit(thin_survey, components=5, parameters=("teff", "logg"), snr=snr) for snr in (np.inf, 20)
    )
    assert quiet.parameter_names == ("teff", "logg")
    assert noisy.basis.discarded == pytest.approx(1 / 400, rel=0.1)
    assert quiet.basis.discarded < 1e-4


def test_the_shipped_model_covers_table_1(model):
    assert model.card.training["stars"] >= 50_000
    low, high = model.card.parameters["teff"]
    assert (round(low), round(high)) == (4000, 5000)

from functools import cache

import numpy as np
import pytest

from model.bundle import REFERENCE, load_model
from model.methods.gaussdis import GaussDis
from training.evaluation.evaluate import twin_rows
from training.evaluation.posteriors import drift, likelihood_recovery, likelihoods, posteriors, twin_chi2
from training.surveys.survey import Survey


@pytest.fixture(scope="module")
def shipped() -> GaussDis:
    model = load_model(REFERENCE)
    assert isinstance(model, GaussDis)
    return model


@pytest.fixture(scope="module")
def measured(shipped, xfe_survey: Survey):
    """Means and covariances of the survey's stars at a noise level, inferred once."""
    return cache(lambda snr: posteriors(shipped, xfe_survey, snr))


@pytest.mark.parametrize("snr", [100.0, 50.0, 30.0])
def test_errors_of_the_shipped_model_have_the_right_size(shipped, measured, xfe_survey: Survey, snr):
    """Chi-square of true twins' differences, residue included, and p-values uniform enough to use."""
    means, covariances = measured(snr)
    chi2, p = twin_chi2(shipped, means, covariances, twin_rows(xfe_survey))
    assert chi2 == pytest.approx(1, abs=0.15)
    for fraction in (0.05, 0.5):
        assert np.mean(p < fraction) == pytest.approx(fraction, abs=0.08)


def test_noise_does_not_move_the_shipped_model_s_latents(shipped, xfe_survey: Survey):
    moved = drift(shipped, xfe_survey)
    assert np.abs(moved["drift"] / moved["drift spread"]).max() < 0.1


def test_likelihood_finds_more_twins_than_distance_in_noise(shipped, measured, xfe_survey: Survey):
    means, covariances = measured(30.0)
    twin = twin_rows(xfe_survey)
    by_likelihood = likelihood_recovery(likelihoods(shipped, means, covariances), twin)["fraction"]
    squares = np.square(means).sum(axis=1)
    apart = squares[:, None] + squares - 2 * means @ means.T
    np.fill_diagonal(apart, np.inf)
    by_distance = np.mean(apart.argmin(axis=1) == twin)
    assert by_likelihood > by_distance + 0.02

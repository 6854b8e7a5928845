"""Ranking by likelihood where latents and what twins differ by are Gaussian: against densities by scipy."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from training.evaluation.evaluate import twin_search
from training.evaluation.pair_likelihood import PairLikelihood

POPULATION = np.array([[4.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
WITHIN = np.array([[0.01, 0.0, 0.0], [0.0, 0.2, 0.1], [0.0, 0.1, 0.5]])
MEAN = np.array([5.0, -3.0, 1.0])


@pytest.fixture
def pairs():
    """Draws (N, 3) of pairs, and the row (N,) of each one's twin."""

    def drawn(count, seed):
        random = np.random.default_rng(seed)
        common = random.multivariate_normal(MEAN, POPULATION, count).repeat(2, axis=0)
        return common + random.multivariate_normal(np.zeros(3), WITHIN, 2 * count), np.arange(2 * count) ^ 1

    return drawn


def log_ratios(latents):
    """Of same against different, of all pairs (N, N)."""
    total = POPULATION + WITHIN
    same = multivariate_normal(np.tile(MEAN, 2), np.block([[total, POPULATION], [POPULATION, total]]))
    alone = multivariate_normal(MEAN, total).logpdf(latents)
    both = [np.broadcast_to(z, (len(latents), len(latents), 3)) for z in (latents[:, None], latents)]
    return same.logpdf(np.concatenate(both, axis=2)) - alone[:, None] - alone


def test_ratios_and_ranks_are_those_of_the_densities(pairs):
    latents, twin = pairs(60, 1)
    found = PairLikelihood.of(*pairs(200_000, 2)).search(latents, twin)
    ratios = log_ratios(latents)
    near = ratios[np.arange(120), twin]
    difference = -found.near - near
    assert np.allclose(difference, difference[0], atol=0.1)  # up to a constant
    np.fill_diagonal(ratios, -np.inf)
    counts = (ratios >= near[:, None]).sum(axis=1) - 1
    assert np.mean(counts == found.doppelgangers) > 0.95  # the sample's covariances are not exact
    assert np.abs(counts - found.doppelgangers).max() <= 2


def test_it_finds_more_than_distance(pairs):
    latents, twin = pairs(500, 3)
    by_likelihood = PairLikelihood.of(*pairs(500, 4)).search(latents, twin)
    by_distance = twin_search(latents, twin)
    assert by_likelihood.recovered > 1.5 * by_distance.recovered
    assert by_likelihood.auc > by_distance.auc

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from model.similarity.likelihood_ratio import Likelihood, likelihood_ratio, ranked_doppelgangers


def posteriors(stars, dimensions, strength, seed=1):
    """Estimates of pairs' latents and what a unit prior makes of them: estimates, their covariances, means and
    covariances of the posteriors."""
    generator = np.random.default_rng(seed)
    factors = generator.normal(size=(stars, dimensions, dimensions + 3))
    information = strength * factors @ factors.swapaxes(1, 2) * generator.uniform(0.3, 3, (stars, 1, 1))
    truth = np.repeat(generator.normal(size=(stars // 2, dimensions)), 2, axis=0)
    noise = np.linalg.inv(information)
    estimates = truth + np.einsum(
        "nij,nj->ni", np.linalg.cholesky(noise), generator.normal(size=(stars, dimensions))
    )
    covariances = np.linalg.inv(information + np.eye(dimensions))
    means = np.einsum("nij,njk,nk->ni", covariances, information, estimates)
    return estimates, noise, means, covariances


def test_the_ratio_is_that_of_the_joint_densities():
    """Of both estimates, under one latent for both and under one for each."""
    estimates, noise, means, covariances = posteriors(20, 4, 2.0)
    unit, zero = np.eye(4), np.zeros((4, 4))

    def density(i, shared):
        joint = np.block([[noise[i] + unit, shared], [shared, noise[7] + unit]])
        return multivariate_normal(np.zeros(8), joint).logpdf(np.concatenate([estimates[i], estimates[7]]))

    expected = [density(i, unit) - density(i, zero) for i in range(20)]
    assert likelihood_ratio(means, covariances, means[7], covariances[7]) == pytest.approx(np.array(expected))


def test_pairs_of_rows_have_the_ratio_of_a_query_with_a_row():
    *_, means, covariances = posteriors(1400, 5, 3.0)
    stars = Likelihood.of(means, covariances)
    ratio = likelihood_ratio(means, covariances, means[3], covariances[3])
    rows = np.array([1300, 4, 3, 700])
    assert stars.ratio(stars[3:4], rows) == pytest.approx(ratio[rows])
    assert stars.pairs(np.full(1400, 3), np.arange(1400)) == pytest.approx(ratio)


def test_spectra_that_say_nothing_have_no_evidence():
    """Nor have those whose covariance exceeds the prior's."""
    covariances = np.stack([np.eye(3), 1.5 * np.eye(3), np.diag([0.1, 0.2, 0.3])])
    means = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    for i in range(2):
        assert likelihood_ratio(means, covariances, means[i], covariances[i]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("strength", [0.3, 3.0, 1e9])
def test_doppelgangers_are_those_of_every_ratio(strength):
    *_, means, covariances = posteriors(1000, 6, strength)
    stars = Likelihood.of(means, covariances)
    twin, queries = np.arange(1000) ^ 1, np.arange(0, 1000, 9)
    expected = []
    for query in queries:
        ratio = stars.ratio(stars[query : query + 1])
        assert np.all(np.isfinite(ratio))
        others = np.delete(np.arange(1000), [query, twin[query]])
        expected.append(np.sum(ratio[others] >= ratio[twin[query]]))
    assert np.array_equal(ranked_doppelgangers(stars, twin, queries, nearest=1000), expected)
    few = ranked_doppelgangers(stars, twin, queries, nearest=100)
    assert np.mean((few == 0) == (np.array(expected) == 0)) == 1


def test_ties_count_against_the_twin():
    stars = Likelihood.of(np.zeros((40, 3)), np.broadcast_to(0.5 * np.eye(3), (40, 3, 3)))
    twin = np.arange(40) ^ 1
    assert np.all(ranked_doppelgangers(stars, twin, np.arange(40)) == 38)


def test_each_star_counts_with_its_own_covariance():
    """A vague star that lies as near as a precise one is the less likely twin."""
    means = np.array([[1.0, 1.0], [1.02, 1.0], [1.02, 1.0], [-1.0, 0.0]])
    covariances = np.array([0.01, 0.01, 0.5, 0.01])[:, None, None] * np.eye(2)
    ratio = likelihood_ratio(means, covariances, means[0], covariances[0])
    assert ratio[1] > ratio[2] > ratio[3]

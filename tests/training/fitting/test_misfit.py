"""The precision of stars under a misfit, against the covariance written out."""

import numpy as np
import pytest

from training.fitting.misfit import LinearStars, Misfit, Precision

D, K = 3, 4


@pytest.fixture(params=[[2, 0, 1, 2, 2, 0, 2, 2, 2], [1, 0, 2], [0, 0, 0]])
def stars(request: pytest.FixtureRequest) -> LinearStars:
    """A single star, a pair and a group of six; single stars alone; one group alone."""
    random, group = np.random.default_rng(5), np.array(request.param)
    root = random.normal(size=(len(group), K, K))
    return LinearStars(
        random.normal(size=(len(group), K)),
        random.normal(size=(len(group), D, K)),
        root @ root.swapaxes(1, 2) + np.eye(K),
        random.uniform(0.5, 2.0, len(group)),
        group,
    )


@pytest.fixture
def misfit() -> Misfit:
    own, shared = np.random.default_rng(6).normal(size=(2, K, K))
    return Misfit(np.zeros((1, K)), own @ own.T, shared @ shared.T)


def written_out(stars: LinearStars, misfit: Misfit) -> np.ndarray:
    """The covariance (N, K, N, K) of all coefficients."""
    same = stars.group[:, None] == stars.group
    shared = np.einsum("ndk,mdl->nkml", stars.slope, stars.slope) + misfit.shared[:, None, :]
    covariance = np.where(same[:, None, :, None], shared, 0.0)
    own = stars.covariances + stars.strength[:, None, None] ** 2 * misfit.own
    rows = np.arange(len(same))
    covariance[rows, :, rows] += own
    return covariance


@pytest.mark.parametrize("count", [1, 3, 8])
def test_it_is_the_inverse_of_the_covariance(stars: LinearStars, misfit: Misfit, count: int) -> None:
    size = len(stars.group) * K
    covariance = written_out(stars, misfit).reshape(size, size)
    whole = np.linalg.inv(covariance).reshape(len(stars.group), K, len(stars.group), K)
    precision = Precision.of(stars, misfit)
    np.testing.assert_allclose(
        precision.times(stars.residual), np.einsum("nkml,ml->nk", whole, stars.residual), atol=1e-10
    )
    terms = np.random.default_rng(7).normal(size=(len(stars.group), count))
    expected = np.einsum("nt,nkml,ms->tksl", terms, whole, terms).reshape(count * K, count * K)
    np.testing.assert_allclose(precision.between(terms), expected, atol=1e-10)
    blocks = np.einsum("n,nknl->kl", stars.strength, whole)
    np.testing.assert_allclose(precision.weighted_blocks(stars.strength), blocks, atol=1e-10)
    assert precision.volume == pytest.approx(-np.linalg.slogdet(covariance)[1])

"""The precision of stars under a misfit, against the covariance written out."""

from pathlib import Path

import numpy as np
import pytest

from model.bundle import load_model
from model.methods.measured_stars import Measured
from training.fitting.choose_misfit import ObservedStars, choose_prior
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
        random.normal(size=(len(group), 3)),
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


@pytest.mark.parametrize(("stars", "degree"), [(31, 0), (32, 1), (79, 1), (80, 2)])
def test_each_term_of_the_offset_needs_eight_stars(
    monkeypatch: pytest.MonkeyPatch, stars: int, degree: int
) -> None:
    """They may be of few groups: members that differ in u say how the offset depends on it."""
    monkeypatch.setattr("training.fitting.choose_misfit.fit_misfit", lambda model, stars, group, prior: prior)
    monkeypatch.setattr(
        "training.fitting.choose_misfit.log_density", lambda model, stars, group, prior: float(prior.degree)
    )
    model = load_model(Path("model/reference.safetensors"))
    measured = Measured(*np.zeros((5, stars, 1)))
    chosen = choose_prior(model, ObservedStars([None] * stars, measured, np.arange(stars) % 5))
    assert chosen.degree == degree

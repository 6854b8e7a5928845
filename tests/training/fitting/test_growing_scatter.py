"""Residuals of a known covariance that grows with the star."""

import numpy as np
import pytest

from training.fitting.growing_scatter import STARS_PER_FEATURE, fit_scatter
from training.fitting.metric import deviation_metric, difference_metric

GROWTH = np.array([0.8, -0.5, 0.0])


def drawn(stars: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (N, 12), features (N, 3) and the covariance (12, 12) at features of 0."""
    random = np.random.default_rng(4)
    axes = np.linalg.qr(random.normal(size=(12, 12)))[0]
    covariance = (axes * np.geomspace(1e-2, 1e-6, 12)) @ axes.T
    features = random.normal(size=(stars, 3))
    residual = random.multivariate_normal(np.zeros(12), covariance, size=stars)
    return residual * np.exp(0.5 * features @ GROWTH)[:, None], features, covariance


def test_covariance_and_growth_are_found():
    residual, features, covariance = drawn(4000)
    found, growth = fit_scatter(residual, features)
    assert growth == pytest.approx(GROWTH, abs=0.03)
    ratio = np.linalg.eigvalsh(
        np.linalg.solve(np.linalg.cholesky(covariance), found) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    )
    assert ratio == pytest.approx(1, abs=0.15)


def test_the_scatter_of_a_few_stars_does_not_grow():
    residual, features, _ = drawn(STARS_PER_FEATURE * 3 - 1)
    found, growth = fit_scatter(residual, features)
    assert not growth.any()
    assert found == pytest.approx(residual.T @ residual / len(residual))


def test_differences_of_twins_have_one_unit_per_latent():
    random = np.random.default_rng(5)
    roots = random.normal(size=(50, 4, 4)) * np.geomspace(0.1, 0.5, 50)[:, None, None]
    covariances = np.linalg.inv(np.eye(4) + np.linalg.inv(roots @ roots.swapaxes(1, 2)))
    metric = deviation_metric(covariances)
    assert metric == pytest.approx(metric.T)
    pairs = 2 * (covariances - covariances @ covariances)
    assert np.trace(metric @ pairs.mean(axis=0) @ metric) == pytest.approx(4)


def test_differences_of_twins_have_unit_covariance():
    covariances = np.repeat(np.diag([0.1, 0.2, 0.4])[None], 5, axis=0)
    metric = difference_metric(covariances)
    assert metric.T @ (2 * covariances - 2 * covariances @ covariances) @ metric == pytest.approx(
        np.broadcast_to(np.eye(3), (5, 3, 3)), abs=1e-12
    )

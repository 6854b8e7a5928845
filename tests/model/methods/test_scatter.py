"""The covariance of coefficients about a response, by star."""

import numpy as np
import pytest

from model.methods.scatter import LARGEST, Scatter, growth_features

RANGES = np.array([[4000.0, 5000.0], [1.0, 3.0]])
FIRST, SECOND = np.diag([1.0, 2.0]), np.array([[3.0, 1.0], [1.0, 3.0]])
LATENTS = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
PARAMETERS = np.array([[4500.0, 2.0], [5000.0, 3.0]])


def test_without_growth_all_stars_have_the_same():
    scatter = Scatter(RANGES, [(FIRST, np.zeros(0)), (SECOND, np.zeros(2))])
    assert not scatter.grows
    assert scatter(LATENTS, PARAMETERS) == pytest.approx(FIRST + SECOND)


def test_each_part_grows_by_its_own_features():
    growth = np.random.default_rng(1).normal(size=growth_features(RANGES, LATENTS, PARAMETERS).shape[1])
    short = np.array([0.5, -0.2])
    scatter = Scatter(RANGES, [(FIRST, growth), (SECOND, short)])
    assert scatter.grows
    features = growth_features(RANGES, LATENTS, PARAMETERS)
    expected = [
        np.exp(row @ growth) * FIRST + np.exp(unit @ short) * SECOND
        for row, unit in zip(features, [[0, 0], [1, 1]], strict=True)
    ]
    assert scatter(LATENTS, PARAMETERS) == pytest.approx(np.array(expected))


def test_far_stars_have_a_limited_factor():
    scatter = Scatter(RANGES, [(FIRST, np.array([0.0] * 5 + [0.0] * 3 + [9.0] * 3))])
    assert scatter(LATENTS[1:] * 100, PARAMETERS[1:])[0] == pytest.approx(np.exp(LARGEST) * FIRST)
    beyond = np.array([[9000.0, 9.0]])
    level = Scatter(RANGES, [(FIRST, np.array([1.0, 1.0]))])
    assert level(LATENTS[:1], beyond) == pytest.approx(level(LATENTS[:1], np.array([[5000.0, 3.0]])))

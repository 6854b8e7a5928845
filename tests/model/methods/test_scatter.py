"""The covariance of coefficients about a response, by star."""

import numpy as np
import pytest

from model.methods.basis import Basis
from model.methods.scatter import LARGEST, USUAL_DEPTH, Scatter, growth_features

RANGES = np.array([[4000.0, 5000.0], [1.0, 3.0]])
BASIS = Basis(
    RANGES,
    polynomial=np.array([[1 - 0.5 * USUAL_DEPTH], [-0.5 * USUAL_DEPTH], [0.0]]),
    components=np.ones((1, 1)),
    variances=np.ones(1),
    discarded=np.zeros(1),
)
"""One pixel, half of a usual line deep at the middle of the range and wholly at one end."""

FIRST, SECOND = np.diag([1.0, 2.0]), np.array([[3.0, 1.0], [1.0, 3.0]])
LATENTS = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
PARAMETERS = np.array([[4500.0, 2.0], [5000.0, 3.0]])


def test_without_growth_and_misfit_all_stars_have_the_same():
    scatter = Scatter(BASIS, FIRST, np.zeros(0), 0 * SECOND, np.zeros(0))
    assert not scatter.differs
    assert scatter(LATENTS, PARAMETERS) == pytest.approx(FIRST)


def test_the_misfit_is_proportional_to_the_strength_of_lines():
    scatter = Scatter(BASIS, FIRST, np.zeros(0), SECOND, np.zeros(0))
    assert scatter.differs
    assert not scatter.grows
    assert scatter(LATENTS, PARAMETERS) == pytest.approx(np.array([FIRST + 0.25 * SECOND, FIRST + SECOND]))
    beyond = scatter(LATENTS[:1], np.array([[9000.0, 9.0]]))
    assert beyond == pytest.approx(scatter(LATENTS[1:], PARAMETERS[1:])), "polynomials diverge out there"


def test_the_misfit_grows_with_parameters():
    found = Scatter(BASIS, FIRST, np.zeros(0), SECOND, np.array([0.5, -0.25]))(LATENTS, PARAMETERS)
    assert found == pytest.approx(np.array([FIRST + 0.25 * SECOND, FIRST + np.exp(0.25) * SECOND]))


def test_the_scatter_grows_with_latents_and_parameters():
    features = growth_features(RANGES, LATENTS, PARAMETERS)
    growth = np.random.default_rng(1).normal(size=features.shape[1]) / 4
    scatter = Scatter(BASIS, FIRST, growth, SECOND, np.zeros(0))
    assert scatter.grows
    expected = [np.exp(row @ growth) * FIRST + s * SECOND for row, s in zip(features, (0.25, 1.0), strict=True)]
    assert scatter(LATENTS, PARAMETERS) == pytest.approx(np.array(expected))
    assert features[1] == pytest.approx([1, 1, 1, 1, 1, 1, -2, 0.5, 0, 3, -0.75])


def test_far_stars_have_a_limited_factor():
    squares = Scatter(BASIS, FIRST, np.array([0.0] * 8 + [9.0] * 3), 0 * FIRST, np.zeros(0))
    assert squares(LATENTS[1:] * 100, PARAMETERS[1:])[0] == pytest.approx(np.exp(LARGEST) * FIRST)
    level = Scatter(BASIS, FIRST, np.array([1.0, 1.0] + [0.0] * 9), 0 * FIRST, np.zeros(0))
    assert level(LATENTS[:1], np.array([[9000.0, 9.0]])) == pytest.approx(level(LATENTS[:1], PARAMETERS[1:]))

"""The compiled fit against linear algebra, and against the condition that ends it."""

import numpy as np
import pytest

from model.gauss_newton import gauss_newton
from model.response import Response

STARS, LATENTS, COEFFICIENTS = 7, 4, 12


@pytest.fixture
def problem():
    generator = np.random.default_rng(3)
    mean = generator.normal(size=(STARS, COEFFICIENTS))
    linear = generator.normal(size=(STARS, LATENTS, COEFFICIENTS))
    square = 0.05 * generator.normal(size=(STARS, LATENTS * (LATENTS + 1) // 2, COEFFICIENTS))
    return mean, linear, square, mean + generator.normal(size=mean.shape)


def test_a_linear_response_has_the_answer_of_linear_algebra(problem):
    mean, linear, square, seen = problem
    weight = np.linspace(1, 30, COEFFICIENTS)
    begin = np.zeros((STARS, LATENTS))
    forms = {
        "diagonal": np.tile(weight, (STARS, 1, 1)),
        "one for all": np.diag(weight)[None],
        "own": np.tile(np.diag(weight), (STARS, 1, 1)),
    }
    for name, precision in forms.items():
        latents, information = gauss_newton(mean, linear, 0 * square, seen, precision, begin, 1e-9)
        for star in range(STARS):
            own = (linear[star] * weight) @ linear[star].T
            pull = (linear[star] * weight) @ (seen[star] - mean[star])
            np.testing.assert_allclose(information[star], own, rtol=1e-12, err_msg=name)
            expected = np.linalg.solve(own + np.eye(LATENTS), pull)
            np.testing.assert_allclose(latents[star], expected, rtol=1e-9, err_msg=name)


def test_a_fit_ends_where_the_posterior_is_flat(problem):
    mean, linear, square, seen = problem
    root = np.random.default_rng(4).normal(size=(STARS, COEFFICIENTS, COEFFICIENTS))
    precision = root @ root.transpose(0, 2, 1) + np.eye(COEFFICIENTS)
    start = np.full((STARS, LATENTS), 0.3)
    latents, information = gauss_newton(mean, linear, square, seen, precision, start, 1e-10)
    first, second = np.triu_indices(LATENTS)
    for star in range(STARS):
        bend = np.zeros((LATENTS, LATENTS, COEFFICIENTS))
        bend[first, second] = square[star]
        bend = (bend + bend.transpose(1, 0, 2)) / 2
        latent = latents[star]
        slope = linear[star] + 2 * np.tensordot(latent, bend, 1)
        left = seen[star] - mean[star] - latent @ (linear[star] + slope) / 2
        np.testing.assert_allclose(slope @ precision[star] @ left, latent, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(information[star], slope @ precision[star] @ slope.T, rtol=1e-5, atol=1e-6)
    assert np.all(start == 0.3)


def test_arrays_of_different_lengths_are_refused(problem):
    """Compiled code would read past the end of the shorter."""
    mean, linear, square, seen = problem
    response = Response(np.array([[0.0, 1.0]]), mean[:1], linear[:1], square[:1])
    precision, parameters = np.eye(COEFFICIENTS), np.full((STARS, 1), 0.5)
    assert response.fit(seen, parameters, precision)[0].shape == (STARS, LATENTS)
    start, own = np.zeros((STARS, LATENTS)), np.tile(precision, (STARS, 1, 1))
    whole = (seen, parameters, own, start)
    for place in range(len(whole)):
        with pytest.raises(ValueError, match="lengths"):
            response.fit(*whole[:place], whole[place][:-1], *whole[place + 1 :])

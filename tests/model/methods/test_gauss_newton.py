"""The compiled fit against linear algebra, and against the condition that ends it."""

import numpy as np
import pytest

from model.methods.gauss_newton import STEPS, gauss_newton
from model.methods.response import Response, terms

STARS, LATENTS, COEFFICIENTS, LEADING = 7, 4, 12, 2
TRIPLES = [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)]


@pytest.fixture
def problem():
    generator = np.random.default_rng(3)
    mean = generator.normal(size=(STARS, COEFFICIENTS))
    linear = generator.normal(size=(STARS, LATENTS, COEFFICIENTS))
    count = LATENTS * (LATENTS + 1) // 2 + len(TRIPLES)
    products = 0.05 * generator.normal(size=(STARS, count, COEFFICIENTS))
    return mean, linear, products, mean + generator.normal(size=mean.shape)


def test_a_linear_response_has_the_solution_of_linear_algebra(problem):
    mean, linear, products, observed = problem
    weight = np.linspace(1, 30, COEFFICIENTS)
    begin = np.zeros((STARS, LATENTS))
    forms = {
        "diagonal": np.tile(weight, (STARS, 1, 1)),
        "one for all": np.diag(weight)[None],
        "own": np.tile(np.diag(weight), (STARS, 1, 1)),
    }
    for name, precision in forms.items():
        latents, information, _ = gauss_newton(
            mean, linear, 0 * products, LEADING, observed, precision, begin, 1e-9
        )
        for star in range(STARS):
            own = (linear[star] * weight) @ linear[star].T
            pull = (linear[star] * weight) @ (observed[star] - mean[star])
            np.testing.assert_allclose(information[star], own, rtol=1e-12, err_msg=name)
            expected = np.linalg.solve(own + np.eye(LATENTS), pull)
            np.testing.assert_allclose(latents[star], expected, rtol=1e-9, err_msg=name)


def test_a_fit_ends_where_the_posterior_is_flat(problem):
    mean, linear, products, observed = problem
    root = np.random.default_rng(4).normal(size=(STARS, COEFFICIENTS, COEFFICIENTS))
    precision = root @ root.transpose(0, 2, 1) + np.eye(COEFFICIENTS)
    start = np.full((STARS, LATENTS), 0.3)
    latents, information, steps = gauss_newton(
        mean, linear, products, LEADING, observed, precision, start, 1e-10
    )
    assert np.all(steps <= STEPS)
    pairs = list(zip(*np.triu_indices(LATENTS), strict=True))

    def response(star: int, latent: np.ndarray) -> np.ndarray:
        values = np.array([np.prod(latent[list(factors)]) for factors in pairs + TRIPLES])
        return mean[star] + latent @ linear[star] + values @ products[star]

    step = 1e-6 * np.eye(LATENTS)
    for star, latent in enumerate(latents):
        slope = np.stack([(response(star, latent + s) - response(star, latent - s)) / 2e-6 for s in step])
        residual = observed[star] - response(star, latent)
        np.testing.assert_allclose(slope @ precision[star] @ residual, latent, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(information[star], slope @ precision[star] @ slope.T, rtol=1e-5, atol=1e-6)
    assert np.all(start == 0.3)


def test_a_strongly_curved_response_is_fitted_too(problem):
    """Far from the data Gauss-Newton alone goes to and fro: the objective decreases, and the end is flat."""
    mean, linear, products, observed = problem
    bent, far = 20 * products, mean + 5 * (observed - mean)
    precision = 100 * np.eye(COEFFICIENTS)
    response = Response(np.array([[0.0, 1.0]]), mean[:1], linear[:1], bent[:1])
    parameters = np.full((STARS, 1), 0.5)
    fit = response.fit(far, parameters, precision, tolerance=1e-6)
    assert fit.converged.all(), fit.steps
    residual = far - response(fit.latents, parameters)
    pull = np.einsum("ndk,nk->nd", response.by_latents(fit.latents, parameters), 100 * residual)
    np.testing.assert_allclose(pull, fit.latents, atol=1e-3)


def test_a_fit_that_does_not_converge_is_reported(problem):
    """One star's observed coefficients are not finite: no step can decrease its objective."""
    mean, linear, products, observed = problem
    spoilt = observed.copy()
    spoilt[2] = np.nan
    response = Response(np.array([[0.0, 1.0]]), mean[:1], linear[:1], products[:1])
    fit = response.fit(spoilt, np.full((STARS, 1), 0.5), np.eye(COEFFICIENTS))
    assert np.array_equal(np.flatnonzero(~fit.converged), [2])


def test_a_response_gives_back_the_latents_it_was_computed_from(problem):
    mean, linear, products, _ = problem
    response = Response(np.array([[0.0, 1.0]]), mean[:4], linear[:3], products[:2])
    assert (response.degrees, response.leading) == ((3, 2, 1), LEADING)
    generator = np.random.default_rng(5)
    latents, parameters = 0.5 * generator.normal(size=(STARS, LATENTS)), generator.uniform(size=(STARS, 1))
    observed = response(latents, parameters)
    found, information, _ = response.fit(observed, parameters, 1e8 * np.eye(COEFFICIENTS), tolerance=1e-9)
    np.testing.assert_allclose(found, latents, atol=1e-6)
    slope = response.by_latents(latents, parameters)
    np.testing.assert_allclose(information, 1e8 * slope @ slope.transpose(0, 2, 1), rtol=1e-4)
    features = terms(latents, parameters, response.ranges, response.degrees, LEADING)
    tensors = (response.mean, response.linear, response.products)
    stacked = np.concatenate([tensor.reshape(-1, COEFFICIENTS) for tensor in tensors])
    np.testing.assert_allclose(features @ stacked, observed, rtol=1e-12)


def test_beyond_the_range_latents_do_what_they_do_at_its_edge(problem):
    mean, linear, products, _ = problem
    response = Response(np.array([[0.0, 1.0]]), mean[:4], linear[:3], products[:2])
    latents = np.random.default_rng(6).normal(size=(2, LATENTS))
    edge, beyond = np.array([[0.0], [1.0]]), np.array([[-0.2], [1.2]])
    np.testing.assert_array_equal(response.by_latents(latents, beyond), response.by_latents(latents, edge))
    at_mean = [response(0 * latents, u) for u in (edge, beyond)]
    assert abs(at_mean[1] - at_mean[0]).max() > 0.1, "the mean goes on"


def test_arrays_of_different_lengths_are_refused(problem):
    """Compiled code would read past the end of the shorter."""
    mean, linear, products, observed = problem
    response = Response(np.array([[0.0, 1.0]]), mean[:1], linear[:1], products[:1])
    precision, parameters = np.eye(COEFFICIENTS), np.full((STARS, 1), 0.5)
    assert response.fit(observed, parameters, precision)[0].shape == (STARS, LATENTS)
    start, own = np.zeros((STARS, LATENTS)), np.tile(precision, (STARS, 1, 1))
    whole = (observed, parameters, own, start)
    for argument in range(len(whole)):
        with pytest.raises(ValueError, match="lengths"):
            response.fit(*whole[:argument], whole[argument][:-1], *whole[argument + 1 :])

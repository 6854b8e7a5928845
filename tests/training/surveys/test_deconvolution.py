import numpy as np
import pytest

from training.surveys.deconvolution import Mixture, deconvolve

TRUTH = Mixture(
    np.array([0.3, 0.7]),
    np.array([[-0.5, 0.25, 0.0], [0.1, 0.0, 0.1]]),
    np.array(
        [
            [[0.03, -0.004, 0.0], [-0.004, 0.004, 0.001], [0.0, 0.001, 0.006]],
            [[0.02, -0.002, 0.004], [-0.002, 0.001, 0.0], [0.004, 0.0, 0.005]],
        ]
    ),
)


@pytest.fixture(scope="module")
def measured():
    """Truth and its measurements, whose errors differ between stars and are as large as the spread."""
    generator = np.random.default_rng(1)
    truth = TRUTH.draw(generator, 20_000)
    errors = np.array([0.04, 0.05, 0.08]) * generator.uniform(0.5, 1.5, size=(20_000, 1))
    return truth, truth + errors * generator.standard_normal(truth.shape), errors


def log_density(mixture: Mixture, x: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Log density (N,) of measurements `x` (N, D) with independent `errors` (N, D)."""
    terms = []
    for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
        total = covariance + errors[:, :, None] ** 2 * np.eye(x.shape[1])
        gap = x - mean
        chi2 = np.einsum("ni,ni->n", gap, np.linalg.solve(total, gap[:, :, None])[:, :, 0])
        terms.append(np.log(weight) - 0.5 * (chi2 + np.linalg.slogdet(2 * np.pi * total)[1]))
    return np.logaddexp.reduce(terms)


def test_errors_are_taken_out_of_the_covariance(measured):
    truth, x, errors = measured
    found = deconvolve(x, errors, 2, np.full(3, 0.01))
    assert np.allclose(found.covariance(), np.cov(truth, rowvar=False), atol=6e-4)
    assert np.abs(np.cov(x, rowvar=False) - TRUTH.covariance()).max() > 5e-3
    order = np.argsort(found.weights)
    assert found.weights[order] == pytest.approx(TRUTH.weights, abs=0.03)
    assert np.allclose(found.means[order], TRUTH.means, atol=0.03)
    assert log_density(found, x, errors).mean() == pytest.approx(log_density(TRUTH, x, errors).mean(), abs=0.01)


def test_a_spread_that_errors_explain_ends_near_the_floor():
    generator = np.random.default_rng(2)
    x = generator.standard_normal((4000, 2)) * [0.3, 0.05]
    found = deconvolve(x, np.full_like(x, 0.1), 1, np.full(2, 0.01))
    assert 0.01 <= np.sqrt(found.covariances[0, 1, 1]) < 0.02


def test_draws_have_the_mixture_s_moments():
    drawn = TRUTH.draw(np.random.default_rng(3), 50_000)
    assert np.allclose(drawn.mean(axis=0), TRUTH.weights @ TRUTH.means, atol=5e-3)
    assert np.allclose(np.cov(drawn, rowvar=False), TRUTH.covariance(), atol=2e-3)


def test_draws_at_a_given_last_coordinate_have_the_joint_moments():
    generator = np.random.default_rng(4)
    last = TRUTH.draw(generator, 50_000)[:, -1]
    drawn = np.column_stack([TRUTH.draw_given_last(generator, last), last])
    assert np.allclose(drawn.mean(axis=0), TRUTH.weights @ TRUTH.means, atol=5e-3)
    assert np.allclose(np.cov(drawn, rowvar=False), TRUTH.covariance(), atol=2e-3)


def test_the_covariance_at_known_coordinates():
    conditional = TRUTH.covariance_given([0])
    assert np.allclose(conditional[0], 0, atol=1e-12)
    drawn = Mixture(np.ones(1), TRUTH.means[:1], TRUTH.covariances[:1])
    assert drawn.covariance_given([0])[1, 1] == pytest.approx(0.004 - 0.004**2 / 0.03)

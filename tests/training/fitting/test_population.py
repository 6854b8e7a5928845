import numpy as np
import pytest

from training.fitting.population import fit_population

LATENTS = 4


@pytest.mark.parametrize("members", [1, 3])
def test_the_covariance_of_true_latents_is_found_from_noisy_ones(members: int) -> None:
    random = np.random.default_rng(1)
    turned = np.linalg.qr(random.normal(size=(LATENTS, LATENTS)))[0]
    truth = turned @ np.diag([4.0, 1.0, 0.5, 0.2]) @ turned.T
    group = np.repeat(np.arange(5000), members)
    latents = random.multivariate_normal(np.zeros(LATENTS), truth, size=5000)[group]
    slopes = random.normal(size=(len(group), 2 * LATENTS, LATENTS)) * np.sqrt([2.0, 1.0, 1.0, 1.0])
    information = slopes.swapaxes(1, 2) @ slopes
    observed = np.einsum("nkd,nd->nk", slopes, latents) + random.normal(size=slopes.shape[:2])
    covariances = np.linalg.inv(information + np.eye(LATENTS))
    means = np.einsum("nde,nke,nk->nd", covariances, slopes, observed)
    root = fit_population(means, covariances, group)
    # the prior, which counts as 20 groups, makes the narrowest a little wider
    assert relative_variances(root, truth) == pytest.approx(np.ones(LATENTS), abs=0.25)
    of_means = relative_variances(np.linalg.cholesky(np.cov(means.T)), truth)
    assert of_means.min() < 0.7, "the posterior means alone would do: the test is blind"


def relative_variances(root: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Variances (D,) of a covariance, given by its root, along its axes in the frame where `truth` is 1."""
    return np.linalg.svd(np.linalg.solve(np.linalg.cholesky(truth), root), compute_uv=False) ** 2


def test_a_few_groups_say_nothing() -> None:
    covariances = np.broadcast_to(0.1 * np.eye(LATENTS), (60, LATENTS, LATENTS))
    few = fit_population(np.zeros((60, LATENTS)), covariances, np.arange(60) % 15)
    assert np.array_equal(few, np.eye(LATENTS))
    assert np.diag(fit_population(np.zeros((60, LATENTS)), covariances, np.arange(60))) == pytest.approx(
        0.5, rel=0.2
    )

import numpy as np
import pytest
import torch

from training.metric import FLOORS, best_floor, fit_metric, noise_covariance, twins_found, whitening
from training.network import train


def test_whitening_makes_the_noise_white():
    mixing = np.random.default_rng(1).normal(size=(5, 5))
    noise = mixing @ mixing.T
    metric = whitening(noise, 2.0, 0.0)
    assert np.allclose(metric.T @ noise @ metric, np.eye(5))
    assert np.array_equal(whitening(noise, 2.0, np.inf), np.eye(5))


def test_whitening_helps_where_noise_is_uneven():
    generator = np.random.default_rng(2)
    pairs = np.arange(2000) ^ 1
    spread = np.array([0.001, 0.001, 0.001, 1.0, 1.0])
    truth = np.repeat(generator.normal(size=(1000, 5)), 2, axis=0)
    noisy = truth + generator.normal(size=truth.shape) * spread
    found = twins_found([truth, noisy], pairs, np.diag(2 * spread**2))
    assert found[0.02][1] > found[np.inf][1] + 0.3
    assert best_floor(found) < np.inf


@pytest.fixture(scope="module")
def network(tiny, survey, tmp_path_factory):
    config = tiny("faderdis", "steps=200", 'metric="euclidean"')
    return train(
        survey, None, config, tmp_path_factory.mktemp("run"), name="t", device=torch.device("cpu")
    ).model


def test_the_metric_that_finds_most_twins_is_kept(network, survey, xfe_survey):
    before, noise = network.metric.copy(), noise_covariance(network, survey)
    latents = network.encode(survey.flux(slice(0, 5)).astype(float), survey.parameters[:5])
    found = fit_metric(network, survey, xfe_survey, (np.inf, 50.0))
    assert set(found) == {f"{floor:g}" for floor in FLOORS}
    after = network.encode(survey.flux(slice(0, 5)).astype(float), survey.parameters[:5])
    assert np.allclose(after, latents @ np.linalg.solve(before, network.metric))
    if max(found, key=found.__getitem__) != "inf":
        assert "whitened" in network.card.metric
        moved = network.metric.T @ noise @ network.metric
        assert np.all(np.linalg.eigvalsh(moved) <= 1 + 1e-9)

import numpy as np
import pytest
import torch

from training.evaluation.whitening import (
    FLOORS,
    best_floor,
    fit_whitening,
    noise_covariance,
    twins_found,
    whitening,
)
from training.networks.network import train


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
def network(tiny, thin_survey, tmp_path_factory):
    config = tiny("faderdis", "steps=200", 'metric="euclidean"')
    return train(
        thin_survey, None, config, tmp_path_factory.mktemp("run"), name="t", device=torch.device("cpu")
    ).model


def test_the_metric_that_finds_most_twins_is_used(network, thin_survey, thin_xfe_survey):
    noise = noise_covariance(network, thin_survey)
    flux, u = thin_survey.flux(slice(0, 5)).astype(float), thin_survey.parameters[:5]
    latents = network.encode(flux, u)
    found = fit_whitening(network, thin_survey, thin_xfe_survey, (np.inf, 50.0))
    assert set(found) == {f"{floor:g}" for floor in FLOORS}
    assert np.allclose(network.encode(flux, u), latents @ network.metric)
    best = max(found, key=found.__getitem__)
    assert (best in network.card.metric) == (best != "inf")
    if best != "inf":
        assert np.all(np.linalg.eigvalsh(network.metric.T @ noise @ network.metric) <= 1 + 1e-9)

import numpy as np
import pytest

from training.evaluation import probes
from training.fitting.polydis import fit


@pytest.fixture(scope="module")
def cloud():
    return np.random.default_rng(1).normal(size=(3000, 4))


def test_the_linear_map_is_least_squares(cloud):
    targets = cloud @ np.arange(8.0).reshape(4, 2) + [1.0, -2.0]
    assert np.allclose(probes.linear_map(cloud, targets)(cloud[:5]), targets[:5])


@pytest.mark.slow
def test_the_network_learns_what_a_line_cannot(cloud):
    targets = np.abs(cloud[:, :1])
    linear, network = probes.linear_map(cloud, targets), probes.network_map(cloud, targets)
    assert probes.explained(linear(cloud), targets)[0] < 0.1
    assert probes.explained(network(cloud), targets)[0] > 0.95


@pytest.mark.slow
def test_dependence_sees_u_in_the_latents_and_does_not_invent_it(cloud):
    u = np.random.default_rng(2).uniform(size=(3000, 2))
    hidden = probes.dependence(cloud, u)
    leaky = probes.dependence(np.hstack([cloud, u[:, :1] ** 2]), u)
    for regressor in ("linear", "network"):
        assert np.all(hidden[regressor] < 0.02)
        assert leaky[regressor][0] > 0.9
        assert leaky[regressor][1] < 0.02


def test_groups_are_found_when_they_are_there():
    generator = np.random.default_rng(3)
    group = np.repeat(np.arange(40), 5)
    tight = generator.normal(size=(40, 6))[group] + 1e-3 * generator.normal(size=(200, 6))
    assert probes.nearest_group(tight, group) == 1
    assert probes.kmeans_groups(tight, group)["homogeneity"] > 0.85
    noise = generator.normal(size=(200, 6))
    assert probes.nearest_group(noise, group) < 0.06
    assert abs(probes.kmeans_groups(noise, group)["adjusted_rand"]) < 0.05


def test_distances_in_data_space_are_those_of_the_decoded_spectra(thin_survey):
    model = fit(thin_survey, components=20, normalise=False)
    latents = np.random.default_rng(4).normal(size=(6, 20))
    middle = np.tile(model.ranges.mean(axis=1), (6, 1))
    flux = model.decode(latents, middle)
    coordinates = probes.data_space(model, latents)
    assert np.allclose(
        np.linalg.norm(coordinates[:3] - coordinates[3:], axis=1), np.linalg.norm(flux[:3] - flux[3:], axis=1)
    )


def test_the_abundances_are_those_that_vary(survey):
    names, values = probes.abundances(survey)
    assert names[:3] == ["Fe", "N", "O"]
    assert "C" not in names
    assert values.shape == (1200, 18)
    assert np.array_equal(values[:, 0], survey.parameters[:, 2])

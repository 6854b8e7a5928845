import json

import numpy as np
import pytest

from model.bundle import save_model
from tests.training.small_surveys import thinned
from training.emulator.emulator import Emulator
from training.evaluation import rates
from training.evaluation.rates import FE_H_WITHIN, measure_rates, random_pairs
from training.evaluation.robustness import measure_robustness
from training.fitting.polydis import fit
from training.surveys.chemistry import Chemistry
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize


@pytest.fixture(scope="module")
def groups(tmp_path_factory, emulator: Emulator) -> Survey:
    """Forty groups of five with the chemistry of real giants."""
    folder = tmp_path_factory.mktemp("groups")
    synthesize(folder / "whole.h5", emulator, 40, seed=505, members=5, chemistry=Chemistry.load())
    return Survey.open(thinned(folder / "whole.h5", folder / "groups.h5"))


def test_the_rate_of_values_that_say_nothing_is_a_half_and_of_perfect_ones_nil(groups):
    generator = np.random.default_rng(1)
    assert groups.group is not None
    near, far = rates.siblings(groups.group), random_pairs(groups.group)
    assert np.all(groups.group[near[:, 0]] == groups.group[near[:, 1]])
    assert np.all(groups.group[far[:, 0]] != groups.group[far[:, 1]])
    nothing = rates.rates(generator.normal(size=(len(groups), 4)), near, far)
    assert nothing["fraction"] == pytest.approx(0.5, abs=0.05)
    perfect = groups.group[:, None].astype(float) + generator.normal(0, 1e-3, (len(groups), 1))
    assert rates.rates(perfect, near, far)["fraction"] == 0


def test_unlike_metallicity_counts_as_unlike(groups):
    near, far = rates.siblings(groups.group), random_pairs(groups.group)
    same = np.zeros((len(groups), 1))
    fe_h = groups.parameters[:, 2]
    within = np.abs(fe_h[far[:, 0]] - fe_h[far[:, 1]]) <= FE_H_WITHIN
    assert rates.rates(same, near, far)["fraction"] == 1
    assert rates.rates(same, near, far, fe_h)["fraction"] == pytest.approx(within.mean())


def test_a_table_of_rates(groups, thin_xfe_survey, tmp_path):
    save_model(fit(thin_xfe_survey, components=20, normalise=False), tmp_path / "polydis.safetensors")
    text = measure_rates([tmp_path / "polydis.safetensors"], groups, tmp_path)
    assert "polydis" in text
    found = json.loads((tmp_path / "rates.json").read_text())["rates"]
    published = found["a search on abundances"][rates.ABUNDANCES]
    assert 0 < published["100"]["fraction"] < 0.3
    assert published["100"]["fraction"] < published["50"]["fraction"], "larger errors must make more look alike"
    latents = found["polydis"]
    assert latents[rates.WITHIN]["100"]["fraction"] <= latents[rates.DISTANCE]["100"]["fraction"]


def test_two_models_of_one_name_are_refused(groups, tmp_path):
    paths = [tmp_path / folder / "model.safetensors" for folder in "ab"]
    with pytest.raises(ValueError, match="two model files have the same name"):
        measure_rates(paths, groups, tmp_path)
    with pytest.raises(ValueError, match="two model files have the same name"):
        measure_robustness(paths, groups, tmp_path, 10)

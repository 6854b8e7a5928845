"""What conditioning on a nuisance parameter is for."""

import h5py
import numpy as np
import pytest

from tests.training.small_surveys import thinned
from training.evaluation import probes
from training.evaluation.evaluate import twin_recovery
from training.fitting.polydis import fit
from training.spectral_basis import parameter_values
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

FOUR = ("teff", "logg", "fe_h", "vbroad")


@pytest.fixture(scope="module")
def surveys(tmp_path_factory, emulator):
    folder = tmp_path_factory.mktemp("nuisance")
    surveys = []
    for seed in (21, 22):
        synthesize(folder / "whole.h5", emulator, 500, seed, own_fe_h=True, broadening=(0, 12))
        surveys.append(Survey.open(thinned(folder / "whole.h5", folder / f"{seed}.h5")))
    return surveys


def test_a_model_conditioned_on_the_broadening_hides_it_and_finds_more_twins(surveys):
    """On a survey that the fit has not used, against a model that is not conditioned on it."""
    train, fresh = surveys
    conditioned, unconditioned = (
        fit(train, components=30, normalise=False, parameters=p) for p in (FOUR, FOUR[:3])
    )
    flux = np.concatenate([block for _, block in fresh.blocks("read")]).astype(float)
    hidden, shown = (
        probes.dependence(
            model.encode(flux, parameter_values(fresh, model.parameter_names)),
            parameter_values(fresh, ("vbroad",)),
        )
        for model in (conditioned, unconditioned)
    )
    assert shown["linear"][0] > 0.9
    assert hidden["linear"][0] < 0.1
    assert hidden["network"][0] < shown["network"][0] - 0.2
    assert twin_recovery(conditioned, fresh).recovered > 3 * twin_recovery(unconditioned, fresh).recovered


def test_a_label_of_two_values_is_removed_too(thin_survey, tmp_path):
    """Every other star pair was seen by an instrument with a tilt of its own."""
    path = tmp_path / "two.h5"
    path.write_bytes(thin_survey.path.read_bytes())
    second = np.arange(len(thin_survey)) // 2 % 2
    tilt = np.linspace(-0.02, 0.02, len(thin_survey.wavelength), dtype=np.float32)
    with h5py.File(path, "a") as file:
        file["flux"][:] = file["flux"][:] + second[:, None] * tilt
        file["second"] = second
    opened = Survey.open(path)
    conditioned, unconditioned = (
        fit(opened, components=20, normalise=False, parameters=p) for p in ((*FOUR[:3], "second"), FOUR[:3])
    )
    assert np.abs(conditioned.basis.polynomial).max() < 3
    flux = np.concatenate([block for _, block in opened.blocks("read")]).astype(float)
    hidden, shown = (
        probes.dependence(
            model.encode(flux, parameter_values(opened, model.parameter_names)), second[:, None].astype(float)
        )
        for model in (conditioned, unconditioned)
    )
    assert shown["linear"][0] > 0.9
    assert max(hidden["linear"][0], hidden["network"][0]) < 0.1

import numpy as np
import pytest

from model.bundle import REFERENCE, load_model, save_model
from model.methods.abundance_readout import AbundanceReadout
from training.emulator.emulator import Emulator
from training.fitting.abundance_readout import add_readout, error_table, fit_readout
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize


@pytest.fixture(scope="module")
def others(tmp_path_factory, emulator: Emulator) -> Survey:
    """500 other pairs without noise."""
    path = tmp_path_factory.mktemp("others") / "others.h5"
    synthesize(path, emulator, 500, seed=303)
    return Survey.open(path)


def test_values_and_errors_follow_the_latent():
    slope = np.array([[0.1, 0.0], [0.0, 0.2], [0.05, 0.0]])
    readout = AbundanceReadout(("N", "O"), slope, np.array([0.3, 0.0]), np.array([0.01, 0.02]), {})
    latents = np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    values, bare = readout(latents)
    assert np.allclose(values, [[0.35, 0.4], [0.3, 0.0]])
    assert np.allclose(bare, [[0.01, 0.02]] * 2)
    covariance = np.array([[1.0, 0.0, 0.5], [0.0, 4.0, 0.0], [0.5, 0.0, 1.0]])
    _, errors = readout(latents[:1], covariance[None])
    assert np.allclose(errors**2, [[1e-4 + 0.01 + 0.0025 + 2 * 0.5 * 0.005, 4e-4 + 0.16]])


def test_the_shipped_readout_is_right_within_its_errors(model, others):
    """The fraction of its errors is what the documentation says, on stars that nothing was fitted to."""
    readout = model.readout
    lines = [line.split(" | ") for line in error_table(model, readout, others).splitlines()[2:]]
    table = {
        line[0].strip("| []").removesuffix("/Fe"): [float(x.strip(" |")) for x in line[1:]] for line in lines
    }
    assert set(table) == set(readout.names)
    for name, (spread, rms, chi2, *noisy) in table.items():
        assert rms < spread / 2, name
        assert 0.3 < chi2 < 2.5, name  # of a thousand stars, a few far off decide it where there is no noise
        assert all(0.7 < value < 1.2 for value in noisy[1::2]), (name, noisy)
    assert table["Mg"][3] < 0.015, "[Mg/Fe] at S/N 100"


def test_a_readout_does_not_make_another_model(tmp_path, model, survey, others):
    path = tmp_path / "model.safetensors"
    report = add_readout(REFERENCE, survey.path, others.path, path)
    written = load_model(path)
    assert written.card.identity == model.card.identity
    assert written.readout.names == model.readout.names
    assert written.readout.provenance["seed"] == 101
    assert report.splitlines()[2].startswith("| [N/Fe] |")
    fitted = fit_readout(model, survey)
    latents = np.random.default_rng(1).standard_normal((4, model.card.latent_dim))
    assert np.allclose(written.readout(latents)[0], fitted(latents)[0], atol=1e-5)
    assert not np.allclose(written.readout(latents)[0], model.readout(latents)[0], atol=1e-5)


def test_a_model_without_one_stays_without(tmp_path):
    bare = load_model(REFERENCE)
    bare.readout = None
    save_model(bare, tmp_path / "bare.safetensors")
    assert load_model(tmp_path / "bare.safetensors").readout is None


def test_it_is_not_judged_on_its_own_stars(tmp_path, survey):
    with pytest.raises(ValueError, match="is the survey that the readout is fitted to"):
        add_readout(REFERENCE, survey.path, survey.path, tmp_path / "out.safetensors")

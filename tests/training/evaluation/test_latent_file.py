import json

import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from training.evaluation.evaluate import twin_rows, twin_search
from training.evaluation.latent_file import latents_report, measure_latents
from training.evaluation.posteriors import likelihood_recovery, likelihoods, posteriors
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

U3 = ("teff", "logg", "fe_h")


@pytest.fixture(scope="module")
def entry(model, survey, tmp_path_factory):
    """The shipped model's own latents as an entry, its stars in another order, and what they are."""
    found = {f"{snr:g}": posteriors(model, survey, snr) for snr in (np.inf, 50.0)}
    order = np.random.default_rng(1).permutation(len(survey))
    arrays = {f"latent_{level}": means[order] for level, (means, _) in found.items()}
    arrays["covariance_50"] = found["50"][1][order]
    unit = np.linalg.inv(model.metric)
    path = tmp_path_factory.mktemp("entry") / "mine.npz"
    prior = np.linalg.inv(unit @ unit.T)
    np.savez(path, star_id=np.array(survey.star_id)[order], prior=prior, **arrays)
    return path, found


def test_latents_in_a_file_are_measured_as_the_models_own(entry, model, survey):
    path, found = entry
    twin = twin_rows(survey)
    measured = measure_latents(path, survey, U3, {})
    for level, (means, _) in found.items():
        search = twin_search(means, twin, float(level))
        assert measured["twins"][level]["recovered"] == search.recovered
        assert measured["twins"][level]["auc"] == search.auc
        assert measured["twins"][level]["fewer_than"]["10"] == search.within_ten
    own = likelihood_recovery(likelihoods(model, *found["50"]), twin)
    assert measured["twins"]["50"]["likelihood"]["fraction"] == pytest.approx(own["fraction"], abs=2 / 600)
    assert set(measured["dependence"]) == {"linear", "network"}
    assert set(measured["dependence"]["linear"]) == set(U3)


def test_the_command_compares_with_the_limit_and_writes_the_figures(entry, survey, tmp_path):
    path, _ = entry
    known = {"inf": {"recovered": {"fraction": 1.0}}, "50": {"recovered": {"fraction": 0.8}}}
    limits = {"paper's pairs/101": {"stars": len(survey), "removed": {", ".join(U3): {"twins": known}}}}
    (tmp_path / "limit.json").write_text(json.dumps(limits))
    options = ["--survey", survey.path, "--limit", tmp_path / "limit.json", "--out", tmp_path / "mine.json"]
    done = CliRunner().invoke(cli, ["lab", "evaluate-latents", str(path), *map(str, options)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "mine.json").read_text())
    assert found["limit"] == {"inf": 1.0, "50": 0.8}
    first = found["twins"]["50"]["recovered"]
    assert f"{first:.3f} ({first / 0.8:.2f})" in done.output


def test_groups_give_group_finding_and_rates(emulator, tmp_path):
    synthesize(tmp_path / "groups.h5", emulator, 20, seed=5, members=5)
    groups = Survey.open(tmp_path / "groups.h5")
    chemistry = groups.abundances()[1]
    np.savez(tmp_path / "mine.npz", star_id=np.array(groups.star_id), latent_100=chemistry)
    found = measure_latents(tmp_path / "mine.npz", groups, U3, {})
    assert found["groups"]["100"]["members"] == 1
    assert found["rates"]["100"]["distance"]["fraction"] == 0
    assert "rate by distance, %" in latents_report(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"star_id": None}, "lacks SYN-101-000000A"),
        ({"latent_inf": None}, "has no latents"),
        ({"latent_inf": np.zeros((3, 2))}, "latent_inf must be finite numbers of shape"),
        ({"latent_inf": np.full((1200, 2), np.nan)}, "latent_inf must be finite numbers"),
        ({"latent_low": np.zeros((1200, 2))}, "latent_low names no S/N"),
        ({"covariance_inf": np.zeros((1200, 2))}, "covariance_inf must be"),
        ({"latents": np.zeros(3)}, "unknown array latents"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_what(survey, tmp_path, changes, message):
    arrays = {"star_id": np.array(survey.star_id), "latent_inf": np.zeros((len(survey), 2))} | changes
    np.savez(tmp_path / "mine.npz", **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(ValueError, match=message):
        measure_latents(tmp_path / "mine.npz", survey, U3, {})

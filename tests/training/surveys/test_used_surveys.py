"""No model is measured on a survey that it was made with, whatever that survey is called."""

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from model.bundle import load_model, save_model
from model.errors import InputError
from tests.training.small_surveys import contents, write
from training.config import PRESETS, read_config
from training.fitting.polydis import fit
from training.surveys.survey import Survey
from training.surveys.used_surveys import SAMPLED, check_apart, check_unused, record
from training.train import train_model

STARS = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("used")


@pytest.fixture(scope="module")
def trained(folder):
    """A model of 100 stars without a seed, and the datasets of its survey."""
    known = contents(STARS, abundances=True)
    survey = Survey.open(write(folder / "train.h5", known))
    assert survey.seed is None
    return fit(survey, name="mine", components=3, degree=1, normalise=False), known


def opened(folder, datasets, **attributes) -> Survey:
    return Survey.open(write(folder / "test.h5", datasets, **attributes))


def rows(known, chosen):
    return {name: values if name == "wavelength" else values[chosen] for name, values in known.items()}


def renamed(known):
    return known | {
        "star_id": contents(STARS, seed=9)["star_id"],
        "twin_of": contents(STARS, seed=9)["twin_of"],
    }


def joined(known):
    other = contents(STARS, seed=2, abundances=True)
    return {
        name: values if name == "wavelength" else np.concatenate([other[name], values])
        for name, values in known.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda known: known,
        lambda known: rows(known, np.arange(STARS)[::-1]),
        lambda known: rows(known, slice(0, STARS // 2)),
        renamed,
        joined,
        lambda known: known | {"teff": known["teff"] + 10},
        lambda known: known | {"flux": known["flux"].astype(np.float64), "snr": np.full(STARS, 1e9)},
    ],
    ids=["itself", "reversed", "half of it", "renamed", "extended", "other labels", "other numbers"],
)
def test_a_training_survey_without_a_seed_is_recognised(trained, folder, change):
    model, known = trained
    with pytest.raises(
        ValueError, match=r"test\.h5 holds spectra that mine was trained or selected on, among them"
    ):
        check_unused(model, "mine", opened(folder, change(known)))


def test_other_stars_are_taken_and_seeds_still_count(trained, folder):
    model, _ = trained
    other = contents(STARS, seed=2)
    check_unused(model, "mine", opened(folder, other))
    check_unused(model, "mine", opened(folder, other, seed=5))
    card = dataclasses.replace(model.card, training={"survey_seed": 5})
    older = type(model)(card, model.grid, None, twins=np.zeros((0, 0)), **model.basis.arrays())
    with pytest.raises(ValueError, match="has the seed of a survey that older was trained or selected on, 5"):
        check_unused(older, "older", opened(folder, other, seed=5))


def test_what_a_models_start_was_made_with_counts_too(trained, folder, model):
    """The shipped model's FaderDis was trained on seed 1 and selected on seed 3, itself refined on seed 8."""
    for seed in (8, 1, 3):
        with pytest.raises(ValueError, match=f"trained or selected on, {seed}:"):
            check_unused(model, "default", opened(folder, contents(STARS, seed=2), seed=seed))


def test_a_record_is_short_and_of_spectra_alone(folder):
    one, two = contents(STARS), contents(STARS) | {"teff": contents(STARS, seed=3)["teff"]}
    first, second = (record(opened(folder, datasets)) for datasets in (one, two))
    assert first == second
    assert len(first["survey_spectra"].split()) == SAMPLED
    assert len(first["survey_spectra"]) < 600


@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_a_part_of_a_survey_is_recognised_as_often_as_the_docs_say(trained, folder, fraction):
    model, known = trained
    generator = np.random.default_rng(4)
    large = dataclasses.replace(
        opened(folder, known), digests=generator.integers(2**63, size=5000, dtype=np.uint64)
    )
    card = dataclasses.replace(model.card, training=record(large))
    large_model = type(model)(card, model.grid, None, twins=np.zeros((0, 0)), **model.basis.arrays())
    refused, tries = 0, 400
    for _ in range(tries):
        chosen = generator.choice(5000, size=int(5000 * fraction), replace=False)
        part = dataclasses.replace(large, digests=large.digests[chosen], star_id=["x"] * len(chosen))
        try:
            check_unused(large_model, "large", part)
        except InputError:
            refused += 1
    assert refused / tries == pytest.approx(1 - (1 - fraction) ** SAMPLED, abs=0.03)


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_every_evaluation_refuses_the_training_survey(trained, folder):
    model, known = trained
    path = folder / "mine.safetensors"
    save_model(model, path)
    survey, report = write(folder / "again.h5", renamed(known)), folder / "report"
    other = write(folder / "other.h5", contents(STARS, seed=2, abundances=True))
    for arguments in (
        ("model", "evaluate", path, "--survey", survey, "--report", report),
        ("lab", "robustness", path, "--survey", survey, "--report", report),
        ("lab", "rates", path, "--groups", survey, "--report", report),
        ("model", "readout", path, other, survey, "--out", folder / "out.safetensors"),
        ("model", "evaluate", path, "--survey", other, "--groups", survey, "--report", report),
    ):
        result = run(*arguments)
        assert "holds spectra that mine was trained or selected on" in str(result.exception), arguments


def test_a_survey_cannot_judge_or_teach_itself(trained, folder):
    _, known = trained
    survey, part = write(folder / "whole.h5", known), write(folder / "part.h5", rows(known, slice(0, 50)))
    path = folder / "mine.safetensors"
    config = read_config(PRESETS / "polydis-paper.toml", ["components=3", 'parameters=["teff", "logg"]'])
    with pytest.raises(ValueError, match=r"part\.h5 is the training survey"):
        train_model(survey, part, config, folder / "m.safetensors", name="m", device="cpu")
    assert "is the survey that the readout is fitted to" in str(
        run("model", "readout", path, survey, part, "--out", folder / "o").exception
    )
    with pytest.raises(ValueError, match=r"holds spectra of the other, .*part\.h5: those of 50 stars"):
        check_apart(Survey.open(survey), Survey.open(part), "the other")


def test_training_records_both_surveys(folder):
    train, judge = (write(folder / f"{seed}.h5", contents(STARS, seed=seed)) for seed in (11, 12))
    config = read_config(
        PRESETS / "polydis-paper.toml", ["components=3", "degree=1", 'parameters=["teff", "logg"]']
    )
    out = folder / "both.safetensors"
    train_model(train, judge, config, out, name="both", device="cpu")
    training = load_model(out).card.training
    assert training["survey_spectra"] == record(Survey.open(train))["survey_spectra"]
    assert training["validation_spectra"] == record(Survey.open(judge))["survey_spectra"]
    for path in (train, judge):
        with pytest.raises(ValueError, match="both was trained or selected on"):
            check_unused(load_model(out), "both", Survey.open(path))

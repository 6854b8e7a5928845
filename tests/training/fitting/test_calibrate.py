import dataclasses
import io
import re
import sys

import numpy as np
import pytest

from model.methods.base import Card
from model.methods.basis import exponents, scaled
from model.methods.gaussdis import GaussDis
from model.methods.response import Response
from model.spectra.grid import Grid
from tests.training.small_surveys import contents, write
from training.fitting.calibrate import (
    MAP_PRIORS,
    PairMap,
    _calibrated,
    _refitted,
    align,
    average_latents,
    calibrate,
)
from training.fitting.gaussdis import DEGREES, Stars, refine, with_tensors
from training.fitting.twins_found import fewest_pairs, find_twins
from training.networks.network import train
from training.surveys.survey import Survey

RANGES = np.array([[4000.0, 5000.0], [1.5, 3.0], [-1.0, 0.5]])
NAMES = ("teff", "logg", "fe_h")
LATENTS, COMPONENTS, STARS, PAIRS, HELD_OUT = 4, 12, 5600, 100, 500
KNOWN = np.arange(2 * PAIRS).reshape(-1, 2)
"""Rows of the pairs that a calibration is given."""


@pytest.fixture(scope="module")
def world() -> Stars:
    """Pairs in neighbouring rows, whose latents have been turned by an angle that grows with Teff."""
    generator = np.random.default_rng(1)
    shapes = [(len(exponents(3, degree)),) for degree in (2, 1, 0)]
    truth = Response(
        RANGES,
        generator.normal(0, 0.02, (*shapes[0], COMPONENTS)),
        np.concatenate(
            [
                generator.normal(0, 0.4, (1, LATENTS, COMPONENTS)),
                generator.normal(0, 0.1, (3, LATENTS, COMPONENTS)),
            ]
        ),
        generator.normal(0, 0.02, (*shapes[2], LATENTS * (LATENTS + 1) // 2, COMPONENTS)),
    )
    latents = np.repeat(generator.normal(size=(STARS // 2, LATENTS)), 2, axis=0)
    known = generator.uniform(RANGES[:, 0], RANGES[:, 1], (STARS, 3))
    observed = truth(latents, known)
    angle = 0.5 * scaled(known, RANGES)[:, 0]
    turned = latents.copy()
    turned[:, 0] = np.cos(angle) * latents[:, 0] - np.sin(angle) * latents[:, 1]
    turned[:, 1] = np.sin(angle) * latents[:, 0] + np.cos(angle) * latents[:, 1]
    return Stars(observed, known, turned)


@pytest.fixture(scope="module")
def small(world) -> Stars:
    """The first 800 stars of the world."""
    rows = slice(0, 800)
    return Stars(world.coefficients[rows], world.parameters[rows], world.latents[rows])


def gaps(latents: np.ndarray) -> float:
    """Mean squared distance of the pairs at the end, which no calibration sees."""
    test_rows = latents[-2 * HELD_OUT :]
    return float(np.square(test_rows[::2] - test_rows[1::2]).mean())


def model_of(stars: Stars) -> GaussDis:
    response, scatter = stars.fitted(RANGES)
    generator = np.random.default_rng(2)
    return GaussDis(
        Card("toy", "1", "gaussdis", dict(zip(NAMES, map(tuple, RANGES.tolist()), strict=True)), LATENTS, ""),
        Grid(10 ** (4.2 + 6e-6 * np.arange(50))),
        None,
        scatter=scatter,
        continuum=np.zeros((COMPONENTS, COMPONENTS)),
        residue=np.zeros((LATENTS, LATENTS)),
        metric=np.eye(LATENTS),
        twins=np.zeros((0, 0)),
        polynomial=np.eye(len(exponents(3, 4)), 1) * np.ones(50),
        components=np.linalg.qr(generator.normal(size=(50, COMPONENTS)))[0].T,
        variances=np.ones(COMPONENTS),
        discarded=np.zeros(1),
        **response.arrays(),
    )


@pytest.fixture(scope="module")
def first(world) -> GaussDis:
    """The world's model, calibrated on the known pairs."""
    return _calibrated(model_of(world), world.coefficients, world.parameters, KNOWN, "on some")


def test_a_response_is_found_again(world):
    """The features that are fitted are those that the response computes."""
    response, scatter = world.fitted(RANGES)
    again = dataclasses.replace(world, coefficients=response(world.latents, world.parameters))
    refitted, covariance = again.fitted(RANGES)
    assert response.degrees == DEGREES
    assert np.sqrt(np.trace(covariance)) < 1e-2 * np.sqrt(np.trace(scatter))
    np.testing.assert_allclose(refitted.linear, response.linear, atol=1e-3)


def test_pairs_turn_latents_back(world):
    stars = dataclasses.replace(world)
    before = gaps(stars.latents)
    stars.refine(*align(model_of(world), stars, np.arange(2 * PAIRS).reshape(-1, 2)))
    assert gaps(stars.latents) < 0.05 * before
    assert stars.latents.std(axis=0) == pytest.approx(1, abs=0.15), "the latents shrank instead"


def test_a_calibrated_model_finds_the_other_twins_and_learns_from_them(world, first):
    known, others = KNOWN, np.arange(2 * PAIRS, STARS - 2 * HELD_OUT)
    found = others[find_twins(first, world.coefficients[others], world.parameters[others])]
    assert (found // 2 == found[:, :1] // 2).all(), "two stars that are no twins"
    assert len(found) > 0.9 * len(others) / 2
    second = _refitted(first, world.coefficients, world.parameters, known, found, "on many")

    def mean_gap(model: GaussDis) -> float:
        stars = dataclasses.replace(world)
        stars.refine(model.response, model.scatter)
        assert stars.latents.std(axis=0) == pytest.approx(1, abs=0.15), "the latents shrank instead"
        return gaps(stars.latents)

    assert mean_gap(second) < 0.3 * mean_gap(first)
    residue = np.trace(second.residue) / LATENTS
    assert residue == pytest.approx(mean_gap(second), rel=0.5), "as the known pairs show"
    with pytest.raises(ValueError, match="700 pairs of twins are found in the survey, and 1816 are needed"):
        _refitted(first, world.coefficients, world.parameters, known, found[:700], "on too few")


def test_a_calibrated_model_measures_in_its_own_metric(world, first):
    """Differences of twins at S/N 100 have about unit covariance, without a detour by a file."""
    test_rows = np.arange(STARS - 2 * HELD_OUT, STARS)
    noise = np.random.default_rng(5).normal(0, 0.01, (len(test_rows), COMPONENTS))
    flux = first.basis.rebuild(world.coefficients[test_rows] + noise, world.parameters[test_rows])
    means = first.encode(flux, world.parameters[test_rows], np.full(flux.shape, 1e-4))
    gap = means[::2] - means[1::2]
    assert np.square(gap).mean() == pytest.approx(1, abs=0.4)


def test_none_is_found_where_no_star_has_a_twin(world, first):
    for rows in (np.arange(2 * PAIRS, STARS, 2), np.arange(1), np.arange(0)):
        assert len(find_twins(first, world.coefficients[rows], world.parameters[rows])) == 0


def test_pairs_that_are_no_twins_change_little(world):
    generator = np.random.default_rng(3)
    wrong = generator.permutation(STARS - 2 * HELD_OUT)[: 2 * PAIRS].reshape(-1, 2)
    both = wrong.T
    pair_map = PairMap.of(np.diag([0.2, 0.4, 0.6, 0.8]), RANGES, world.parameters[:500])
    pair_map.fit(world.latents[both], world.parameters[both])
    moved = pair_map(world.latents, world.parameters) - world.latents
    assert np.square(moved).mean() < 0.05


def test_stars_of_several_pairs_get_one_latent():
    latents = np.arange(16.0).reshape(8, 2)
    average_latents(latents, np.array([[0, 1], [4, 5], [1, 2], [5, 4]]))
    assert latents.tolist() == [[2, 3]] * 3 + [[6, 7]] + [[9, 10]] * 2 + [[12, 13], [14, 15]]


def test_the_residue_is_measured_on_groups_left_out(small):
    """Strangers in threes, each with both others: no star helps to fit what it is judged by."""
    threes = np.random.default_rng(6).permutation(90).reshape(-1, 3)
    pairs = threes[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    residue = _calibrated(model_of(small), small.coefficients, small.parameters, pairs, "").residue
    assert np.trace(residue) / LATENTS > 1, "0.1 if pairs were left out one by one"


def test_a_calibration_shows_its_progress(small, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    _calibrated(model_of(small), small.coefficients, small.parameters, np.arange(60).reshape(-1, 2), "on some")
    for bar, total in (("calibrate", 7), ("map", len(MAP_PRIORS)), ("infer latents", 800)):
        assert f"{bar}:   0%|" in shown.getvalue()
        assert f"/{total} [" in shown.getvalue()


def test_a_new_calibration_writes_its_own_record(small, tmp_path):
    """What an earlier calibration found is not what this one found."""
    start = model_of(small)
    earlier = {"pairs": 300, "pairs_survey_seed": 8, "found_pairs": 46069}
    start = with_tensors(start, dataclasses.replace(start.card, training={"survey_seed": 1, **earlier}))
    datasets = contents(len(small.coefficients), 50) | dict(zip(NAMES, small.parameters.T, strict=True))
    flux = start.basis.rebuild(small.coefficients, small.parameters).astype(np.float32)
    path = write(tmp_path / "s.h5", datasets | {"flux": flux, "wavelength": start.grid.wavelength})
    model = calibrate(start, Survey.open(path), np.arange(60).reshape(-1, 2), "mine")
    training = model.card.training
    assert training.keys() == {
        "survey_seed",
        "pairs",
        "pairs_survey_seed",
        "pairs_survey_spectra",
        "calibrated_before",
    }
    assert training["pairs"] == 30
    assert training["pairs_survey_seed"] is None
    assert training["calibrated_before"] == earlier
    assert model.card.metric.endswith("calibrated on 30 known pairs")


def test_finding_twins_among_too_few_stars_is_refused_before_any_work(world, tmp_path):
    """For 17 latents it takes 8,992 pairs beside the known ones."""
    assert fewest_pairs(17, RANGES) == 8992
    survey = Survey.open(write(tmp_path / "s.h5", contents(104)))
    message = (
        "--find needs 1816 or more pairs of twins beside the known ones, for 4 latents: 3632 stars at least. "
        f"{survey.path} has 64 beside the known pairs"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        calibrate(model_of(world), survey, np.arange(40).reshape(-1, 2), "mine", find=True)


def test_a_survey_on_another_grid_is_refused_by_name(world, tmp_path):
    survey = Survey.open(write(tmp_path / "s.h5", contents(104)))
    message = (
        f"{survey.path} is not on the model's wavelength grid: it has 30 pixels from 15200.00 to 15206.08 "
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        calibrate(model_of(world), survey, np.arange(40).reshape(-1, 2), "mine")


def test_from_spectra_to_a_calibrated_model(thin_xfe_survey: Survey, tiny, tmp_path):
    """A real chain on few stars: GaussDis brings unseen pairs closer than it did before calibration."""
    config = tiny("faderdis", "steps=400", "learning_rate=3e-3", "components=64", "latents=8")
    import torch

    start = train(
        thin_xfe_survey, None, config, tmp_path / "run", name="start", device=torch.device("cpu")
    ).model
    model = refine(start, thin_xfe_survey, "refined")
    assert 1 <= model.card.latent_dim <= config.latents
    pairs = np.arange(400).reshape(-1, 2)
    calibrated = calibrate(model, thin_xfe_survey, pairs, "calibrated")
    rows = slice(600, 1200)
    flux, known = thin_xfe_survey.flux(rows).astype(np.float64), thin_xfe_survey.parameters[rows]

    def apart(judged: GaussDis) -> float:
        latents = judged.unit(judged.encode(flux, known))
        return float(np.square(latents[::2] - latents[1::2]).mean())

    assert apart(calibrated) < 0.8 * apart(model)
    assert np.trace(calibrated.residue) > 0
    assert calibrated.card.training["pairs"] == 200
    assert "found_pairs" not in calibrated.card.training

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from training.emulator.emulator import CARBON_LIMIT
from training.surveys.chemistry import BRANCH, FOLLOWERS, SHIPPED, Chemistry, fit_chemistry
from training.surveys.paper_tables import TABLE_1
from training.surveys.published_errors import DR12, PUBLISHED, measured_abundances, published_errors
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import draw_labels, synthesize

RANGES = {**TABLE_1, "fe_h": (-1.1, 0.5)}


@pytest.fixture(scope="module")
def shipped():
    return Chemistry.load()


@pytest.fixture(scope="module")
def labels(emulator, shipped):
    return draw_labels(20_000, 3, emulator.labels, emulator.lo, emulator.hi, chemistry=shipped)


@pytest.fixture(scope="module")
def table(tmp_path_factory, emulator, labels):
    """A table of 1,500 stars with APOGEE's errors, three of them outliers."""
    path = tmp_path_factory.mktemp("table") / "labels.csv"
    stars = labels[:3000:2]
    elements = [i for i, name in enumerate(emulator.labels) if name in PUBLISHED[1:]]
    names = [emulator.labels[i] for i in elements]
    measured, _ = measured_abundances(stars[:, :3], stars[:, elements], names, 200, np.random.default_rng(7))
    measured[:3, PUBLISHED.index("Mg")] += 2
    with path.open("w") as file:
        file.write("# a line of provenance\napogee_id," + ",".join(["teff", "logg", "fe_h"]))
        file.write("".join(f",{name.lower()}_fe" for name in PUBLISHED[1:]) + "\n")
        for i, row in enumerate(np.hstack([stars[:, :2], measured])):
            file.write(f"star{i}," + ",".join(f"{value:.5g}" for value in row) + "\n")
    return path


def column(emulator, labels, name):
    return labels[:, emulator.labels.index(name)]


def test_twins_share_their_chemistry_and_have_their_own_parameters_on_the_branch(emulator, labels):
    first, second = labels[::2], labels[1::2]
    assert np.array_equal(first[:, 2:], second[:, 2:])
    assert np.all(first[:, :2] != second[:, :2])


def test_labels_are_in_the_box_and_no_carbon_star_s(emulator, labels):
    assert emulator.covers(labels).all()
    for name, (low, high) in TABLE_1.items():
        values = column(emulator, labels, name)
        assert low <= values.min()
        assert values.max() <= high
    excess = column(emulator, labels, "C") - column(emulator, labels, "O")
    assert 0.15 < excess.max() <= CARBON_LIMIT


def test_abundances_have_the_file_s_spreads_and_correlations(emulator, labels, shipped):
    drawn = np.cov(np.stack([column(emulator, labels, name)[::2] for name in PUBLISHED]))
    expected = shipped.abundances.covariance()
    assert np.allclose(np.sqrt(np.diag(drawn)), np.sqrt(np.diag(expected)), rtol=0.12)
    assert np.allclose(_correlation(drawn), _correlation(expected), atol=0.06)


def test_elements_without_a_table_follow_their_rule(emulator, labels):
    for name, (leader, scatter) in FOLLOWERS.items():
        centre = 0.0 if leader is None else column(emulator, labels, leader)
        assert (column(emulator, labels, name) - centre)[::2].std() == pytest.approx(scatter, rel=0.03)


def test_giants_lie_on_a_branch_that_depends_on_fe_h(emulator, labels):
    teff, logg, fe_h = labels[::2, :3].T
    cool, warm = logg[np.abs(teff - 4300) < 50], logg[np.abs(teff - 4800) < 50]
    assert np.median(cool) < 2.0 < 2.5 < np.median(warm)
    assert warm.std() < 0.2
    near = np.abs(teff - 4600) < 50
    assert np.corrcoef(logg[near], fe_h[near])[0, 1] > 0.3


def test_a_seed_gives_one_survey(emulator, shipped):
    args = (emulator.labels, emulator.lo, emulator.hi)
    first, again, other = (draw_labels(50, seed, *args, members=3, chemistry=shipped) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    groups = first[:, 2:].reshape(50, 3, -1)
    assert np.all(groups == groups[:, :1])


def test_own_fe_h_is_refused(emulator, shipped):
    with pytest.raises(ValueError, match="depend on \\[Fe/H\\]"):
        draw_labels(5, 1, emulator.labels, emulator.lo, emulator.hi, own_fe_h=True, chemistry=shipped)


def test_a_box_without_room_is_an_error(emulator, shipped, monkeypatch):
    monkeypatch.setattr("training.surveys.chemistry.ROUNDS", 3)
    hi = np.where(np.array(emulator.labels) == "Mg", emulator.lo, emulator.hi)
    with pytest.raises(ValueError, match="no room"):
        draw_labels(5, 1, emulator.labels, emulator.lo, hi, chemistry=shipped)


def test_a_file_says_its_chemistry_and_may_hold_field_stars(emulator, shipped, tmp_path):
    synthesize(tmp_path / "field.h5", emulator, 4, seed=1, members=1, chemistry=shipped)
    synthesize(tmp_path / "paper.h5", emulator, 2, seed=1)
    field = Survey.open(tmp_path / "field.h5")
    assert field.star_id == [f"SYN-1-00000{i}A" for i in range(4)]
    assert field.twin is None
    with h5py.File(tmp_path / "field.h5") as real, h5py.File(tmp_path / "paper.h5") as paper:
        assert json.loads(real.attrs["chemistry"])["table"] == "apogee_dr12_labels.csv"
        assert paper.attrs["chemistry"] == "paper"


@pytest.mark.slow
def test_the_command_makes_the_file_that_is_loaded_and_recovers_the_truth(table, shipped, tmp_path):
    out = tmp_path / "chemistry.json"
    result = CliRunner().invoke(
        cli, ["lab", "chemistry", str(table), "--out", str(out)], catch_exceptions=False
    )
    assert "| [Fe/H] | 0.2" in result.output
    found = Chemistry.load(out)
    assert found.provenance["stars"] == 1500
    assert 1450 < found.provenance["stars without outliers"] <= 1497
    made, committed = json.loads(out.read_text()), json.loads(SHIPPED.read_text())
    for part in ("abundances", "branch"):
        assert made[part]["names"] == committed[part]["names"]
    assert np.allclose(
        np.sqrt(np.diag(found.abundances.covariance())),
        np.sqrt(np.diag(shipped.abundances.covariance())),
        atol=0.02,
    )
    assert np.allclose(
        _correlation(found.abundances.covariance()), _correlation(shipped.abundances.covariance()), atol=0.3
    )


def test_what_is_loaded_is_what_was_saved(shipped, tmp_path):
    shipped.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == SHIPPED.read_text()
    assert shipped.branch.means.shape[1] == len(BRANCH)
    assert set(shipped.spreads) == set(PUBLISHED)


def test_a_table_that_lacks_a_column_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("teff,logg\n4500,2\n")
    with pytest.raises(ValueError, match="lacks the columns al_fe"):
        fit_chemistry(tmp_path / "x.csv", RANGES)


def test_another_file_is_no_chemistry(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a chemtwin-chemistry-1 file"):
        Chemistry.load(tmp_path / "x.json")


def test_published_errors_are_those_of_dr12():
    errors = published_errors(np.array([4500.0, 5000.0]), np.array([0.0, -0.5]), 100)
    assert errors[0] == pytest.approx(np.exp([row[0] for row in DR12.values()]))
    assert errors[1, PUBLISHED.index("C")] == pytest.approx(np.exp(-3.350 + 0.5 * 0.769 + 0.5 * 0.919))
    falling = [published_errors(np.array([4500.0]), np.zeros(1), snr)[0] for snr in (50, 100, 200, 300)]
    assert np.all(np.diff(falling[:3], axis=0) < 0)
    assert np.array_equal(falling[2], falling[3])


def test_measured_abundances_scatter_by_their_errors():
    parameters = np.tile([4500.0, 2.0, -0.2], (20_000, 1))
    names = ("Rb", *PUBLISHED[:0:-1])
    abundances = np.tile(np.arange(len(names)) / 100, (20_000, 1))
    measured, errors = measured_abundances(parameters, abundances, names, 100, np.random.default_rng(1))
    truth = np.array([-0.2, *(names.index(name) / 100 for name in PUBLISHED[1:])])
    assert measured.mean(axis=0) == pytest.approx(truth, abs=2e-3)
    assert (measured - truth).std(axis=0) == pytest.approx(errors[0], rel=0.03)


def _correlation(covariance):
    deviation = np.sqrt(np.diag(covariance))
    return covariance / np.outer(deviation, deviation)

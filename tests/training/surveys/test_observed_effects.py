"""Surveys as APOGEE observes them: noise and masks of real spectra, errors of labels, clusters."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.constants import speed_of_light

from app.cli.main import cli
from model.errors import InputError
from model.spectra.continuum import Normaliser
from model.spectra.grid import Grid
from training.emulator.emulator import Emulator
from training.surveys.chemistry import SHIPPED, Chemistry
from training.surveys.observed_effects import (
    SNR_RANGE,
    TELLURIC_SD,
    atmosphere,
    noise_patterns,
    observe,
)
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import CLUSTER_MEMBERS, synthesize

SINGLE, CLUSTERS = 60, 4


@pytest.fixture(scope="module")
def surveys(tmp_path_factory):
    """An observed survey, and the same stars without noise and errors."""
    folder = tmp_path_factory.mktemp("observed")
    options = {"members": 1, "clusters": CLUSTERS, "chemistry": Chemistry.load(SHIPPED)}
    for name in ("observed", "again", "true"):
        synthesize(folder / f"{name}.h5", Emulator.load(), SINGLE, 5, observed=name != "true", **options)
    return folder


def test_the_same_seed_gives_the_same_spectra(surveys):
    first, second = Survey.open(surveys / "observed.h5"), Survey.open(surveys / "again.h5")
    assert np.array_equal(first.digests, second.digests)
    assert np.array_equal(first.parameters, second.parameters)


def test_flux_differs_from_the_truth_by_its_errors(surveys):
    observed, true = Survey.open(surveys / "observed.h5"), Survey.open(surveys / "true.h5")
    rows = slice(0, SINGLE)
    flux, ivar, truth = observed.flux(rows), observed.ivar(rows), true.flux(rows)
    assert 0.08 < observed.masked.mean() < 0.2, "real spectra miss about an eighth of their pixels"
    assert (flux[ivar == 0] == 1).all()
    pull = ((flux - truth) * np.sqrt(ivar))[ivar > 0]
    # velocity, resolution, continuum and sky add to the noise
    assert 1.0 < np.median(np.abs(pull)) / 0.6745 < 1.6
    assert np.array_equal(observed.snr, np.clip(observed.snr, *SNR_RANGE))


def test_labels_differ_from_the_truth_by_their_errors(surveys):
    observed, true = Survey.open(surveys / "observed.h5"), Survey.open(surveys / "true.h5")
    pull = (observed.parameters - true.parameters) / observed.errors
    assert np.allclose(pull.std(axis=0), 1.0, atol=0.3)
    cool = np.argsort(true.parameters[:, 0])[:20]
    assert observed.errors[cool, 0].mean() > 1.2 * observed.errors[:, 0].min()


def test_members_of_a_cluster_share_all_abundances(surveys):
    true = Survey.open(surveys / "true.h5")
    assert true.twin is None
    sizes = np.bincount(true.group)
    with h5py.File(true.path) as file:
        named = file["cluster"].asstr()[:]
    assert set(named[:SINGLE]) == {""}
    assert (
        len(set(zip(named[SINGLE:], true.group[SINGLE:], strict=True))) == len(set(named[SINGLE:])) == CLUSTERS
    )
    assert (sizes[:SINGLE] == 1).all()
    low, high = CLUSTER_MEMBERS
    assert len(sizes) == SINGLE + CLUSTERS
    assert np.array_equal(sizes[SINGLE:], np.clip(sizes[SINGLE:], low, high))
    with h5py.File(true.path) as file:
        chemistry = np.column_stack([file["abundances"][:], true.parameters[:, 2]])
    for group in range(SINGLE, SINGLE + CLUSTERS):
        members = chemistry[true.group == group]
        assert (members == members[0]).all()
        assert np.ptp(true.parameters[true.group == group, 0]) > 0


def test_noise_alone_has_the_size_that_ivar_says():
    grid = Grid.apogee()
    flat = np.ones((40, len(grid)))
    observed = observe(flat, np.full(40, 100.0), np.zeros(40), noise_patterns(grid, False), grid, 0, 1)
    good = observed.ivar > 0
    pull = (observed.flux - 1) * np.sqrt(observed.ivar)
    assert 1.0 < pull[good].std() < 1.4, "a continuum error of half of the noise is beside it"


def test_the_atmosphere_leaves_lines_in_the_frame_of_the_earth():
    grid, stars = Grid.apogee(), 60
    flat, vrad = np.ones((stars, len(grid))), np.linspace(-80, 80, stars)
    observed = observe(flat, np.full(stars, 1e5), vrad, noise_patterns(grid, True), grid, 0, 1)
    lines = atmosphere(vrad, grid)
    strong = np.exp(lines[0]).argmin()
    assert grid.wavelength[strong] * (1 - 80e3 / speed_of_light) == pytest.approx(
        grid.wavelength[np.exp(atmosphere(np.zeros(1), grid)[0]).argmin()], abs=0.2
    ), "an approaching star moves the atmosphere's lines to the red of its own"
    continuum = Normaliser(grid, np.flatnonzero(np.exp(lines).min(axis=0) > 0.99), 4)
    flux = continuum.batch(observed.flux)
    depths = [np.polyfit(own, one, 1)[0] for own, one in zip(lines, flux, strict=True)]
    assert np.std(depths) == pytest.approx(TELLURIC_SD, rel=0.3)


def test_unmasked_spectra_have_noise_in_every_pixel(tmp_path):
    command = ["survey", "synthesize", str(tmp_path / "s.h5"), "--pairs", "2", "--unmasked"]
    assert "--unmasked is for --observed" in CliRunner().invoke(cli, command).output
    assert CliRunner().invoke(cli, [*command, "--observed"]).exit_code == 0
    survey = Survey.open(tmp_path / "s.h5")
    assert survey.noise == "ivar"
    assert survey.masked.max() == 0


@pytest.mark.parametrize("other", [{"own_fe_h": True}, {"branch": True}])
def test_clusters_that_cannot_be_drawn_are_an_error(tmp_path, other):
    with pytest.raises(InputError, match="clusters are drawn"):
        synthesize(tmp_path / "s.h5", Emulator.load(), 2, 5, clusters=1, **other)
    assert not list(tmp_path.iterdir())

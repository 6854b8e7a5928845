"""The emulator of the whole giant branch: its accuracy by region, the labels it covers, its derivatives."""

import numpy as np
import pytest
import torch

from model.errors import InputError
from training.emulator.derivatives import flux_and_slopes
from training.emulator.domain import BRANCH, Domain, box_range
from training.emulator.emulator import BRANCH_PATH, LABELS, Emulator
from training.emulator.evaluate_emulator import REGIONS, evaluate
from training.emulator.grid import read_validation


@pytest.fixture(scope="module")
def branch():
    return Emulator.load(BRANCH_PATH)


@pytest.fixture(scope="module")
def quality(branch):
    return evaluate(branch)


def giant(teff, logg, fe_h):
    """Labels (1, 21) of a star with [X/Fe] = 0."""
    return np.array([[teff, logg, fe_h, *np.zeros(len(LABELS) - 3)]])


@pytest.mark.parametrize("region", REGIONS)
def test_every_region_of_the_branch_is_within_a_thousandth(quality, region):
    assert quality["branch"][region]["spectra"] >= 5
    assert quality["branch"][region]["median"] < 1e-3
    assert quality["branch"][region]["rms"] < 2e-3


def test_the_narrow_box_is_nearly_as_good_as_its_own_emulator(quality):
    assert quality["box"]["median"] < 3e-4
    assert quality["survey"]["median"] < 3e-4


@pytest.mark.parametrize("name", LABELS[2:])
def test_responses_follow_turbospectrum(quality, name):
    """At the points of tables 1 and 2: correlation 0.95 and amplitude within 10 %, over all and at the median."""
    response = quality["responses"][name]
    for correlation in (response["pooled"]["correlation"], np.median(response["correlation"])):
        assert correlation > 0.95
    for amplitude in ("slope", "ratio"):
        for value in (response["pooled"][amplitude], np.median(response[amplitude])):
            assert value == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    "star",
    [(3700, 0.0, -2.2), (3700, 1.24, 0.5), (5300, 2.25, 0.0), (5300, 3.8, -2.2), (4000, 3.0, 0.0)],
    ids=str,
)
def test_corners_of_the_branch_and_the_box_of_the_narrow_emulator_are_covered(branch, star):
    assert branch.covers(giant(*star))[0]
    flux = branch(giant(*star))
    assert 0.0 < flux.min() < flux.max() < 1.02


@pytest.mark.parametrize(
    ("star", "message"),
    [
        ((3690, 0.5, 0.0), r"teff = 3690 \(row 0\) is outside the emulator's range 3700 to 5300"),
        ((3700, 1.5, 0.0), r"logg = 1\.5 \(row 0\) .* 0 to 1\.24 at teff = 3700"),
        ((5300, 2.0, 0.0), r"logg = 2 \(row 0\) .* 2\.25 to 3\.8 at teff = 5300"),
        ((4800, 3.0, -2.3), r"fe_h = -2\.3 \(row 0\) .* -2\.2 to 0\.5"),
        ((4000, 3.0, -1.5), r"logg = 3 \(row 0\) .* 0 to 2\.02 at teff = 4000"),
    ],
    ids=str,
)
def test_labels_outside_are_refused_by_name(branch, star, message):
    with pytest.raises(InputError, match=message):
        branch(giant(*star))


def test_a_domain_is_the_union_of_its_regions():
    lo, hi = np.array([3900.0, 1.3, -1.1]), np.array([5100.0, 3.2, 0.5])
    wide = np.array([3700.0, 0.0, -2.2]), np.array([5300.0, 3.8, 0.5])
    domain = Domain(np.array([lo, wide[0]]), np.array([hi, wide[1]]), np.array([box_range(lo, hi), BRANCH]))
    stars = np.array([[3900.0, 3.2, 0.0], [3900.0, 1.0, 0.0], [3900.0, 1.4, -1.5], [3900.0, 3.2, -1.5]])
    assert domain.inside(stars).all(axis=2).tolist() == [
        [True, False, False, False],
        [False, True, True, False],
    ]


def test_derivatives_are_those_of_the_flux(branch):
    """Components that share a kernel have one derivative each."""
    labels = read_validation().branch_labels[:3]
    columns = [LABELS.index(name) for name in ("teff", "logg", "fe_h", "O", "Mg")]
    slopes = flux_and_slopes(branch, labels, columns)[1].numpy()
    for k, column in enumerate(columns):
        step = np.zeros(len(LABELS))
        step[column] = 0.5 if column == 0 else 1e-3
        difference = (branch(labels + step).astype(float) - branch(labels - step)) / (2 * step[column])
        error = np.abs(difference - slopes[:, k]).max()
        assert error < 0.01 * np.abs(slopes[:, k]).max() + 3e-7 / step[column]


def test_components_fill_the_kernels(branch):
    assert int(torch.sum(branch.tensors["sizes"])) == len(branch.tensors["components"])
    assert len(branch.tensors["sizes"]) < len(branch.tensors["components"])


@pytest.mark.parametrize("name", LABELS[2:])
def test_responses_across_the_branch_follow_turbospectrum(quality, name):
    """Over all points, where the stars that show the element count most."""
    response = quality["branch_responses"][name]
    assert len(response["points"]) == 4
    assert response["pooled"]["correlation"] > 0.95
    assert response["pooled"]["slope"] == pytest.approx(1.0, abs=0.1)

import numpy as np
import pytest

from model.errors import InputError
from training.emulator.emulator import BRANCH_PATH, Emulator
from training.surveys.branch import BRANCH_CHEMISTRY, draw_branch_labels
from training.surveys.chemistry import Chemistry


@pytest.fixture(scope="module")
def branch() -> Emulator:
    return Emulator.load(BRANCH_PATH)


def test_broad_labels_fill_the_branch(branch):
    labels = draw_branch_labels(2000, 5, branch, own_fe_h=True)
    assert branch.covers(labels).all()
    teff, logg, iron = labels[:, :3].T
    assert teff.min() < 3720
    assert teff.max() > 5280
    assert logg.min() < 0.1
    assert logg.max() > 3.7
    assert iron.min() < -2.1
    assert iron.max() > 0.4
    assert np.corrcoef(teff, logg)[0, 1] > 0.6


def test_members_share_abundances_and_with_own_fe_h_nothing_else(branch):
    labels = draw_branch_labels(50, 6, branch, members=3, own_fe_h=True).reshape(50, 3, -1)
    assert np.array_equal(labels[:, 0, 3:], labels[:, 2, 3:])
    assert (np.ptp(labels[:, :, :3], axis=1) > 0).all()
    labels = draw_branch_labels(50, 6, branch, members=3).reshape(50, 3, -1)
    assert np.array_equal(labels[:, 0, 2:], labels[:, 1, 2:])


def test_real_giants_of_the_branch_are_drawn_from_the_shipped_table(branch):
    chemistry = Chemistry.load(BRANCH_CHEMISTRY)
    labels = draw_branch_labels(3000, 7, branch, chemistry=chemistry)
    assert branch.covers(labels).all()
    teff, logg, iron = labels[:, :3].T
    assert 0.5 < np.mean((iron > -0.4) & (iron < 0.2)) < 0.9
    assert iron.min() < -1.2
    assert np.percentile(logg, 1) < 1.4
    assert np.percentile(logg, 99) > 3.0
    magnesium = labels[:, branch.labels.index("Mg")]
    assert magnesium[iron < -0.6].mean() > magnesium[iron > 0].mean() + 0.1
    assert np.array_equal(labels, draw_branch_labels(3000, 7, branch, chemistry=chemistry))
    with pytest.raises(InputError, match="own"):
        draw_branch_labels(10, 7, branch, chemistry=chemistry, own_fe_h=True)

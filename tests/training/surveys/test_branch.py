import numpy as np
import pytest

from model.errors import InputError
from training.emulator.domain import BRANCH
from training.emulator.emulator import BRANCH_PATH, Emulator
from training.surveys.branch import BRANCH_CHEMISTRY, EVERY, HOT_METAL_POOR, draw_branch_labels
from training.surveys.chemistry import Chemistry
from training.surveys.paper_tables import TABLE_1


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


def test_one_group_of_eight_is_in_the_papers_range_and_another_hot_and_metal_poor(branch):
    labels = draw_branch_labels(2000, 5, branch).reshape(2000, 2, -1)
    paper, hot = labels[1::EVERY], labels[::EVERY]
    for column, (low, high) in enumerate(TABLE_1.values()):
        assert low <= paper[..., column].min() < paper[..., column].max() <= high
    assert 0.05 < (paper[..., 1] > np.interp(paper[..., 0], BRANCH[:, 0], BRANCH[:, 2])).mean() < 0.2
    assert hot[..., 0].min() >= HOT_METAL_POOR["teff"][0]
    assert hot[..., 2].max() <= HOT_METAL_POOR["fe_h"][1]


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

"""Groups of stars: the CSV that names them, those that cannot be right, and what `survey check` says of them."""

import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from tests.conftest import GIANTS
from tests.training.small_surveys import STARS, contents, write
from training.surveys.groups import bad_groups, read_groups


def groups(tmp_path, text):
    (tmp_path / "g.csv").write_text(text)
    return read_groups(tmp_path / "g.csv", str.upper)


def test_groups_are_read_by_the_key_of_each_star(tmp_path):
    assert groups(tmp_path, "star_id,group\na,M67\nB,M67\nc,NGC 188\n") == {
        "a": "M67",
        "B": "M67",
        "c": "NGC 188",
    }


def test_pairs_with_a_common_star_are_one_group(tmp_path):
    found = groups(tmp_path, "star_id,twin_id\na,b\nc,d\nB,e\n")
    assert found == {"a": "a", "b": "a", "e": "a", "c": "c", "d": "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("star_id,group\na,M67\nA,M71\n", "line 3: A is in M67 and in M71"),
        ("star_id,group\na,\n", "line 2: star_id and group must both be given"),
        ("star_id,twin_id\na,\n", "line 2: star_id and twin_id must both be given"),
        ("star_id,cluster\na,b\n", "lacks the columns group"),
    ],
)
def test_what_is_no_membership_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        groups(tmp_path, text)


@pytest.mark.parametrize(
    ("fe_h", "error", "bad"),
    [
        ([0.0, 0.1, 0.29], 0.0, False),
        ([0.0, 0.1, 0.35], 0.0, True),
        ([0.0, 0.1, 0.35], np.nan, True),
        ([0.0, 0.1, 0.35], 0.1, False),
        ([0.0, 0.1, 0.5], 0.1, True),
    ],
)
def test_members_too_far_apart_for_their_errors_make_a_bad_group(fe_h, error, bad):
    found = bad_groups(np.array([9.0, *fe_h]), np.full(4, error), np.array([-1, 5, 5, 5]))
    assert [(one.group, one.rows, one.apart, one.odd) for one in found] == (
        [(5, (1, 3), pytest.approx(fe_h[2]), 3)] if bad else []
    )


def test_of_two_members_none_is_the_odd_one():
    (found,) = bad_groups(np.array([0.0, 0.5]), np.zeros(2), np.array([2, 2]))
    assert found.odd is None
    assert found.reason(["A", "B"]).startswith("A and B are 0.50 dex apart")
    assert "farther" not in found.reason(["A", "B"])


def test_check_describes_errors_and_groups_and_names_bad_ones(tmp_path):
    """M107's 2M16324652-1315120 is a dex from the others."""
    said = CliRunner().invoke(cli, ["survey", "check", str(GIANTS)], catch_exceptions=False).output
    assert "82 stars, in groups, 7514 pixels" in said
    assert "  pixels: errors in error, 13.5% masked\n" in said
    assert "  labels: median errors teff 70 K, logg 0.12 dex, fe_h 0.04 dex\n" in said
    assert "  groups: 8 of two stars or more, 76 stars in them\n" in said
    assert "group 4, M107, cannot be right: 2M16320891-1300161 and 2M16324652-1315120" in said
    assert "(2M16324652-1315120 is farther from the others)" in said
    plain = write(tmp_path / "s.h5", contents() | {"twin_of": None, "group": np.full(STARS, -1)})
    said = CliRunner().invoke(cli, ["survey", "check", str(plain)], catch_exceptions=False).output
    assert said.splitlines()[1:] == ["  groups: 0 of two stars or more, 0 stars in them"]

import re

import numpy as np
import pytest

from tests.training.small_surveys import contents, write
from training.surveys.chemistry import fit_chemistry
from training.surveys.csv_file import read_csv
from training.surveys.pairs import pair_groups, read_pairs
from training.surveys.survey import Survey


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return Survey.open(write(tmp_path_factory.mktemp("pairs") / "s.h5", contents(100)))


@pytest.fixture
def read(tmp_path, survey):
    def make(text: str | bytes) -> list[list[int]]:
        path = tmp_path / "pairs.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_pairs(path, survey).tolist()

    return make


EXPECTED = [[row, row + 1] for row in range(0, 60, 2)]
LINES = [f"S1-{first:03d},S1-{second:03d}" for first, second in EXPECTED]


@pytest.mark.parametrize(
    "text",
    [
        "star_id,twin_id\n" + "\n".join(LINES),
        "star_id,twin_id\r\n" + "\r\n".join(LINES) + "\r\n",
        "\ufeffstar_id,twin_id\n" + "\n".join(LINES),
        "STAR_ID; Twin_ID\n" + "\n".join(LINES).replace(",", " ; "),
        "star_id\ttwin_id\n" + "\n".join(LINES).replace(",", "\t") + "\n\n",
        "cluster,twin_id,star_id\n" + "\n".join(f"M67,{line.split(',')[1]},{line.split(',')[0]}" for line in LINES),
        "# from our cross-match\nstar_id,twin_id\n" + "\n".join(f'"{a}","{b}"' for a, b in (line.split(",") for line in LINES)),
    ],
    ids=["plain", "windows", "byte order mark", "semicolons and spaces", "tabs", "other columns", "comments and quotes"],
)  # fmt: skip
def test_pairs_are_read_as_tables_are_written(read, text):
    assert read(text) == EXPECTED


def test_a_pair_counts_once(read):
    turned = [",".join(reversed(line.split(","))) for line in LINES[:5]]
    assert read("star_id,twin_id\n" + "\n".join([*LINES, *LINES[:5], *turned])) == EXPECTED


def test_a_star_may_be_in_several_pairs(read):
    more = ["S1-000,S1-002", "S1-001,S1-002"]
    assert read("star_id,twin_id\n" + "\n".join([*LINES, *more])) == [*EXPECTED, [0, 2], [1, 2]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["S1-000,S1-000"], "a star is paired with itself: 1 (line 32: S1-000)"),
        (["S1-000,nobody", "no-one,S1-001"], "2 (line 32: nobody; line 33: no-one)"),
        (["S1-000,"], "a star's id is empty: 1 (line 32)"),
        (["S1-000"], "a star's id is empty: 1 (line 32)"),
        ([f"x{i},y{i}" for i in range(9)], "9 (line 32: x0, y0; line 33: x1, y1; line 34: x2, y2; line 35: x3, y3; line 36: x4, y4)"),
    ],
)  # fmt: skip
def test_wrong_lines_are_named(read, lines, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read("star_id,twin_id\n" + "\n".join([*LINES, *lines]))


def test_all_that_is_wrong_is_named_at_once(read):
    with pytest.raises(ValueError, match="cannot be used") as error:
        read("star_id,twin_id\n" + "\n".join([*LINES, "S1-000,S1-000", "nobody,S1-001"]))
    assert "paired with itself" in str(error.value)
    assert "nobody" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "lacks the columns star_id, twin_id in its first line"),
        ("", "lacks the columns star_id, twin_id"),
        ("star_id,twin_id\n" + "\n".join(LINES[:19]), "holds 19 pairs: a calibration takes 20 or more"),
        ("star_id,twin_id\n" + "\n".join(LINES[:15] * 2), "holds 15 pairs"),
        ("star_id,twin_id\n" + "\n".join(f"S1-000,S1-{i:03d}" for i in range(1, 40)), "all pairs belong to one group"),
        ("star_id,twin_id\n".encode("utf-16"), "is not UTF-8 text"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_named(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_pairs_that_share_stars_are_one_group():
    pairs = np.array([[8, 9], [0, 1], [2, 3], [9, 7], [4, 3], [7, 8]])
    assert pair_groups(pairs).tolist() == [0, 1, 2, 0, 2, 0]
    assert pair_groups(np.arange(40).reshape(-1, 2)).tolist() == list(range(20))


def test_other_tables_are_read_alike(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufeffTEFF;FE_H\n4500;0.1\n\n4600;n/a\n".encode())
    lines = read_csv(path, ("teff", "fe_h"))
    assert [line.number for line in lines] == [2, 4]
    assert lines[0].number_of("teff", path) == 4500
    with pytest.raises(ValueError, match=r"labels\.csv, line 4: fe_h is 'n/a', no number"):
        lines[1].number_of("fe_h", path)
    with pytest.raises(ValueError, match="lacks the columns"):
        fit_chemistry(path, {"teff": (4000.0, 5000.0)})

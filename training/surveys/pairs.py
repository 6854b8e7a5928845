"""Known pairs of chemically identical stars: the CSV file that names them, and the groups that they form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from model.errors import InputError
from training.surveys.csv_file import read_csv
from training.surveys.survey import Survey

PAIR_COLUMNS = "star_id", "twin_id"
FEWEST = 20
"""Least number of pairs for a calibration."""

LINES_NAMED = 5
"""Lines that the text of a problem names."""


def read_pairs(path: Path, survey: Survey) -> NDArray[np.int64]:
    """Rows (P, 2) of the pairs in a CSV file with columns star_id and twin_id (`training.surveys.csv_file`).

    Each pair counts once, whichever of its stars comes first. A star may be in several pairs.

    Raises
    ------
    InputError
        Naming the lines of unknown stars, of stars paired with themselves and of empty values; for fewer than
        `FEWEST` pairs, or pairs that all belong to one group.
    """
    row = {star_id: number for number, star_id in enumerate(survey.star_id)}
    problems: dict[str, list[str]] = {}
    pairs: dict[tuple[int, int], None] = {}
    for line, names in ((line.number, list(line.cells.values())) for line in read_csv(path, PAIR_COLUMNS)):
        unknown = [name for name in names if name not in row]
        if not all(names):
            problems.setdefault("a star's id is empty", []).append(f"line {line}")
        elif unknown:
            problems.setdefault(f"not in {survey.path}", []).append(f"line {line}: {', '.join(unknown)}")
        elif names[0] == names[1]:
            problems.setdefault("a star is paired with itself", []).append(f"line {line}: {names[0]}")
        else:
            first, second = row[names[0]], row[names[1]]
            if (second, first) not in pairs:
                pairs[first, second] = None
    if problems:
        found_lines = [
            f"{what}: {len(found)} ({'; '.join(found[:LINES_NAMED])})" for what, found in problems.items()
        ]
        raise InputError(
            f"{path} cannot be used:" + "".join(f"\n  {text}" for text in found_lines), found_lines
        )
    if len(pairs) < FEWEST:
        raise InputError(f"{path} holds {len(pairs)} pairs: a calibration takes {FEWEST} or more")
    rows = np.array(list(pairs), dtype=np.int64)
    if pair_groups(rows).max() == 0:
        raise InputError(f"{path}: all pairs belong to one group of stars, and a calibration takes two or more")
    return rows


def pair_groups(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group (P,) of each pair (P, 2): pairs connected by common stars are of one group.

    Groups are numbered in the order of their first pairs.
    """
    stars, chosen = np.unique(pairs, return_inverse=True)
    first, second = chosen.reshape(pairs.shape).T
    links = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(stars), len(stars)))
    member = connected_components(links, directed=False)[1][first]
    _, start, inverse = np.unique(member, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(start))[inverse], dtype=np.int64)

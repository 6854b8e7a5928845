"""Groups of stars that share their chemistry: the CSV that names them, and those that cannot be right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.spectra.grid import Array
from training.surveys.csv_file import read_csv
from training.surveys.pairs import PAIR_COLUMNS, pair_groups

APART = 0.3
"""Stars of one group differ by no more in [Fe/H] (dex), unless their errors explain it."""

SIGMAS = 3.0
"""Their errors explain this many standard deviations of a difference."""


@dataclass(frozen=True)
class BadGroup:
    """A group whose members cannot share their chemistry.

    Attributes
    ----------
    group : int
        Its number.
    rows : tuple of int
        The rows of the two members that differ most, the one poorer in metals first.
    apart : float
        Their difference in [Fe/H], dex.
    odd : int or None
        The row of the one of them that is farther from the median of all members; None for a group of two.
    """

    group: int
    rows: tuple[int, int]
    apart: float
    odd: int | None

    def reason(self, ids: Sequence[str]) -> str:
        """Why the group cannot be right, with the `ids` of all stars."""
        one, other = (ids[row] for row in self.rows)
        odd = "" if self.odd is None else f" ({ids[self.odd]} is farther from the others)"
        apart = f"{self.apart:.2f} dex apart in [Fe/H], more than {APART}"
        return f"{one} and {other} are {apart} and than their errors explain{odd}"


def bad_groups(fe_h: Array, errors: Array, group: NDArray[np.int64]) -> list[BadGroup]:
    """Groups with two members further apart in [Fe/H] than `APART` and than `SIGMAS` of their errors.

    Parameters
    ----------
    fe_h, errors : array (N,)
        [Fe/H] and its 1-sigma error, dex; an error that is NaN counts as 0.
    group : array of int (N,)
        The number of each star's group, -1 for none.
    """
    known = np.nan_to_num(errors)
    found = []
    for number in np.unique(group[group >= 0]).tolist():
        rows = np.flatnonzero(group == number)
        worst: tuple[float, int, int] | None = None
        for row in rows.tolist():
            apart = fe_h[rows] - fe_h[row]
            wrong = apart > np.maximum(APART, SIGMAS * np.hypot(known[rows], known[row]))
            if wrong.any():
                other = int(np.argmax(np.where(wrong, apart, -np.inf)))
                worst = max(worst or (0.0, 0, 0), (float(apart[other]), row, int(rows[other])))
        if worst is not None:
            away = np.abs(fe_h - np.median(fe_h[rows]))
            odd = None if len(rows) == 2 else max(worst[1:], key=lambda row: float(away[row]))
            found.append(BadGroup(number, worst[1:], worst[0], odd))
    return found


def read_groups(path: Path, key: Callable[[str], str]) -> dict[str, str]:
    """The group of each star in a CSV with columns star_id and group, or star_id and twin_id for pairs.

    Pairs that have a star in common are one group, which has the name of its first star.

    Parameters
    ----------
    path : Path
        The CSV (`training.surveys.csv_file`).
    key : function
        What two ids of one star have in common.

    Returns
    -------
    dict of str to str
        By the first id of each star, in the order of the lines.

    Raises
    ------
    InputError
        For an empty value, and for a star that is in two groups.
    """
    in_pairs = "twin_id" in _header(path)
    columns = PAIR_COLUMNS if in_pairs else ("star_id", "group")
    lines = read_csv(path, columns)
    if empty := [line.number for line in lines if not all(line.cells.values())]:
        raise InputError(f"{path}, line {empty[0]}: {' and '.join(columns)} must both be given")
    given = [(line.number, [line.cells[name] for name in columns]) for line in lines]
    first_id: dict[str, str] = {}
    if in_pairs:
        return _of_pairs([[first_id.setdefault(key(one), one) for one in pair] for _, pair in given])
    groups: dict[str, str] = {}
    for number, (star_id, name) in given:
        one = first_id.setdefault(key(star_id), star_id)
        if groups.setdefault(one, name) != name:
            raise InputError(f"{path}, line {number}: {star_id} is in {groups[one]} and in {name}")
    return groups


def _header(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return next((line.lower() for line in file if line.strip() and not line.startswith("#")), "")


def _of_pairs(pairs: Sequence[Sequence[str]]) -> dict[str, str]:
    """The groups that pairs of ids form."""
    if not pairs:
        return {}
    stars = list(dict.fromkeys(star_id for pair in pairs for star_id in pair))
    row = {star_id: index for index, star_id in enumerate(stars)}
    rows = np.array([[row[star_id] for star_id in pair] for pair in pairs], dtype=np.int64)
    names: dict[int, str] = {}
    groups: dict[str, str] = {}
    for group, pair in zip(pair_groups(rows).tolist(), pairs, strict=True):
        groups |= dict.fromkeys(pair, names.setdefault(group, pair[0]))
    return groups

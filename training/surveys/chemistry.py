"""Labels of real giants: their distribution, fitted to a table of APOGEE labels, and draws from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from training.emulator.emulator import CARBON_LIMIT
from training.surveys.csv_file import read_csv
from training.surveys.deconvolution import Mixture, deconvolve
from training.surveys.published_errors import HIGHEST_SNR, PUBLISHED, published_errors

Array = NDArray[np.float64]

SHIPPED = Path(__file__).with_name("chemistry.json")
FORMAT = "chemtwin-chemistry-1"

COMPONENTS = 4
FLOOR = 0.01
"""Smallest spread of real abundances in any direction, dex."""

OUTLIER = 5.0
BINS = 20

BRANCH = ("teff", "logg", "fe_h")
BRANCH_COMPONENTS = 3
BRANCH_FLOOR = np.array([10.0, 0.02, FLOOR])

FOLLOWERS: dict[str, tuple[str | None, float]] = {
    "V": ("Ni", 0.05),
    "Co": ("Ni", 0.05),
    "Cr": (None, 0.03),
    "P": ("Mg", 0.10),
    "Rb": (None, 0.10),
}
"""Elements that the table does not have: the [X/Fe] they follow (none: 0) and their scatter about it, dex."""

ROUNDS = 1000


@dataclass(frozen=True)
class Chemistry:
    """`abundances`, a mixture over PUBLISHED, and `branch`, one over BRANCH; `provenance` of both.

    `spreads` gives for each of PUBLISHED four standard deviations in dex: in the table, of the published
    errors, without the errors, and the last at given [Fe/H] and [Mg/Fe].
    """

    abundances: Mixture
    branch: Mixture
    spreads: dict[str, list[float]]
    provenance: dict[str, Any]

    @classmethod
    def load(cls, path: Path = SHIPPED) -> Chemistry:
        """Read a chemistry file, the shipped one by default. Raises InputError if it is something else."""
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is not a {FORMAT} file: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path} is not a {FORMAT} file")
        abundances, branch = (
            Mixture(*(np.array(content[name][key]) for key in ("weights", "means", "covariances")))
            for name in ("abundances", "branch")
        )
        return cls(abundances, branch, content["spreads"], content["provenance"])

    def save(self, path: Path) -> None:
        """Write a chemistry file, numbers to seven digits."""
        mixtures = {
            name: {"names": names, **{key: _rounded(values.tolist()) for key, values in vars(mixture).items()}}
            for name, names, mixture in (
                ("abundances", PUBLISHED, self.abundances),
                ("branch", BRANCH, self.branch),
            )
        }
        content = {"format": FORMAT, "provenance": self.provenance, "spreads": self.spreads, **mixtures}
        path.write_text(json.dumps(content) + "\n")

    def draw(
        self,
        generator: np.random.Generator,
        groups: int,
        members: int,
        names: tuple[str, ...],
        lo: Array,
        hi: Array,
    ) -> Array:
        """Labels (groups * members, len(names)) inside `lo` to `hi` (len(names),), group after group.

        All members of a group have one chemistry; each has its own Teff and logg, on the branch of the group's
        [Fe/H]. What falls outside the box or beyond CARBON_LIMIT is drawn again.
        """
        own = [names.index(name) for name in BRANCH[:2]]
        common = [i for i in range(len(names)) if i not in own]
        carbon, oxygen, iron = (names.index(name) for name in ("C", "O", "fe_h"))

        def chemistry(rows: NDArray[np.int64]) -> Array:
            drawn = np.tile(lo, (len(rows), 1))
            drawn[:, common] = self.abundances_of(generator, len(rows), [names[i] for i in common])
            return drawn

        def covered(drawn: Array) -> NDArray[np.bool_]:
            no_carbon_star: NDArray[np.bool_] = drawn[:, carbon] - drawn[:, oxygen] <= CARBON_LIMIT
            return _within(drawn, lo, hi) & no_carbon_star

        def on_branch(rows: NDArray[np.int64]) -> Array:
            return self.branch.draw_given_last(generator, labels[rows, iron])

        labels = np.repeat(_redraw(chemistry, covered, groups), members, axis=0)
        labels[:, own] = _redraw(on_branch, lambda drawn: _within(drawn, lo[own], hi[own]), len(labels))
        return labels

    def table(self) -> str:
        """The spreads as a table in Markdown."""
        columns = ("dex", "table", "published errors", "without the errors", "at given [Fe/H] and [Mg/Fe]")
        head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
        rows = (
            f"| {'[Fe/H]' if name == 'fe_h' else f'[{name}/Fe]'} | "
            + " | ".join(f"{value:.3f}" for value in values)
            + " |"
            for name, values in self.spreads.items()
        )
        return head + "\n".join(rows)

    def abundances_of(self, generator: np.random.Generator, count: int, names: list[str]) -> Array:
        """Draw [Fe/H] and [X/Fe] (count, len(names)) in dex, whether an emulator covers them or not."""
        drawn = dict(zip(PUBLISHED, self.abundances.draw(generator, count).T, strict=True))
        for name, (leader, scatter) in FOLLOWERS.items():
            centre = 0.0 if leader is None else drawn[leader]
            drawn[name] = centre + scatter * generator.standard_normal(count)
        return np.column_stack([drawn[name] for name in names])


def fit_chemistry(table: Path, ranges: dict[str, tuple[float, float]]) -> Chemistry:
    """The distribution behind a table of labels (CSV: teff, logg, fe_h, c_fe, n_fe and so on; K and dex).

    Abundances come from the stars inside `ranges` (K, dex) that are no outliers; the branch from all stars.
    Errors are APOGEE's at HIGHEST_SNR; Teff and logg are taken as they are.
    """
    columns = ["teff", "logg", "fe_h", *(f"{name.lower()}_fe" for name in PUBLISHED[1:])]
    stars = _read(table, columns)
    inside = np.ones(len(stars), dtype=bool)
    for name, (low, high) in ranges.items():
        values = stars[:, columns.index(name)]
        inside &= (values >= low) & (values <= high)
    chosen = stars[inside]
    chosen = chosen[_usual(chosen[:, 2:])]
    measured, errors = chosen[:, 2:], published_errors(chosen[:, 0], chosen[:, 2], HIGHEST_SNR)
    abundances = deconvolve(measured, errors, COMPONENTS, np.full(len(PUBLISHED), FLOOR))
    no_errors = np.zeros((len(stars), 2))
    fe_h_errors = published_errors(stars[:, 0], stars[:, 2], HIGHEST_SNR)[:, :1]
    branch = deconvolve(stars[:, :3], np.hstack([no_errors, fe_h_errors]), BRANCH_COMPONENTS, BRANCH_FLOOR)
    variances = (
        measured.var(axis=0),
        (errors**2).mean(axis=0),
        np.diag(abundances.covariance()),
        np.diag(abundances.covariance_given([PUBLISHED.index("fe_h"), PUBLISHED.index("Mg")])),
    )
    spreads = np.sqrt(np.maximum(variances, 0.0)).T.round(4)
    provenance = {
        "table": table.name,
        "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "stars": len(stars),
        "stars in the ranges": int(inside.sum()),
        "stars without outliers": len(chosen),
    }
    return Chemistry(abundances, branch, dict(zip(PUBLISHED, spreads.tolist(), strict=True)), provenance)


def _read(table: Path, columns: list[str]) -> Array:
    """Some columns (N, len(columns)) of a CSV file."""
    lines = read_csv(table, columns)
    return np.array([[line.number_of(name, table) for name in columns] for line in lines])


def _usual(measured: Array) -> NDArray[np.bool_]:
    """Which stars (N,) have no [X/Fe] beyond OUTLIER robust deviations of its median at their [Fe/H].

    `measured` (N, 14) is ordered as PUBLISHED; medians and deviations (1.4826 times the median absolute one)
    are of BINS equally full bins of [Fe/H].
    """
    usual = np.ones(len(measured), dtype=bool)
    for rows in np.array_split(np.argsort(measured[:, 0], kind="stable"), BINS):
        ratios = measured[rows, 1:]
        offset = np.abs(ratios - np.median(ratios, axis=0))
        usual[rows] = (offset <= OUTLIER * 1.4826 * np.median(offset, axis=0)).all(axis=1)
    return usual


def _within(rows: Array, lo: Array, hi: Array) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.all((rows >= lo) & (rows <= hi), axis=1)
    return inside


def _redraw(
    draw: Callable[[NDArray[np.int64]], Array], accept: Callable[[Array], NDArray[np.bool_]], count: int
) -> Array:
    """Rows (count, D) of `draw`, each drawn until it is accepted."""
    rows = draw(np.arange(count))
    for _ in range(ROUNDS):
        rejected = np.flatnonzero(~accept(rows))
        if len(rejected) == 0:
            return rows
        rows[rejected] = draw(rejected)
    raise InputError("the box has next to no room for this chemistry")


def _rounded(values: Any) -> Any:
    """Nested lists of numbers to seven digits."""
    return [_rounded(value) for value in values] if isinstance(values, list) else float(f"{values:.7g}")

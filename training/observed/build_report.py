"""The report of a survey that was built: what was taken, what was refused and why, as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array
from model.spectra.parameters import PARAMETER_UNITS
from training.evaluation import figures
from training.reports.html_page import publish
from training.reports.markdown import table
from training.surveys.groups import BadGroup

PAGE = "survey"
WARNED = "warned"
"""The outcome that counts taken spectra with a warning once more."""

OF_ROWS = ("no_file", "repeated_row")
"""Outcomes of rows of the table; all others are of spectra."""

NAMED = 20
"""Groups and stars of each kind that the page names; the JSON has all."""


@dataclass(frozen=True)
class BuiltSurvey:
    """A survey of N stars that was built.

    Attributes
    ----------
    survey, folder, labels : Path
        The survey's file, the folder of its spectra, and the table of labels or None.
    metals : str
        The table's column of the metallicity, "" without a table.
    flags : mapping of str to sequence of str
        The flags that exclude stars, by column.
    min_snr : float
        The lowest S/N.
    spectra : int
        How many spectra were read.
    star_ids : list of str
        The stars' ids (N).
    numbers : mapping of str to array (N,)
        Their labels, errors, position and S/N.
    reasons : mapping of str to str
        What each outcome but `taken` means.
    outcomes : mapping of str to int
        The numbers of spectra and rows by outcome.
    first : mapping of str to list of str
        The first of each.
    group : array of int (N,)
        The number of each star's group, -1 for none.
    names : sequence of str
        The groups' names.
    small, missing : sequence of str
        Groups of which one star only is in the survey, and stars that were named and are not in it.
    bad : list of BadGroup
        Groups that cannot be right.
    """

    survey: Path
    folder: Path
    labels: Path | None
    metals: str
    flags: Mapping[str, Sequence[str]]
    min_snr: float
    spectra: int
    star_ids: list[str]
    numbers: Mapping[str, Array]
    reasons: Mapping[str, str]
    outcomes: Mapping[str, int]
    first: Mapping[str, list[str]]
    group: NDArray[np.int64]
    names: Sequence[str]
    small: Sequence[str]
    missing: Sequence[str]
    bad: list[BadGroup]

    @property
    def stars(self) -> int:
        """How many stars the survey has."""
        return len(self.star_ids)

    def bad_groups(self) -> Iterator[str]:
        """Lines on the groups that cannot be right."""
        for bad in self.bad:
            yield f"{self.names[bad.group]} cannot be right: {bad.reason(self.star_ids)}"


def write_report(folder: Path, built: BuiltSurvey) -> Path:
    """Write survey.html, survey.md and survey.json to `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{PAGE}.json").write_text(json.dumps(_summary(built), indent=1) + "\n")
    sections = [
        f"# Survey built from {built.folder.name}",
        f"{built.stars} stars of {built.spectra} spectra are in {built.survey.name}. `spectra.csv` has the "
        "outcome of every spectrum and of every row of the table.",
        "## Refused",
        _refused(built),
    ]
    if built.stars:
        name, alt = figures.survey_stars(folder, built.numbers)
        sections += ["## Stars", f"![{alt}]({name})", _ranges(built)]
        if warned := built.outcomes.get(WARNED):
            sections += [f"{warned} stars have a warning: {'; '.join(built.first[WARNED])}."]
    sections += ["## Groups", _groups(built), "## Cuts", _cuts(built)]
    publish(folder, PAGE, "\n\n".join(sections))
    return folder / f"{PAGE}.html"


def _summary(built: BuiltSurvey) -> dict[str, Any]:
    sizes = np.bincount(built.group[built.group >= 0], minlength=len(built.names)).tolist()
    return {
        "survey": built.survey.name,
        "stars": built.stars,
        "spectra": built.spectra,
        "outcomes": dict(built.outcomes),
        "first": dict(built.first),
        "metals": built.metals,
        "min_snr": built.min_snr,
        "flags": {name: list(bits) for name, bits in built.flags.items()},
        "quantiles": {name: _quantiles(built.numbers[name]) for name in (*PARAMETER_UNITS, "snr")},
        "groups": dict(zip(built.names, sizes, strict=True)),
        "groups_of_one_star": list(built.small),
        "named_stars_not_in_the_survey": list(built.missing),
        "bad_groups": [
            {
                "group": built.names[bad.group],
                "stars": [built.star_ids[row] for row in bad.rows],
                "apart": round(bad.apart, 4),
            }
            for bad in built.bad
        ],
    }


def _quantiles(values: Array) -> list[float]:
    """The least, the 5 %, 50 % and 95 % quantiles, and the largest; none without values."""
    return [round(float(one), 4) for one in np.quantile(values, (0, 0.05, 0.5, 0.95, 1))] if len(values) else []


def _refused(built: BuiltSurvey) -> str:
    rows = [
        [text, "rows" if code in OF_ROWS else "spectra", str(built.outcomes[code]), _cell(built.first[code])]
        for code, text in built.reasons.items()
        if code in built.outcomes
    ]
    return table(["reason", "of", "number", "first"], rows) if rows else "Nothing was refused."


def _cell(lines: Sequence[str]) -> str:
    """Lines of text in a cell of a table."""
    return "; ".join(line.replace("|", "\\|") for line in lines)


def _ranges(built: BuiltSurvey) -> str:
    rows = []
    for name, unit in (*PARAMETER_UNITS.items(), ("snr", "")):
        error = built.numbers.get(f"{name}_err", np.full(1, np.nan))
        known = f"{np.nanmedian(error):.3g}" if np.isfinite(error).any() else "-"
        quantiles = (f"{one:.4g}" for one in _quantiles(built.numbers[name]))
        rows.append([f"{name} ({unit.split()[0]})" if unit else name, *quantiles, known])
    return table(["", "least", "5 %", "median", "95 %", "largest", "median error"], rows)


def _groups(built: BuiltSurvey) -> str:
    if not built.names and not built.missing:
        return "No group was named."
    sizes = np.bincount(built.group[built.group >= 0], minlength=len(built.names))
    parts = [f"{len(built.names)} groups with {int(sizes.sum())} stars."]
    if built.names:
        rows = []
        for number in np.argsort(-sizes, kind="stable")[:NAMED].tolist():
            fe_h = built.numbers["fe_h"][built.group == number]
            rows.append([built.names[number], str(sizes[number]), f"{fe_h.mean():+.2f}", f"{np.ptp(fe_h):.2f}"])
        parts.append(table(["group", "stars", "mean [Fe/H]", "range"], rows))
    parts += [f"- {line}" for line in list(built.bad_groups())[:NAMED]]
    for names, text in (
        (built.small, "groups have one star in the survey, which is in no group"),
        (built.missing, "stars of groups are not in the survey"),
    ):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            parts.append(f"{len(names)} {text}: {', '.join(names[:NAMED])}{more}.")
    return "\n\n".join(parts)


def _cuts(built: BuiltSurvey) -> str:
    rows = [["S/N", f"at least {built.min_snr:g}"]]
    rows += [[name.upper(), f"none of {', '.join(bits)}"] for name, bits in built.flags.items()]
    if built.metals:
        rows.append(["[Fe/H]", f"the table's {built.metals.upper()}"])
    return table(["", ""], rows)

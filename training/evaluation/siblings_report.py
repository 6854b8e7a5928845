"""The page of `chemtwin model siblings --report`: scores, p_same as a figure, stars that stand alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from model.similarity.p_same import P_SAME_LIMIT
from model.spectra.grid import Array
from training.evaluation import figures
from training.evaluation.siblings import FAR, Members, Scores, lonely
from training.reports.html_page import publish
from training.reports.markdown import table

PAGE = "siblings"

SCORES = (
    "- The doppelganger rate is the fraction of other pairs that are closer than the median pair of siblings.\n"
    f"- Siblings accepted: the fraction of siblings with `p_same` above {P_SAME_LIMIT}.\n"
    f"- Far accepted: the same of pairs of groups more than {FAR} dex apart in [Fe/H]."
)


def write(
    folder: Path,
    stars: str,
    members: Members,
    groups: Mapping[str, str],
    rows: Mapping[str, Scores],
    same: Mapping[str, Array],
) -> Path:
    """Write the page.

    Parameters
    ----------
    folder : Path
        Where to; it is made.
    stars : str
        What the stars are.
    members : Members
        The N members of groups.
    groups : mapping of str to str
        The name of each star's group.
    rows : mapping of str to Scores
        The scores of each way to compare stars.
    same : mapping of str to array (N, N)
        The p_same of each model.

    Returns
    -------
    Path
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = [
        f"# Siblings among {stars}",
        f"{len(members.group)} stars in {len(np.unique(members.group))} groups. Where a model or a metric was "
        "learned from siblings, a star's figures come from the one learned without its group.",
        scores_table(rows),
        SCORES,
    ]
    for name, probability in same.items():
        sections += [
            f"## {name}",
            p_same_figure(folder, name, members, probability),
            _lonely(members, groups, probability),
        ]
    publish(folder, PAGE, "\n\n".join(sections))
    return folder / f"{PAGE}.html"


def scores_table(rows: Mapping[str, Scores]) -> str:
    """The scores of several ways to compare stars, as Markdown."""
    head = ("", "nearest", "AUC", "doppelganger rate", "siblings accepted", "median p_same", "far accepted")
    return table(head, [[name, *_cells(row)] for name, row in rows.items()])


def _cells(row: Scores) -> list[str]:
    rest = [(row.accepted, "{:.3f}"), (row.median, "{:.2f}"), (row.far_accepted, "{:.3f}")]
    cells = [f"{row.nearest:.3f}", f"{row.auc:.3f}", f"{100 * row.doppelganger_rate:.2f} %"]
    return cells + ["-" if value is None else form.format(value) for value, form in rest]


def p_same_figure(folder: Path, name: str, members: Members, same: Array) -> str:
    """The histogram of p_same, of siblings and of others, as Markdown."""
    siblings = (members.group[:, None] == members.group) & ~np.eye(len(members.group), dtype=bool)
    others = members.group[:, None] != members.group
    file = f"p_same-{'-'.join(name.replace(',', '').split())}.png"
    picture = figures.p_same(folder, file, name, same[siblings], same[others])
    return f"![{picture[1]}]({picture[0]})"


def _lonely(members: Members, groups: Mapping[str, str], same: Array) -> str:
    """The stars that no sibling accepts, with their labels."""
    alone = set(lonely(members, same))
    if not alone:
        return "Every star is accepted by at least one sibling."
    rows = [
        [star_id, groups[star_id], *(f"{value:.{digits}f}" for value, digits in _labels(members, row))]
        for row, star_id in enumerate(members.star_ids)
        if star_id in alone
    ]
    head = ("star", "group", "Teff (K)", "log g", "[Fe/H]", "[Fe/H] - group's median")
    return f"Stars that no sibling accepts: {len(rows)}.\n\n{table(head, rows)}"


def _labels(members: Members, row: int) -> list[tuple[float, int]]:
    star, fe_h = members.spectra[row].parameters, members.fe_h[0]
    median = np.median(fe_h[members.group == members.group[row]])
    return [(star.teff, 0), (star.logg, 2), (star.fe_h, 2), (float(star.fe_h - median), 2)]

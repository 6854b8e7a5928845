"""What became of each spectrum and each row of the table: a CSV of all, and their numbers by reason."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from app.bulk.survey_build.merge import Selection, Spectra
from app.bulk.survey_build.star_labels import StarLabels

LISTED = "spectra.csv"
HEADER = ("file", "star_id", "outcome", "text")
TAKEN, WARNED = "taken", "warned"
SHOWN = 5
"""Examples of each outcome that the page and the command show."""

Line = tuple[str, str, str, str]


@dataclass(frozen=True)
class Outcomes:
    """The numbers of spectra and rows by outcome, and the first of each.

    An outcome is a key of `refused.REASONS`, `taken`, and for taken spectra with a warning also `warned`.
    """

    counts: dict[str, int]
    first: dict[str, list[str]]


def write_outcomes(
    folder: Path, paths: Sequence[Path], spectra: Spectra, selection: Selection, labels: StarLabels | None
) -> Outcomes:
    """Write the CSV of all outcomes to `folder`, block by block, and count them."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    first: dict[str, list[str]] = {}
    with (folder / LISTED).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for line in chain(_of_spectra(paths, spectra, selection), _of_rows(spectra, labels)):
            rows.writerow(line)
            name, star_id, outcome, text = line
            for counted in (outcome, WARNED) if outcome == TAKEN and text else (outcome,):
                counts[counted] += 1
                if len(shown := first.setdefault(counted, [])) < SHOWN:
                    shown.append(": ".join(part for part in (name or star_id, text) if part))
    return Outcomes(dict(counts), first)


def _of_spectra(paths: Sequence[Path], spectra: Spectra, selection: Selection) -> Iterator[Line]:
    for path, start in zip(paths, spectra.starts[:-1].tolist(), strict=True):
        with np.load(path) as block:
            columns = [
                [one.decode() for one in block[name].tolist()] for name in ("name", "star_id", "reason", "text")
            ]
        for index, (name, star_id, reason, text) in enumerate(zip(*columns, strict=True), start):
            outcome, why = selection.refused.get(index, (reason or TAKEN, text))
            yield name, star_id, outcome, why


def _of_rows(spectra: Spectra, labels: StarLabels | None) -> Iterator[Line]:
    """Rows of the table without a spectrum."""
    if labels is None:
        return
    used = set(spectra.row.tolist()) - {-1}
    stars = {labels.star_id(row) for row in used}
    for row in (row for row in range(len(labels)) if row not in used):
        star_id = labels.star_id(row)
        again = star_id in stars or not labels.is_first(row)
        yield "", star_id, "repeated_row" if again else "no_file", labels.row_name(row)

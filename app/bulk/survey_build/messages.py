"""What `chemtwin survey build` prints at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from app.bulk.survey_build.advice import next_steps
from training.observed.build_report import OF_ROWS, WARNED, BuiltSurvey
from training.observed.globular import WHY, globular_groups


def messages(built: BuiltSurvey, report: Path) -> Iterator[str]:
    """Lines on what the survey has, what was refused, groups that cannot be right, and what to do next."""
    grouped = int((built.group >= 0).sum())
    groups = f", {grouped} of them in {len(built.names)} groups" if grouped else ""
    yield f"{built.survey}: {built.stars} stars{groups}, from {built.spectra} spectra"
    yield from not_used(built)
    if warned := built.outcomes.get(WARNED):
        yield f"  {warned} taken with a warning ({_example(built, WARNED)})"
    for line in built.bad_groups():
        yield f"warning: group {line}; it is in the survey as it is"
    if globular := globular_groups(built.numbers["fe_h"], built.group):
        names = ", ".join(built.names[number] for number in globular)
        yield f"{names}: {WHY}: no siblings, and chemtwin model adapt --clusters leaves them out"
    if built.missing:
        yield f"warning: {len(built.missing)} stars of groups are not in the survey, {built.missing[0]} for one"
    yield f"report: {report / 'survey.html'}; each spectrum and its outcome: {report / 'spectra.csv'}"
    yield from next_steps(built)


def not_used(built: BuiltSurvey) -> Iterator[str]:
    """Lines on why spectra and rows are not in the survey: number, reason and first example of each."""
    for code, text in built.reasons.items():
        if count := built.outcomes.get(code):
            one, many = ("row", "rows") if code in OF_ROWS else ("spectrum", "spectra")
            yield f"  {count} {one if count == 1 else many} not used: {text} ({_example(built, code)})"


def _example(built: BuiltSurvey, outcome: str) -> str:
    """The first spectrum or row of an outcome, on one line."""
    return " ".join(built.first[outcome][0].split())

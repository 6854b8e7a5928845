"""What `chemtwin survey build` prints at its end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.bundle import BRANCH, REFERENCE, load_model
from model.spectra.parameters import PARAMETER_UNITS, Parameters
from training.fitting.enough_stars import (
    FEWEST_GROUPS,
    FEWEST_GROUPS_TO_FIT,
    FEWEST_TO_ADAPT,
    FEWEST_TO_TRAIN,
)
from training.observed.build_report import OF_ROWS, WARNED, BuiltSurvey


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
    if built.missing:
        yield f"warning: {len(built.missing)} stars of groups are not in the survey, {built.missing[0]} for one"
    yield f"report: {report / 'survey.html'}; each spectrum and its outcome: {report / 'spectra.csv'}"
    yield from _next(built)


def not_used(built: BuiltSurvey) -> Iterator[str]:
    """Lines on why spectra and rows are not in the survey: number, reason and first example of each."""
    for code, text in built.reasons.items():
        if count := built.outcomes.get(code):
            one, many = ("row", "rows") if code in OF_ROWS else ("spectrum", "spectra")
            yield f"  {count} {one if count == 1 else many} not used: {text} ({_example(built, code)})"


def _example(built: BuiltSurvey, outcome: str) -> str:
    """The first spectrum or row of an outcome, on one line."""
    return " ".join(built.first[outcome][0].split())


def _next(built: BuiltSurvey) -> Iterator[str]:
    from training.observed.enough_to_adapt import EnoughToAdapt  # torch's two seconds, at the end only

    survey = shlex.quote(str(built.survey))
    groups = int((np.bincount(built.group[built.group >= 0]) > 1).sum())
    if built.stars >= FEWEST_TO_TRAIN:
        if groups < FEWEST_GROUPS_TO_FIT:
            yield (
                f"The survey has {groups} groups. From {FEWEST_GROUPS_TO_FIT} on a model is fitted to them, "
                "and finds more twins."
            )
        yield f"next: chemtwin model train {survey} --out model.safetensors"
        return
    yield f"{built.stars} stars are too few to train a model on: that takes about {FEWEST_TO_TRAIN}."
    reference = load_model(REFERENCE)
    labels = np.stack([built.numbers[name] for name in PARAMETER_UNITS], axis=1).tolist()
    usable = np.array([not reference.outside(Parameters(*star)) for star in labels])
    enough, model = EnoughToAdapt.of(usable, built.group), shlex.quote(_short(REFERENCE))
    yield (
        f"chemtwin model adapt takes {FEWEST_TO_ADAPT} stars in the range of {model}: "
        f"the survey has {enough.stars}."
    )
    if enough.stars < built.stars:
        branch = load_model(BRANCH)
        known = sum(not branch.outside(Parameters(*star)) for star in labels)
        yield (
            f"The others can have no verdict with it. {_short(BRANCH)}, the model of the whole giant branch, "
            f"knows {known}."
        )
    if len(built.names):
        yield (
            f"With siblings it takes {FEWEST_GROUPS} groups of two such stars or more, and {FEWEST_TO_ADAPT} "
            f"such stars with any group left out: the survey has {enough.groups} groups, and "
            f"{enough.without_a_group} stars."
        )
    if enough.problem():
        yield "For stars of APOGEE the model that ships is adapted already."
        yield f"next: chemtwin catalogue ingest {survey}"
    else:
        clusters = " --clusters" if not enough.problem_without_a_group() else ""
        if clusters:
            yield (
                "With --clusters all stars of a group are siblings. Are all members, and of open clusters? "
                "Take the others out of the groups first."
            )
        out = shlex.quote(str(built.survey.with_name("adapted.safetensors")))
        yield f"next: chemtwin model adapt {model} {survey}{clusters} --out {out}"


def _short(model: Path) -> str:
    """A shipped model by its path from the folder of a checkout, where it is there."""
    short = Path(model.parent.name, model.name)
    return str(short if short.exists() and short.samefile(model) else model)

"""What `chemtwin survey build` prints at its end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from model.bundle import REFERENCE
from training.fitting.enough_stars import FEWEST_GROUPS, FEWEST_TO_ADAPT, FEWEST_TO_TRAIN
from training.observed.build_report import OF_ROWS, BuiltSurvey


def messages(built: BuiltSurvey, report: Path) -> Iterator[str]:
    """Lines on what the survey has, what was refused, groups that cannot be right, and what to do next."""
    grouped = int((built.group >= 0).sum())
    groups = f", {grouped} of them in {len(built.names)} groups" if grouped else ""
    yield f"{built.survey}: {built.stars} stars{groups}, from {built.spectra} spectra"
    for code, text in built.reasons.items():
        if code in built.outcomes:
            yield f"  {built.outcomes[code]} {'rows' if code in OF_ROWS else 'spectra'} not used: {text}"
    for line in built.bad_groups():
        yield f"warning: group {line}"
    if built.missing:
        yield f"warning: {len(built.missing)} stars of groups are not in the survey, {built.missing[0]} for one"
    yield f"report: {report / 'survey.html'}; each spectrum and its outcome: {report / 'spectra.csv'}"
    yield from _next(built)


def _next(built: BuiltSurvey) -> Iterator[str]:
    survey = shlex.quote(str(built.survey))
    if built.stars >= FEWEST_TO_TRAIN:
        yield f"next: chemtwin model train {survey} --out model.safetensors"
        return
    yield f"{built.stars} stars are too few to train a model on: that takes about {FEWEST_TO_TRAIN}."
    if built.stars < FEWEST_TO_ADAPT:
        yield f"They are too few to adapt one as well: that takes {FEWEST_TO_ADAPT} inside its range."
        return
    clusters = " --clusters" if len(built.names) >= FEWEST_GROUPS else ""
    model, out = shlex.quote(str(_reference())), shlex.quote(str(built.survey.with_name("adapted.safetensors")))
    yield f"Adapt one that is trained: chemtwin model adapt {model} {survey}{clusters} --out {out}"


def _reference() -> Path:
    """The reference model, by its short path from the folder of a checkout."""
    short = Path(REFERENCE.parent.name, REFERENCE.name)
    return short if short.exists() and short.samefile(REFERENCE) else REFERENCE

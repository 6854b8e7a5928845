"""The surveys that a model was made with, as its card records them, so that it is never measured on them.

A card records each survey's seed, where it has one, and digests of 32 of its spectra, the smallest. They depend
on the spectra alone, not on their order, ids or labels. A survey with a fraction f of the spectra is
recognised with a probability of 1 - (1 - f)^32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.methods.base import Model
from training.surveys.survey import Survey
from training.surveys.survey_check import named

SAMPLED = 32
SEED, SPECTRA = "_seed", "_spectra"


def record(survey: Survey, role: str = "survey") -> dict[str, Any]:
    """The entries of a survey in a card's training record: `<role>_seed` and `<role>_spectra`."""
    smallest = np.unique(survey.digests)[:SAMPLED]
    return {role + SEED: survey.seed, role + SPECTRA: " ".join(f"{digest:016x}" for digest in smallest)}


def check_unused(model: Model, label: str, survey: Survey) -> None:
    """Raise InputError for a survey that `model`, called `label`, was trained, selected or calibrated on.

    All of the card's training record counts, that of a model it was made from too.
    """
    entries = list(_entries(model.card.training))
    why = "a model cannot be measured on what it was made with"
    if survey.seed is not None and survey.seed in {value for key, value in entries if key.endswith(SEED)}:
        raise InputError(
            f"{survey.path} has the seed of a survey that {label} was trained or selected on, {survey.seed}: "
            f"{why}"
        )
    sampled = [int(word, 16) for key, value in entries if key.endswith(SPECTRA) for word in value.split()]
    same = np.isin(survey.digests, np.array(sampled, dtype=np.uint64))
    if same.any():
        raise InputError(
            f"{survey.path} holds spectra that {label} was trained or selected on, among them those of "
            f"{_named(same, survey)}: {why}"
        )


def check_apart(survey: Survey, other: Survey, what: str) -> None:
    """Raise InputError if any spectrum of `survey` is one of `other`'s; `what` describes `other`."""
    same = np.isin(survey.digests, other.digests)
    if same.all():
        raise InputError(f"{survey.path} is {what}: it holds the same spectra as {other.path}")
    if same.any():
        raise InputError(
            f"{survey.path} holds spectra of {what}, {other.path}: those of {_named(same, survey)}"
        )


def _named(same: NDArray[np.bool_], survey: Survey) -> str:
    return named([survey.star_id[int(row)] for row in np.flatnonzero(same)])


def _entries(training: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and value of a training record and of those within it."""
    for key, value in training.items():
        if isinstance(value, dict):
            yield from _entries(value)
        else:
            yield key, value

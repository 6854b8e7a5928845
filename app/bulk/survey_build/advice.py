"""Which model a survey that was built needs: one that ships as it is, adapted, or one of the survey's own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.bulk.readers.open_stars import open_stars
from app.bulk.readers.star_reader import InputFiles, RejectedStar
from app.inference.drift import MOST_OUTSIDE
from app.settings import read_settings
from model.bundle import BRANCH, SHIPPED, load_model
from model.methods.base import Model
from model.spectra.parameters import PARAMETER_UNITS, Parameters
from model.spectra.spectrum import Spectrum, prepare_all
from training.fitting.enough_stars import (
    FEWEST_GROUPS,
    FEWEST_GROUPS_TO_FIT,
    FEWEST_TO_ADAPT,
    FEWEST_TO_TRAIN,
)
from training.observed.build_report import BuiltSurvey
from training.observed.globular import adaptable

ENOUGH = 0.9
"""The default model is taken if it knows so many of the stars that the model of the giant branch knows."""

BLOCKS, BLOCK = 10, 16
"""Stars of which spectra are compared with a model's: so many blocks across the survey, of so many stars."""


def next_steps(built: BuiltSurvey) -> Iterator[str]:
    """Lines on the model that fits a survey, and the next command."""
    survey = shlex.quote(str(built.survey))
    labels = np.stack([built.numbers[name] for name in PARAMETER_UNITS], axis=1).tolist()
    models = [load_model(path) for path in (SHIPPED, BRANCH)]
    default, branch = (np.array([not model.outside(Parameters(*star)) for star in labels]) for model in models)
    if not (default | branch).any():
        yield "no model that ships knows the Teff, log g and [Fe/H] of any star: train one of their own"
        return
    narrow = default.sum() >= ENOUGH * branch.sum()
    model, known = (models[0], default) if narrow else (models[1], branch)
    name = shlex.quote(_short(SHIPPED if narrow else BRANCH))
    yield (
        f"{_short(SHIPPED)} knows the Teff, log g and [Fe/H] of {default.sum()} of the {built.stars} stars, "
        f"{_short(BRANCH)} of {branch.sum()}: take {name}"
    )
    (unlike, checked), (far, of_far) = _unlike(model, built.survey)
    like = unlike <= MOST_OUTSIDE * checked
    least, greatest = model.card.tested_fe_h or (-np.inf, np.inf)
    if checked:
        yield (
            f"of {checked} spectra with [Fe/H] near {least:.2f} to {greatest:.2f}, where it was tested, "
            f"{unlike} are unlike its own: {'use it as it is for these' if like else 'adapt it to them'}"
        )
    if of_far:
        yield f"of {of_far} farther away {far} are: do not rely on verdicts on such stars"
    if like:
        settings = "CHEMTWIN_STORE_SPECTRA=true " + ("" if narrow else f"CHEMTWIN_MODEL={name} ")
        yield f"next, and chemtwin serve with the same settings: {settings}chemtwin catalogue ingest {survey}"
    if built.stars >= FEWEST_TO_TRAIN:
        groups = int((np.bincount(built.group[built.group >= 0]) > 1).sum())
        if groups < FEWEST_GROUPS_TO_FIT:
            yield (
                f"the survey has {groups} groups; from {FEWEST_GROUPS_TO_FIT} on a training is fitted to them, "
                "and finds more twins"
            )
        yield f"{'or' if like else 'next'}: chemtwin model train {survey} --out model.safetensors"
    elif not like:
        yield from _adapt(built, name, known)
        yield f"training a model on the survey alone takes about {FEWEST_TO_TRAIN} stars"


def _adapt(built: BuiltSurvey, name: str, known: NDArray[np.bool_]) -> Iterator[str]:
    """Lines on how to adapt the model `name`, which knows the stars `known` (N,)."""
    from training.observed.enough_to_adapt import EnoughToAdapt  # torch's two seconds, where it is needed only

    good = adaptable(built.numbers["fe_h"], built.group)
    enough = EnoughToAdapt.of(known[good], built.group[good])
    if enough.problem():
        yield f"adapting a model takes {FEWEST_TO_ADAPT} stars in its range: the survey has {enough.stars}"
        return
    if built.names:
        yield (
            f"adapting with siblings takes {FEWEST_GROUPS} groups of two stars in its range or more, and "
            f"{FEWEST_TO_ADAPT} such stars with any group left out: the survey has {enough.groups} groups, and "
            f"{enough.without_a_group} stars"
        )
    clusters = "" if enough.problem_without_a_group() else " --clusters"
    if clusters:
        yield "--clusters takes the stars of a group for siblings: take those that are no members out first"
    out = shlex.quote(str(built.survey.with_name("adapted.safetensors")))
    yield f"next: chemtwin model adapt {name} {shlex.quote(str(built.survey))}{clusters} --out {out}"


def _unlike(model: Model, survey: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of some stars in a model's range: how many have spectra unlike its own, and how many were looked at.

    Then the same of stars of an [Fe/H] on which it was not tested. They are not among the first.
    """
    reader = open_stars(InputFiles.of(survey, None), read_settings(None, None), model.card.units)
    starts = np.unique(np.linspace(0, max(0, len(reader) - BLOCK), BLOCKS).astype(int)).tolist()
    rows = sorted({row for start in starts for row in range(start, min(start + BLOCK, len(reader)))})
    blocks = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    read = [star for block in blocks for star in reader.read(slice(int(block[0]), int(block[-1]) + 1))]
    observations = [star.job.observation for star in read if not isinstance(star, RejectedStar)]
    prepared = prepare_all(observations, model.grid, model.normaliser)
    known = [s for s in prepared if isinstance(s, Spectrum) and not model.outside(s.parameters)]
    unlike = np.array([not found.in_domain for found in model.embed(known)], np.bool_)
    tested = model.tested(np.array([s.parameters.fe_h for s in known]))
    return (int(unlike[tested].sum()), int(tested.sum())), (int(unlike[~tested].sum()), int((~tested).sum()))


def _short(model: Path) -> str:
    """A shipped model by its path from the folder of a checkout, where it is there."""
    short = Path(model.parent.name, model.name)
    return str(short if short.exists() and short.samefile(model) else model)

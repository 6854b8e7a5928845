"""Doppelganger rates: the fraction of random pairs more alike than siblings (de Mijolla & Ness 2022).

    chemtwin lab rates a.safetensors b.safetensors --groups realistic_groups.h5 --report report

Siblings are the members of a group. The rate is the fraction of random pairs of other groups that are at least
as alike as the median pair of siblings: by a model's latents, alone or among pairs of like [Fe/H]; by
abundances measured as a survey publishes them; and at the limit, where `chemtwin lab limit` has measured the
same groups.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.bundle import load_model
from model.errors import InputError
from model.methods.gaussdis import GaussDis
from model.similarity.likelihood_ratio import Likelihood
from model.spectra.grid import Array
from training.evaluation import probes
from training.evaluation.evaluate import embed_survey, model_labels
from training.evaluation.limit import doppelganger_rate, siblings, survey_name
from training.evaluation.posteriors import likelihoods, posteriors
from training.random_streams import Stream, generator
from training.reports.html_page import publish
from training.reports.markdown import table
from training.surveys.published_errors import measured_abundances
from training.surveys.survey import Survey
from training.surveys.used_surveys import check_unused

LEVELS = (100.0, 50.0)
RANDOM_PAIRS = 1_000_000
FE_H_WITHIN = 0.1
"""As the service's default filter has it."""

DISTANCE, WITHIN = "distance", f"distance, [Fe/H] within {FE_H_WITHIN:g}"
LIKELIHOOD = "likelihood"
ABUNDANCES, LIMIT = "[Fe/H] and [X/Fe] as published", "the limit"

RATES = "Fraction of random pairs, in per cent, that are at least as alike as the median pair of siblings."


def random_pairs(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Random pairs of rows (M, 2) of different groups."""
    pairs = generator(Stream.RANDOM_PAIRS).integers(len(group), size=(RANDOM_PAIRS, 2))
    apart: NDArray[np.bool_] = group[pairs[:, 0]] != group[pairs[:, 1]]
    return np.asarray(pairs[apart])


def rates(
    values: Array, near: NDArray[np.int64], far: NDArray[np.int64], fe_h: Array | None = None
) -> dict[str, float]:
    """The rate by Euclidean distance of `values` (N, D), of pairs `near` and `far` (M, 2).

    With `fe_h` (N,) random pairs further apart in it than `FE_H_WITHIN` count as unlike.
    """
    alike = [-np.linalg.norm(values[pairs[:, 0]] - values[pairs[:, 1]], axis=1) for pairs in (near, far)]
    if fe_h is not None:
        alike[1][np.abs(fe_h[far[:, 0]] - fe_h[far[:, 1]]) > FE_H_WITHIN] = -np.inf
    return doppelganger_rate(*alike)


def rates_by_way(
    latents: Array,
    stars: Likelihood | None,
    near: NDArray[np.int64],
    far: NDArray[np.int64],
    fe_h: Array | None,
) -> dict[str, dict[str, float]]:
    """The rates of pairs `near` and `far` (M, 2) by all ways to compare stars.

    Parameters
    ----------
    latents : array (N, D)
        Latents, compared by distance.
    stars : Likelihood or None
        Posteriors, compared by likelihood.
    near, far : array of int (M, 2)
        Rows of siblings, and of random pairs.
    fe_h : array (N,) or None
        [Fe/H] in dex, where the latents do without it.

    Returns
    -------
    dict of str to dict
        For each way the rate and its standard error.
    """
    found = {}
    if stars is not None:
        found[LIKELIHOOD] = doppelganger_rate(stars.pairs(*near.T), stars.pairs(*far.T))
    found[DISTANCE] = rates(latents, near, far)
    if fe_h is not None:
        found[WITHIN] = rates(latents, near, far, fe_h)
    return found


def measure_rates(paths: Sequence[Path], groups: Survey, folder: Path) -> str:
    """Measure models into rates.json in `folder`; returns the table. Raises InputError without groups."""
    groups.check_noiseless()
    if groups.group is None:
        raise InputError(f"{groups.path} holds no groups")
    near, far, fe_h = siblings(groups.group), random_pairs(groups.group), groups.parameters[:, 2]
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for path, label in zip(paths, model_labels(paths), strict=True):
        model, rows = load_model(path), found.setdefault(label, {})
        check_unused(model, label, groups)
        for level in LEVELS:
            stars = None
            if isinstance(model, GaussDis):
                latents, covariances = posteriors(model, groups, level)
                stars = likelihoods(model, latents, covariances)
            else:
                latents = embed_survey(model, groups, level)
            known = fe_h if "fe_h" in model.parameter_names else None
            for way, rate in rates_by_way(latents, stars, near, far, known).items():
                rows.setdefault(way, {})[f"{level:g}"] = rate
    found["a search on abundances"] = {ABUNDANCES: _by_abundances(groups, near, far)}
    limits = folder / "limit.json"
    if limits.exists() and (limit := json.loads(limits.read_text()).get(survey_name(groups))):
        for removed, observer in limit["removed"].items():
            found.setdefault(LIMIT, {})[f"{removed} removed"] = observer["groups"]
    folder.mkdir(parents=True, exist_ok=True)
    result = {"groups_seed": groups.seed, "stars": len(groups), "rates": found}
    (folder / "rates.json").write_text(json.dumps(result, indent=1) + "\n")
    counted = f"{len(groups)} stars in groups, seed {groups.seed}. {RATES}"
    text = "\n\n".join(["# Doppelganger rates", counted, rates_table(result)])
    publish(folder, "rates", text)
    return text


def _by_abundances(
    groups: Survey, near: NDArray[np.int64], far: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    names, abundances = probes.abundances(groups)
    out = {}
    for level in LEVELS:
        random = generator(Stream.PUBLISHED_ERRORS, seed=int(level))
        measured, errors = measured_abundances(groups.parameters, abundances, names, level, random)
        out[f"{level:g}"] = rates(measured / errors.mean(axis=0), near, far)
    return out


def rates_table(measured: dict[str, Any]) -> str:
    """The rates in per cent of random pairs, with their standard errors."""
    rows = [
        [label, way, *(f"{100 * r['fraction']:.4f} ± {100 * r['error']:.4f}" for r in levels.values())]
        for label, ways in measured["rates"].items()
        for way, levels in ways.items()
    ]
    return table(["", "by", *(f"S/N {level:g}, %" for level in LEVELS)], rows)

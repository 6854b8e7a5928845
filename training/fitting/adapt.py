"""Adapting GaussDis to observed spectra: single stars, and siblings where some are known.

    chemtwin model adapt model/reference.safetensors stars.h5 --siblings siblings.csv --out adapted.safetensors

Observed spectra differ from synthetic ones. What all stars share of it is learned here, on the survey's own
assumption that the latent is independent of u: an offset of each pixel outside the basis, an offset of the
coefficients in it that depends on u, and the covariance of the misfit that remains
(`training.fitting.misfit`). The result is a model of the same kind: the offsets become part of its mean
spectrum, the misfit's covariance part of its scatter. Degree and size of the misfit are those under which
stars left out are most probable.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.errors import InputError
from model.methods.base import Card
from model.methods.basis import exponents
from model.methods.gaussdis import GaussDis
from model.methods.measured_stars import Measured
from model.methods.scatter import scaled_within
from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum
from training.evaluation.siblings import Distances, Members, by_model
from training.fitting.enough_stars import FEWEST_TO_ADAPT
from training.fitting.gaussdis import with_tensors
from training.fitting.growing_scatter import fit_growth
from training.fitting.misfit import Misfit, Prior, fit_misfit, log_density
from training.fitting.population import fit_population
from training.random_streams import Stream, generator

MOST = 3000
"""Stars that a misfit is fitted to; of more, as many are drawn."""

CHOOSING = 400
"""Stars that its prior is chosen with."""

FOLDS = 4
LEFT_OUT_PARTS = 10
"""A survey may have hundreds of groups, and each part takes one fit."""

SIZES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""A finer grid's choice depends on which of a few groups is left out."""
DEGREES = (0, 1, 2, 3)
STARS_PER_TERM = 8
"""Groups that each term of the offset needs."""

BATCH = 256
NOISE = 1e-4
"""Variance that is added to a pixel's noise for its weight in the mean residual."""


def adapt(
    model: GaussDis, spectra: Sequence[Spectrum], group: NDArray[np.int64], name: str, source: str
) -> GaussDis:
    """Adapt a model to observed stars.

    Parameters
    ----------
    model : GaussDis
        The model.
    spectra : sequence of Spectrum
        N observed spectra with errors, prepared for the model.
    group : array of int (N,)
        The number of each star's group of siblings; -1 for a single star.
    name : str
        The adapted model's name.
    source : str
        What the stars are, for the card.

    Returns
    -------
    GaussDis
        The adapted model. Latents of the two models do not compare.

    Raises
    ------
    InputError
        For fewer than 20 stars with errors inside the model's range.
    """
    usable = np.array([s.has_errors and not model.outside(s.parameters) for s in spectra], dtype=bool)
    if usable.sum() < FEWEST_TO_ADAPT:
        raise InputError(
            f"{int(usable.sum())} of {len(spectra)} stars have errors and lie inside the range of "
            f"{model.card.identity}: adapting takes at least {FEWEST_TO_ADAPT}"
        )
    rows = _drawn(np.flatnonzero(usable), group, MOST)
    chosen, group = [spectra[row] for row in rows], _numbered(group[rows])
    nothing = {name: np.zeros_like(getattr(model, name)) for name in ("misfit", "shared")}
    nothing["population"] = np.eye(model.card.latent_dim)
    shifted = _with_mean_residual(with_tensors(model, model.card, **nothing), chosen)
    stars = measured(shifted, chosen)
    prior = choose_prior(shifted, stars, group)
    misfit = fit_misfit(shifted, stars, group, prior)
    floor, floor_growth = fit_growth(stars.unexplained, scaled_within(shifted.ranges, stars.parameters))
    card = dataclasses.replace(
        model.card,
        name=name,
        metric="Euclidean distance of the posterior means, in units of the difference of siblings",
        error_floor=float(np.sqrt(floor)),
        typical_errors=model.card.typical_errors | typical_errors(model.parameter_names, chosen),
        training=model.card.training | {"adapted": _record(model, group, prior, source)},
        quality={},
    )
    shifted = with_tensors(shifted, card, floor_growth=floor_growth)
    return _adapted(model, shifted, chosen, group, misfit, card)


def _record(model: GaussDis, group: NDArray[np.int64], prior: Prior, source: str) -> dict[str, Any]:
    """What `model` was adapted to, for the card."""
    siblings = np.bincount(group)
    return {
        "stars": len(group),
        "groups": int((siblings > 1).sum()),
        "siblings": int(siblings[siblings > 1].sum()),
        "source": source,
        "from": model.card.identity,
        "degree": prior.degree,
        "size": prior.size,
    }


def adapted_without(
    model: GaussDis, members: Members, spectra: Sequence[Spectrum], group: NDArray[np.int64]
) -> Distances:
    """Distances of models adapted to `spectra` without a group; -1 in `group` (N,) stands for none.

    Each group is left out once, in `LEFT_OUT_PARTS` parts where there are more groups than these.
    """

    @cache
    def distances(part: int) -> tuple[Array, Array | None]:
        rows = rows_without(group, part)
        found = adapt(
            model, [spectra[row] for row in rows.tolist()], group[rows], model.card.name, "left-out test"
        )
        return by_model(members, found)

    return lambda left_out: distances(left_out % LEFT_OUT_PARTS)


def rows_without(group: NDArray[np.int64], part: int) -> NDArray[np.int64]:
    """Rows of stars of no group (-1) and of groups that are not in a `part`, 0 to `LEFT_OUT_PARTS` - 1."""
    return np.flatnonzero((group < 0) | (group % LEFT_OUT_PARTS != part))


def typical_errors(names: Sequence[str], spectra: Sequence[Spectrum]) -> dict[str, float]:
    """The median error of each named parameter over the spectra that have one; without those that are exact."""
    known = {
        name: [error for s in spectra if (error := s.parameters.error(name)) is not None] for name in names
    }
    medians = {name: round(float(np.median(errors)), 6) for name, errors in known.items() if errors}
    return {name: error for name, error in medians.items() if error > 0}


def measured(model: GaussDis, spectra: Sequence[Spectrum]) -> Measured:
    """Coefficients of any number of spectra, measured in batches."""
    parts = [model.measure(part) for part in _batches(spectra)]
    return Measured(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def choose_prior(model: GaussDis, stars: Measured, group: NDArray[np.int64]) -> Prior:
    """The prior under which groups left out are most probable: first its size, then its degree."""
    some = _drawn(np.arange(len(group)), np.where(np.bincount(group)[group] > 1, group, -1), CHOOSING)
    stars, group = select(stars, some), _numbered(group[some])
    groups = int(group.max()) + 1
    fold = generator(Stream.ADAPTATION).permutation(groups) % min(FOLDS, groups)
    parameters = len(model.parameter_names)
    degrees = [d for d in DEGREES if len(exponents(parameters, d)) * STARS_PER_TERM <= groups or d == 0]

    def left_out(prior: Prior, number: int) -> float:
        out = fold[group] == number
        fitted = fit_misfit(model, select(stars, ~out), _numbered(group[~out]), prior)
        return log_density(model, select(stars, out), _numbered(group[out]), fitted)

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(SIZES) + len(degrees) - 1, desc="prior", file=sys.stderr, disable=None) as bar,
    ):

        def scored(prior: Prior) -> tuple[float, Prior]:
            score = sum(pool.map(partial(left_out, prior), range(fold.max() + 1)))
            bar.update()
            return score, prior

        best = max(
            (scored(Prior(degrees[min(1, len(degrees) - 1)], size)) for size in SIZES), key=lambda s: s[0]
        )
        rest = [d for d in degrees if d != best[1].degree]
        return max([best, *(scored(Prior(d, best[1].size)) for d in rest)], key=lambda s: s[0])[1]


def select(stars: Measured, rows: NDArray[Any]) -> Measured:
    """Some of the stars."""
    return Measured(*(array[rows] for array in stars))


def _batches(spectra: Sequence[Spectrum]) -> list[Sequence[Spectrum]]:
    return [spectra[start : start + BATCH] for start in range(0, len(spectra), BATCH)]


def _numbered(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups numbered from 0, each single star (-1) as one of its own."""
    alone = group < 0
    own = np.where(alone, group.max(initial=0) + 1 + np.cumsum(alone), group)
    return np.unique(own, return_inverse=True)[1].astype(np.int64)


def _drawn(rows: NDArray[np.int64], group: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows: the siblings first, then single stars at random."""
    order = generator(Stream.ADAPTATION).permutation(rows)
    return np.sort(order[np.argsort(group[order] < 0, kind="stable")][:most])


def _with_mean_residual(model: GaussDis, spectra: Sequence[Spectrum]) -> GaussDis:
    """The model with the stars' mean residual from the basis, pixel by pixel, in its mean spectrum."""
    basis = model.basis
    weighted, weights = np.zeros(len(model.grid)), np.full(len(model.grid), 0.1 * len(spectra))
    for part in _batches(spectra):
        stars = model.measure(part)
        rebuilt = basis.rebuild(stars.coefficients, stars.parameters)
        flux, ivar = (np.stack([getattr(s, key) for s in part]) for key in ("flux", "ivar"))
        weight = ivar / (1 + NOISE * ivar) * NOISE
        weighted += (weight * (flux - rebuilt)).sum(axis=0)
        weights += weight.sum(axis=0)
    mean = weighted / weights
    mean -= (basis.components @ mean) @ basis.components
    polynomial = basis.polynomial.copy()
    polynomial[0] += mean
    return with_tensors(model, model.card, polynomial=polynomial)


def _adapted(
    model: GaussDis,
    shifted: GaussDis,
    spectra: Sequence[Spectrum],
    group: NDArray[np.int64],
    misfit: Misfit,
    card: Card,
) -> GaussDis:
    """The model with a misfit, the stars' population, and a metric.

    The metric ranks pairs as the likelihood ratio of same and different. With the posterior covariance A of
    both stars, latents differ by A + A - 2 A A were they siblings, and by 2 - 2 A if not: the difference of the
    two inverses is the inverse of 2 A. The mean square distance of siblings is D.
    """
    mean = shifted.response.mean.copy()
    mean[: len(misfit.offset)] += misfit.offset
    unit = with_tensors(
        shifted,
        card,
        response_mean=mean,
        misfit=misfit.own,
        shared=misfit.shared,
        metric=np.eye(card.latent_dim),
    )
    unit = with_tensors(unit, card, population=fit_population(*_posteriors(unit, spectra), group))
    _, covariances = _posteriors(unit, spectra)
    pair = unit.pair_covariance(covariances, np.roll(covariances, 1, axis=0)).mean(axis=0)
    metric = _inverse_root(covariances.mean(axis=0))
    metric *= np.sqrt(len(metric) / np.trace(metric @ pair @ metric))
    adapted = with_tensors(unit, card, metric=metric)
    if model.readout is not None:
        by_response = np.linalg.solve(model.population.T, model.metric @ model.readout.slope)
        slope = np.linalg.solve(adapted.metric, adapted.population.T @ by_response)
        adapted.readout = dataclasses.replace(model.readout, slope=np.asarray(slope))
    return adapted


def _posteriors(model: GaussDis, spectra: Sequence[Spectrum]) -> tuple[Array, Array]:
    """Posterior means (N, D) and covariances (N, D, D)."""
    found = [star for part in _batches(spectra) for star in model.infer(part)]
    return np.stack([star.latent for star in found]), np.array([star.covariance for star in found], np.float64)


def _inverse_root(covariance: Array) -> Array:
    """The symmetric inverse square root (D, D) of a covariance."""
    variances, axes = np.linalg.eigh(0.5 * (covariance + covariance.T))
    return np.asarray((axes / np.sqrt(variances)) @ axes.T)

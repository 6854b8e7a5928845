"""Adapting GaussDis to observed spectra: single stars, and siblings where some are known.

    chemtwin model adapt model/reference.safetensors stars.h5 --siblings siblings.csv --out adapted.safetensors

Observed spectra differ from synthetic ones. What all stars share of it is learned here, on the survey's own
assumption that the latent is independent of u: an offset of each pixel outside the basis, an offset of the
coefficients in it that depends on u, and the covariance of the misfit that remains
(`training.fitting.misfit`). The result is a model of the same kind: the offsets become part of its mean
spectrum, the misfit's covariance part of its scatter. What the misfit's fit leaves open is chosen by stars left
out of it (`training.fitting.choose_misfit`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.methods.gaussdis import GaussDis
from model.methods.measured_stars import Measured
from model.methods.scatter import scaled_within
from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum
from training.evaluation.siblings import Distances, Members, by_model
from training.fitting.choose_misfit import (
    ObservedStars,
    choose_factor,
    choose_prior,
    drawn,
    few_of,
    numbered,
)
from training.fitting.enough_stars import FEWEST_TO_ADAPT
from training.fitting.gaussdis import with_offset, with_tensors
from training.fitting.growing_scatter import fit_growth
from training.fitting.misfit import Prior, with_misfit
from training.fitting.observed_basis import without_observed_components
from training.fitting.population import fit_population

MOST = 3000
"""Stars that a misfit is fitted to; of more, as many are drawn."""

LEFT_OUT_PARTS = 5
"""A survey may have hundreds of groups, and each part takes one fit."""

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
            f"{int(usable.sum())} of {len(spectra)} stars have errors of the flux and lie inside the range of "
            f"{model.card.identity}: adapting takes at least {FEWEST_TO_ADAPT}"
        )
    rows = drawn(np.flatnonzero(usable), group, MOST)
    chosen, group = [spectra[row] for row in rows], numbered(group[rows])
    shifted = with_mean_residual(unadapted(model), chosen)
    stars = ObservedStars(chosen, measured(shifted, chosen), group)
    few = few_of(stars)
    prior = choose_prior(shifted, few)
    factor = choose_factor(shifted, few, prior)
    misfit = stars.fit_misfit(shifted, prior)
    misfit = misfit._replace(own=factor * misfit.own)
    training = model.card.training | {"adapted": _record(model, group, prior, factor, source)}
    unit = with_floor(with_misfit(shifted, misfit), chosen, stars.measured, name, training)
    population = fit_population(*_posteriors(unit, chosen), group)
    return with_sibling_metric(model, with_tensors(unit, unit.card, population=population), chosen)


def unadapted(model: GaussDis) -> GaussDis:
    """The model without what it learned of observed stars."""
    model = with_offset(model, -model.mean_offset, -model.response_offset)
    nothing = {
        name: np.zeros_like(getattr(model, name))
        for name in ("misfit", "misfit_growth", "shared", "residual_variance")
    }
    model = with_tensors(model, model.card, **nothing, population=np.eye(model.card.latent_dim))
    return without_observed_components(model) if model.observed_components.any() else model


def _record(
    model: GaussDis, group: NDArray[np.int64], prior: Prior, factor: float, source: str
) -> dict[str, Any]:
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
        "factor": round(factor, 2),
    }


def adapted_without(
    model: GaussDis,
    members: Members,
    spectra: Sequence[Spectrum],
    group: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Distances:
    """Distances of models adapted to `spectra` without a group; -1 in `group` (N,) stands for none.

    Each group is left out once, in `LEFT_OUT_PARTS` parts where there are more groups than these. `progress`
    is called after each part, with how many are done and how many there are.
    """
    done, parts = count(1), len(np.unique(members.group % LEFT_OUT_PARTS))

    @cache
    def distances(part: int) -> tuple[Array, Array | None]:
        rows = rows_without(group, part)
        found = adapt(
            model, [spectra[row] for row in rows.tolist()], group[rows], model.card.name, "left-out test"
        )
        progress(next(done), parts)
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


def _batches(spectra: Sequence[Spectrum]) -> list[Sequence[Spectrum]]:
    return [spectra[start : start + BATCH] for start in range(0, len(spectra), BATCH)]


def with_mean_residual(model: GaussDis, spectra: Sequence[Spectrum]) -> GaussDis:
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
    return with_offset(model, mean, np.zeros((0, len(basis.components))))


def with_floor(
    model: GaussDis, spectra: Sequence[Spectrum], stars: Measured, name: str, training: dict[str, Any]
) -> GaussDis:
    """The model with the error floor of N measured stars and the typical errors of some of their `spectra`."""
    floor, growth = fit_growth(stars.unexplained, scaled_within(model.ranges, stars.parameters))
    card = dataclasses.replace(
        model.card,
        name=name,
        metric="Euclidean distance of the posterior means, in units of the difference of siblings",
        error_floor=float(np.sqrt(floor)),
        typical_errors=model.card.typical_errors | typical_errors(model.parameter_names, spectra),
        training=training,
        quality={},
    )
    return with_tensors(model, card, floor_growth=growth)


def with_sibling_metric(model: GaussDis, unit: GaussDis, spectra: Sequence[Spectrum]) -> GaussDis:
    """A model with the metric of observed `spectra`; `unit` lacks it, and `model` has the readout of both.

    The metric ranks pairs as the likelihood ratio of same and different. With the posterior covariance A of
    both stars, latents differ by A + A - 2 A A were they siblings, and by 2 - 2 A if not: the difference of the
    two inverses is the inverse of 2 A. The mean square distance of siblings is D.
    """
    unit = with_tensors(unit, unit.card, metric=np.eye(unit.card.latent_dim))
    _, covariances = _posteriors(unit, spectra)
    pair = unit.pair_covariance(covariances, np.roll(covariances, 1, axis=0)).mean(axis=0)
    metric = _inverse_root(covariances.mean(axis=0))
    metric *= np.sqrt(len(metric) / np.trace(metric @ pair @ metric))
    adapted = with_tensors(unit, unit.card, metric=metric)
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

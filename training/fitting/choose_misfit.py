"""What the fit of a misfit leaves open, chosen by groups that are left out of it: its prior, and its size.

W has K (K + 1) / 2 numbers, learned from often fifty stars. Siblings that the fit did not see may lie farther
apart than W expects, or nearer, by a factor that those who were left out show.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from tqdm import tqdm

from model.methods.basis import exponents
from model.methods.gaussdis import GaussDis
from model.methods.measured_stars import Measured
from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum
from training.fitting.misfit import Misfit, Prior, fit_misfit, log_density, with_misfit
from training.random_streams import Stream, generator

STARS = 400
"""Stars that choose."""

FOLDS = 4

SIZES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Tried from the middle. A finer grid's choice depends on which of a few groups is left out."""
DEGREES = (0, 1, 2, 3)
STARS_PER_TERM = 8
"""Stars that each term of the offset needs."""

FACTORS = (0.1, 10.0)
"""Bounds of the factor of W."""
TOLERANCE = 0.02
"""Of the factor's logarithm."""


@dataclass(frozen=True)
class ObservedStars:
    """N observed stars: `spectra`, the coefficients `measured`, and the `group` (N,), numbered from 0."""

    spectra: Sequence[Spectrum]
    measured: Measured
    group: NDArray[np.int64]

    def select(self, rows: NDArray[np.int64]) -> ObservedStars:
        """Some of them, their groups numbered anew."""
        measured = Measured(*(array[rows] for array in self.measured))
        return ObservedStars([self.spectra[row] for row in rows.tolist()], measured, numbered(self.group[rows]))

    def parts(self, groups: NDArray[np.int64]) -> list[tuple[ObservedStars, ObservedStars]]:
        """The stars outside and inside each of a few parts of `groups` (G,)."""
        shuffled = generator(Stream.ADAPTATION).permutation(groups)
        inside = [np.isin(self.group, part) for part in np.array_split(shuffled, min(FOLDS, len(groups)))]
        return [(self.select(np.flatnonzero(~rows)), self.select(np.flatnonzero(rows))) for rows in inside]

    def fit_misfit(self, model: GaussDis, prior: Prior) -> Misfit:
        """How they differ from a model."""
        return fit_misfit(model, self.measured, self.group, prior)


def few_of(stars: ObservedStars) -> ObservedStars:
    """Those that choose: siblings first, then single stars at random."""
    alone = np.bincount(stars.group)[stars.group] == 1
    return stars.select(drawn(np.arange(len(alone)), np.where(alone, -1, stars.group), STARS))


def choose_prior(model: GaussDis, stars: ObservedStars) -> Prior:
    """The prior under which groups left out are most probable: first its size, at degree 1, then its degree."""
    groups = int(stars.group.max()) + 1
    parameters = len(model.parameter_names)
    degrees = [
        d for d in DEGREES if len(exponents(parameters, d)) * STARS_PER_TERM <= len(stars.group) or d == 0
    ]
    parts = stars.parts(np.arange(groups))

    def left_out(prior: Prior, part: tuple[ObservedStars, ObservedStars]) -> float:
        used, out = part
        return log_density(model, out.measured, out.group, used.fit_misfit(model, prior))

    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        tqdm(unit="prior", desc="choose", file=sys.stderr, disable=None) as bar,
    ):

        @cache
        def score(prior: Prior) -> float:
            bar.update()
            return sum(pool.map(partial(left_out, prior), parts))

        start = degrees[min(1, len(degrees) - 1)]
        best = _climb([Prior(start, size) for size in SIZES], len(SIZES) // 2, score)
        return _climb([Prior(degree, best.size) for degree in degrees], degrees.index(start), score)


def choose_factor(model: GaussDis, stars: ObservedStars, prior: Prior) -> float:
    """The factor of W with which siblings left out are as far apart as expected; 1 if there are none."""
    siblings = np.flatnonzero(np.bincount(stars.group) > 1)
    if not len(siblings):
        return 1.0
    parts = stars.parts(siblings)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        fitted = list(pool.map(lambda part: part[0].fit_misfit(model, prior), parts))

    def models(factor: float) -> list[GaussDis]:
        return [with_misfit(model, misfit._replace(own=factor * misfit.own)) for misfit in fitted]

    return factor_of(models, [(out.spectra, out.group) for _, out in parts])


def factor_of(
    models: Callable[[float], Sequence[GaussDis]],
    left_out: Sequence[tuple[Sequence[Spectrum], NDArray[np.int64]]],
) -> float:
    """The factor of W with which siblings left out are as far apart as expected.

    Parameters
    ----------
    models : callable
        Takes a factor; gives a model for each part of the siblings, fitted without it.
    left_out : sequence of (sequence of Spectrum, array (N,))
        Each part's spectra, and the number of each one's group.
    """

    def excess(logarithm: float) -> float:
        found = models(float(np.exp(logarithm)))
        apart = [squares(one, *part) for one, part in zip(found, left_out, strict=True)]
        square, freedom = np.sum(apart, axis=0)
        return float(np.log(square / freedom))

    low, high = np.log(FACTORS)
    if excess(low) < 0:
        return FACTORS[0]
    if excess(high) > 0:
        return FACTORS[1]
    return float(np.exp(brentq(excess, low, high, xtol=TOLERANCE)))


def numbered(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups numbered from 0, each single star (-1) as one of its own."""
    alone = group < 0
    own = np.where(alone, group.max(initial=0) + 1 + np.cumsum(alone), group)
    return np.unique(own, return_inverse=True)[1].astype(np.int64)


def drawn(rows: NDArray[np.int64], group: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows: the siblings first, then single stars (-1) at random."""
    order = generator(Stream.ADAPTATION).permutation(rows)
    return np.sort(order[np.argsort(group[order] < 0, kind="stable")][:most])


def _climb(priors: Sequence[Prior], start: int, score: Callable[[Prior], float]) -> Prior:
    """The prior of the largest score, found from `start` by steps to better neighbours."""
    best = start
    for step in (1, -1):
        while 0 <= best + step < len(priors) and score(priors[best + step]) > score(priors[best]):
            best += step
    return priors[best]


def squares(model: GaussDis, spectra: Sequence[Spectrum], group: NDArray[np.int64]) -> Array:
    """The sum of siblings' squared distances in units of their expectation, and how many are independent."""
    found = model.infer(spectra)
    latents = np.stack([star.latent for star in found])
    covariances = np.array([star.covariance for star in found], np.float64)
    total = np.zeros(2)
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        first, second = (rows[index] for index in np.triu_indices(len(rows), 1))
        gap = latents[first] - latents[second]
        pair = model.pair_covariance(covariances[first], covariances[second])
        square = np.einsum("nd,nd->n", gap, np.linalg.solve(pair, gap[..., None])[..., 0]).mean()
        total += (len(rows) - 1) * np.array([square / gap.shape[1], 1.0])
    return total

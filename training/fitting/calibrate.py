"""Calibrating GaussDis on a few hundred known pairs of chemically identical stars.

    chemtwin model calibrate gaussdis.safetensors survey.h5 --pairs pairs.csv --find --out mine.safetensors

Independence of latent and u does not say which latent at one u means the same as which at another; pairs do, in
the manner of RSCA (de Mijolla & Ness 2022), but with a map that depends on u: z' = z + sum of polynomials of u
times (a constant, z, products of z), fitted by ridge regression to make the pairs meet. The response is then
fitted again to the whole survey, without labels but with twins at one latent, which smooths what the few pairs
leave open. What still separates pairs is measured on those left out in turn, and goes into every posterior.

So calibrated, a model knows further twins of a noiseless survey when it sees them
(`training.fitting.twins_found`). With
`--find` the response is fitted again to all of them: thousands of pairs determine what hundreds leave open.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.errors import InputError
from model.methods.basis import design, exponents
from model.methods.gaussdis import GaussDis
from model.methods.response import Response
from model.spectra.grid import Array
from training.fitting.gaussdis import SAMPLE, STARS, Stars, changed, spread, stars_of, with_metric
from training.fitting.twins_found import fewest_pairs, find_twins, hold_together
from training.surveys.pairs import groups
from training.surveys.survey import Survey
from training.surveys.used_surveys import record


@dataclass(frozen=True)
class Freedom:
    """How much a map may do: its terms' degrees in u, and their expected sizes.

    A turn between a latent that moves spectra much and one that moves them little would show in the response:
    its expected size is `linear` times the ratio of the two, that of a product `square` times that of the
    smallest to the largest of the three latents in it.
    """

    degree: int
    square_degree: int
    linear: float
    square: float
    left: float
    """Variance that is expected to remain between pairs, in units of the noise at `WEIGHT_SNR`."""


FREEDOMS = tuple(
    Freedom(degree, square_degree, linear, square, left)
    for degree, square_degree in ((2, 0), (2, 1), (3, 1), (3, 2))
    for linear in (0.03, 0.1)
    for square in ((0.003, 0.01, 0.03) if square_degree else (0.0,))
    for left in (0.01, 0.1, 10.0)
)
"""What is tried; each latent has what pairs left out prefer."""

OFFSET = 0.1
"""Expected size of the terms without a latent."""

SHARED = 30.0
"""Weight of a star whose twin is known, where the response is fitted again; others have 1."""

WEIGHT_SNR = 50.0
WEAKEST = 1e-3
"""Least information that an axis is taken to have."""

FOLDS = 5

RECORDED = ("pairs", "pairs_survey_seed", "pairs_survey_spectra", "found_pairs", "calibrated_before")
"""What a card's training record says of a calibration."""


@dataclass
class Frame:
    """The map from the latents of a response to those in which twins meet, over parameters in `ranges` (U, 2).

    Fitted along `axes` (D, D), those of the mean posterior covariance at `WEIGHT_SNR`, of variances `noise`
    (D,). Polynomials of u have zero mean and unit scatter over `centre` (S, U), so the map changes nothing on
    average.
    """

    ranges: Array
    centre: Array
    axes: Array
    noise: Array

    @classmethod
    def of(cls, covariance: Array, ranges: Array, centre: Array) -> Frame:
        """For a mean posterior covariance (D, D)."""
        noise, axes = np.linalg.eigh(covariance)
        return cls(ranges, centre, axes, noise)

    def fit(self, pairs: Array, parameters: Array) -> None:
        """Make latents `pairs` (2, P, D) at parameters (2, P, U) meet, by ridge regression.

        The freedom of each latent is the one with the smallest mean square of what is left of each pair by a
        fit to the others.
        """
        along = pairs @ self.axes
        gap = along[0] - along[1]
        self.chosen: list[tuple[Freedom, Array]] = [(FREEDOMS[0], np.zeros(0))] * len(self.noise)
        best = np.full(len(self.noise), np.inf)
        bar = tqdm(total=len(FREEDOMS), desc="map", leave=False, file=sys.stderr, disable=None)
        for _, same in groupby(FREEDOMS, lambda freedom: (freedom.degree, freedom.square_degree)):
            freedoms = list(same)  # of the same features: products of these are made once for all of them
            change = self._change(along, parameters, freedoms[0])
            for latent, noise in enumerate(self.noise):
                ratios = self._ratios(latent, freedoms[0])
                ends = np.cumsum([len(ratio) for ratio in ratios])[:-1]
                parts = [
                    part * ratio for part, ratio in zip(np.split(change, ends, axis=1), ratios, strict=True)
                ]
                grams = [part @ part.T for part in parts]
                for freedom in freedoms:
                    scales = OFFSET, freedom.linear, freedom.square
                    gram = sum(scale**2 * each for scale, each in zip(scales, grams, strict=True))
                    inverse = np.linalg.inv(gram + freedom.left * noise * np.eye(len(gap)))
                    dual = inverse @ gap[:, latent]
                    missed = float(np.square(dual / np.diag(inverse)).mean())
                    if missed < best[latent]:
                        best[latent] = missed
                        sizes = np.concatenate([s * ratio for s, ratio in zip(scales, ratios, strict=True)])
                        self.chosen[latent] = freedom, -np.square(sizes) * (change.T @ dual)
            bar.update(len(freedoms))
        bar.close()

    def _change(self, along: Array, parameters: Array, freedom: Freedom) -> Array:
        """Differences (P, F) of the features between the stars of each pair."""
        first, second = (self._features(z, u, freedom) for z, u in zip(along, parameters, strict=True))
        return first - second

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Mapped latents (N, D)."""
        out = np.empty_like(latents)
        for start in range(0, len(latents), SAMPLE):
            rows = slice(start, start + SAMPLE)
            along = latents[rows] @ self.axes
            moved = along.copy()
            for degrees in {(freedom.degree, freedom.square_degree) for freedom, _ in self.chosen}:
                some = [
                    latent
                    for latent, (freedom, _) in enumerate(self.chosen)
                    if (freedom.degree, freedom.square_degree) == degrees
                ]
                features = self._features(along, parameters[rows], self.chosen[some[0]][0])
                moved[:, some] += features @ np.stack([self.chosen[latent][1] for latent in some], axis=1)
            out[rows] = moved @ self.axes.T
        return out

    def _features(self, latents: Array, parameters: Array, freedom: Freedom) -> Array:
        """What the map is linear in (N, F)."""
        rows, columns = np.triu_indices(latents.shape[1])
        linear, square = (
            self._standard(parameters, degree) for degree in (freedom.degree, freedom.square_degree)
        )
        products = latents[:, rows] * latents[:, columns] - (rows == columns)
        parts = [linear]
        for polynomial, values in ((linear, latents), (square, products)):
            parts.append((polynomial[:, :, None] * values[:, None]).reshape(len(latents), -1))
        return np.concatenate(parts, axis=1)

    def _ratios(self, latent: int, freedom: Freedom) -> list[Array]:
        """Expected size of each coefficient in the map of one latent.

        Of the terms without a latent, of those with one and of those with a product, in units of `OFFSET`,
        `Freedom.linear` and `Freedom.square`.
        """
        rows, columns = np.triu_indices(len(self.noise))
        strength = np.sqrt(np.maximum(1 / self.noise - 1, WEAKEST))
        own = np.full(len(rows), strength[latent])
        three = np.stack([own, strength[rows], strength[columns]])
        two = np.stack([own[: len(strength)], strength])
        first, second = (
            len(exponents(len(self.ranges), degree)) - 1 for degree in (freedom.degree, freedom.square_degree)
        )
        linear, square = (values.min(axis=0) / values.max(axis=0) for values in (two, three))
        return [np.ones(first), np.tile(linear, first), np.tile(square, second)]

    def _standard(self, parameters: Array, degree: int) -> Array:
        usual = design(self.centre, self.ranges, degree)[:, 1:]
        polynomial = design(parameters, self.ranges, degree)[:, 1:]
        return np.asarray((polynomial - usual.mean(axis=0)) / usual.std(axis=0))


def align(model: GaussDis, stars: Stars, pairs: NDArray[np.int64]) -> tuple[Response, Array]:
    """Response and scatter (K, K) in which the pairs (P, 2), rows of `stars`, meet; and so many more do."""
    some = slice(0, SAMPLE // 4)
    typical = spread(model, stars.parameters[some], stars.latents[some], WEIGHT_SNR).mean(axis=0)
    frame = Frame.of(typical, model.ranges, stars.parameters[:SAMPLE])
    frame.fit(stars.latents[pairs.T], stars.parameters[pairs.T])
    aligned = Stars(stars.seen, stars.parameters, frame(stars.latents, stars.parameters))
    aligned.whiten()
    share_latents(aligned.latents, pairs)
    weights = np.ones(len(stars.seen))
    weights[pairs] = SHARED
    return aligned.fitted(model.ranges, weights)


def share_latents(latents: Array, pairs: NDArray[np.int64]) -> None:
    """Give all stars of a group of `pairs` (P, 2), rows of `latents` (N, D), the mean of their latents."""
    group = groups(pairs)
    stars, first = np.unique(pairs, return_index=True)
    member = group[first // 2]
    total = np.zeros((group.max() + 1, latents.shape[1]))
    np.add.at(total, member, latents[stars])
    latents[stars] = (total / np.bincount(member)[:, None])[member]


def calibrate(
    model: GaussDis, survey: Survey, pairs: NDArray[np.int64], name: str, find: bool = False
) -> GaussDis:
    """`model` with twins that meet: calibrated on `pairs` (P, 2), rows of `survey`.

    With `find` its response is then fitted to the twins that it finds among the survey's other stars, and the
    known ones measure what still separates twins. Raises InputError for a survey too small for that,
    before any work, and if the model finds too few.
    """
    others = np.setdiff1d(np.arange(len(survey)), pairs)
    if find:
        _check_find(model, survey, len(others))
    seen, parameters = stars_of(survey, model)
    training: dict[str, Any] = {"pairs": len(pairs), **record(survey, "pairs_survey")}
    how = f"on {len(pairs)} known pairs"
    calibrated = _calibrated(model, seen, parameters, pairs, how)
    if find:
        found = others[find_twins(calibrated, seen[others], parameters[others])]
        training["found_pairs"], how = len(found), f"{how} and {len(found)} that the model found"
        calibrated = _together(calibrated, seen, parameters, pairs, found, how)
    before = model.card.training
    if earlier := {key: before[key] for key in RECORDED if key in before}:
        training["calibrated_before"] = earlier
    training = {key: value for key, value in before.items() if key not in RECORDED} | training
    return changed(calibrated, dataclasses.replace(calibrated.card, name=name, training=training))


def _check_find(model: GaussDis, survey: Survey, others: int) -> None:
    """Raise InputError unless `others`, the stars beside the known pairs, are enough to find twins."""
    survey.check_noiseless()
    needed = fewest_pairs(model.card.latent_dim, model.ranges)
    if others < 2 * needed:
        raise InputError(
            f"--find needs {needed} or more pairs of twins beside the known ones, for {model.card.latent_dim} "
            f"latents: {2 * needed} stars at least. {survey.path} has {others} beside the known pairs: "
            "leave out --find, or take a larger survey"
        )


def _calibrated(
    model: GaussDis, seen: Array, parameters: Array, pairs: NDArray[np.int64], how: str
) -> GaussDis:
    """`model` calibrated on pairs (P, 2), rows of the coefficients `seen` (N, K) at parameters (N, U)."""
    used, chosen = np.unique(pairs, return_inverse=True)
    others = np.setdiff1d(np.arange(len(seen)), used)
    used = np.concatenate([others[: max(0, STARS - len(used))], used])
    pairs = len(used) - chosen.max() - 1 + chosen.reshape(pairs.shape)
    seen, parameters = seen[used], parameters[used]
    stars = Stars(seen, parameters, np.zeros((len(seen), model.card.latent_dim)))
    group, gaps = groups(pairs), []
    count = min(FOLDS, int(group.max()) + 1)
    with tqdm(total=count + 2, desc="calibrate", unit="fit", file=sys.stderr, disable=None) as bar:
        stars.refine(model.response, model.scatter)
        bar.update()
        for fold in range(count):
            held_out = group % count == fold
            some = Stars(*(values[pairs[held_out].ravel()] for values in (seen, parameters, stars.latents)))
            some.refine(*align(model, stars, pairs[~held_out]))
            gaps.append(some.latents[::2] - some.latents[1::2])
            bar.update()
        response, scatter = align(model, stars, pairs)
        stars.refine(response, scatter)
        bar.update()
    return _told(model, response, scatter, np.concatenate(gaps), stars, how)


def _together(
    model: GaussDis,
    seen: Array,
    parameters: Array,
    known: NDArray[np.int64],
    found: NDArray[np.int64],
    how: str,
) -> GaussDis:
    """`model` with the response of twins `found` (F, 2), the residue measured on those `known` (P, 2).

    Both are rows of the coefficients `seen` (N, K) at parameters (N, U).
    """
    stars = Stars(seen[found.ravel()], parameters[found.ravel()], np.zeros((found.size, model.card.latent_dim)))
    response, scatter = hold_together(stars, model.response, model.scatter)
    some = Stars(seen[known.ravel()], parameters[known.ravel()], np.zeros((known.size, model.card.latent_dim)))
    some.refine(response, scatter)
    return _told(model, response, scatter, some.latents[::2] - some.latents[1::2], stars, how)


def _told(model: GaussDis, response: Response, scatter: Array, gaps: Array, stars: Stars, how: str) -> GaussDis:
    """`model` with another response, the residue of noiseless twins' `gaps` (P, D) and the metric of both."""
    residue = gaps.T @ gaps / len(gaps)
    told = changed(model, model.card, scatter=scatter, residue=residue, **response.arrays())
    return with_metric(told, stars, how)

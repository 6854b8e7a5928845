"""Calibrating GaussDis on a few hundred known pairs of chemically identical stars.

    chemtwin model calibrate gaussdis.safetensors survey.h5 --pairs pairs.csv --find --out mine.safetensors

Independence of latent and u does not say which latent at one u means the same as which at another; pairs do, in
the manner of RSCA (de Mijolla & Ness 2022), but with a map that depends on u: z' = z + sum of polynomials of u
times (a constant, z, products of z), fitted by ridge regression to make the latents of pairs equal. The
response is then fitted again to the whole survey, without labels but with one latent for twins, which smooths
the map where pairs are few. The distance that remains is measured by cross-validation, and goes into every
posterior.

A calibrated model finds more twins in a noiseless survey (`training.fitting.twins_found`). With `--find` the
response is fitted again to all of them.
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
from training.fitting.gaussdis import (
    SAMPLE,
    STARS,
    Stars,
    posterior_covariances,
    stars_of,
    with_metric,
    with_tensors,
)
from training.fitting.twins_found import fewest_pairs, find_twins, fit_to_pairs
from training.surveys.pairs import pair_groups
from training.surveys.survey import Survey
from training.surveys.used_surveys import record


@dataclass(frozen=True)
class MapPrior:
    """The prior of a map: its terms' degrees in u, and their expected sizes.

    A turn between a latent that moves spectra much and one that moves them little would show in the response:
    its expected size is `linear` times the ratio of the two, that of a product `square` times that of the
    smallest to the largest of the three latents in it.
    """

    degree: int
    square_degree: int
    linear: float
    square: float
    residual: float
    """Expected variance between mapped pairs, in units of the noise at `WEIGHT_SNR`."""


MAP_PRIORS = tuple(
    MapPrior(degree, square_degree, linear, square, residual)
    for degree, square_degree in ((2, 0), (2, 1), (3, 1), (3, 2))
    for linear in (0.03, 0.1)
    for square in ((0.003, 0.01, 0.03) if square_degree else (0.0,))
    for residual in (0.01, 0.1, 10.0)
)
"""Priors that are tried; cross-validation chooses one for each latent."""

OFFSET = 0.1
"""Expected size of the terms without a latent."""

PAIR_WEIGHT = 30.0
"""Weight of a star whose twin is known when the response is fitted again; the rest have 1."""

WEIGHT_SNR = 50.0
WEAKEST = 1e-3
"""Lower bound of the information on an axis."""

FOLDS = 5

RECORDED = ("pairs", "pairs_survey_seed", "pairs_survey_spectra", "found_pairs", "calibrated_before")
"""Keys of a calibration in a card's training record."""


@dataclass
class PairMap:
    """The map from a response's latents to those in which twins are equal, for parameters in `ranges` (U, 2).

    Fitted along `axes` (D, D), those of the mean posterior covariance at `WEIGHT_SNR`, of variances `noise`
    (D,). Polynomials of u have zero mean and unit scatter over `centre` (S, U), so the map changes nothing on
    average.
    """

    ranges: Array
    centre: Array
    axes: Array
    noise: Array

    @classmethod
    def of(cls, covariance: Array, ranges: Array, centre: Array) -> PairMap:
        """For a mean posterior covariance (D, D)."""
        noise, axes = np.linalg.eigh(covariance)
        return cls(ranges, centre, axes, noise)

    def fit(self, pairs: Array, parameters: Array) -> None:
        """Make latents `pairs` (2, P, D) at parameters (2, P, U) equal, by ridge regression.

        The prior of each latent is the one with the smallest mean squared leave-one-out residual.
        """
        along = pairs @ self.axes
        gap = along[0] - along[1]
        self.chosen: list[tuple[MapPrior, Array]] = [(MAP_PRIORS[0], np.zeros(0))] * len(self.noise)
        best = np.full(len(self.noise), np.inf)
        bar = tqdm(total=len(MAP_PRIORS), desc="map", leave=False, file=sys.stderr, disable=None)
        for _, same in groupby(MAP_PRIORS, lambda prior: (prior.degree, prior.square_degree)):
            priors = list(same)  # of the same features: products of these are made once for all of them
            change = self._change(along, parameters, priors[0])
            for latent, noise in enumerate(self.noise):
                ratios = self._ratios(latent, priors[0])
                ends = np.cumsum([len(ratio) for ratio in ratios])[:-1]
                parts = [
                    part * ratio for part, ratio in zip(np.split(change, ends, axis=1), ratios, strict=True)
                ]
                grams = [part @ part.T for part in parts]
                for prior in priors:
                    scales = OFFSET, prior.linear, prior.square
                    gram = sum(scale**2 * each for scale, each in zip(scales, grams, strict=True))
                    inverse = np.linalg.inv(gram + prior.residual * noise * np.eye(len(gap)))
                    dual = inverse @ gap[:, latent]
                    error = float(np.square(dual / np.diag(inverse)).mean())
                    if error < best[latent]:
                        best[latent] = error
                        sizes = np.concatenate([s * ratio for s, ratio in zip(scales, ratios, strict=True)])
                        self.chosen[latent] = prior, -np.square(sizes) * (change.T @ dual)
            bar.update(len(priors))
        bar.close()

    def _change(self, along: Array, parameters: Array, prior: MapPrior) -> Array:
        """Differences (P, F) of the features between the stars of each pair."""
        first, second = (self._features(z, u, prior) for z, u in zip(along, parameters, strict=True))
        return first - second

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Mapped latents (N, D)."""
        out = np.empty_like(latents)
        for start in range(0, len(latents), SAMPLE):
            rows = slice(start, start + SAMPLE)
            along = latents[rows] @ self.axes
            moved = along.copy()
            for degrees in {(prior.degree, prior.square_degree) for prior, _ in self.chosen}:
                some = [
                    latent
                    for latent, (prior, _) in enumerate(self.chosen)
                    if (prior.degree, prior.square_degree) == degrees
                ]
                features = self._features(along, parameters[rows], self.chosen[some[0]][0])
                moved[:, some] += features @ np.stack([self.chosen[latent][1] for latent in some], axis=1)
            out[rows] = moved @ self.axes.T
        return out

    def _features(self, latents: Array, parameters: Array, prior: MapPrior) -> Array:
        """Features (N, F) that the map is linear in."""
        rows, columns = np.triu_indices(latents.shape[1])
        linear, square = (self._standard(parameters, degree) for degree in (prior.degree, prior.square_degree))
        products = latents[:, rows] * latents[:, columns] - (rows == columns)
        parts = [linear]
        for polynomial, values in ((linear, latents), (square, products)):
            parts.append((polynomial[:, :, None] * values[:, None]).reshape(len(latents), -1))
        return np.concatenate(parts, axis=1)

    def _ratios(self, latent: int, prior: MapPrior) -> list[Array]:
        """Expected size of each coefficient in the map of one latent.

        Of the terms without a latent, of those with one and of those with a product, in units of `OFFSET`,
        `MapPrior.linear` and `MapPrior.square`.
        """
        rows, columns = np.triu_indices(len(self.noise))
        strength = np.sqrt(np.maximum(1 / self.noise - 1, WEAKEST))
        own = np.full(len(rows), strength[latent])
        three = np.stack([own, strength[rows], strength[columns]])
        two = np.stack([own[: len(strength)], strength])
        first, second = (
            len(exponents(len(self.ranges), degree)) - 1 for degree in (prior.degree, prior.square_degree)
        )
        linear, square = (values.min(axis=0) / values.max(axis=0) for values in (two, three))
        return [np.ones(first), np.tile(linear, first), np.tile(square, second)]

    def _standard(self, parameters: Array, degree: int) -> Array:
        usual = design(self.centre, self.ranges, degree)[:, 1:]
        polynomial = design(parameters, self.ranges, degree)[:, 1:]
        return np.asarray((polynomial - usual.mean(axis=0)) / usual.std(axis=0))


def align(model: GaussDis, stars: Stars, pairs: NDArray[np.int64]) -> tuple[Response, Array]:
    """Response and scatter (K, K) in which the stars of pairs (P, 2), rows of `stars`, have one latent."""
    some = slice(0, SAMPLE // 4)
    typical = posterior_covariances(model, stars.parameters[some], stars.latents[some], WEIGHT_SNR).mean(axis=0)
    pair_map = PairMap.of(typical, model.ranges, stars.parameters[:SAMPLE])
    pair_map.fit(stars.latents[pairs.T], stars.parameters[pairs.T])
    aligned = Stars(stars.coefficients, stars.parameters, pair_map(stars.latents, stars.parameters))
    aligned.whiten()
    average_latents(aligned.latents, pairs)
    weights = np.ones(len(stars.coefficients))
    weights[pairs] = PAIR_WEIGHT
    return aligned.fitted(model.ranges, weights)


def average_latents(latents: Array, pairs: NDArray[np.int64]) -> None:
    """Give all stars of a group of `pairs` (P, 2), rows of `latents` (N, D), the mean of their latents."""
    group = pair_groups(pairs)
    stars, first = np.unique(pairs, return_index=True)
    member = group[first // 2]
    total = np.zeros((group.max() + 1, latents.shape[1]))
    np.add.at(total, member, latents[stars])
    latents[stars] = (total / np.bincount(member)[:, None])[member]


def calibrate(
    model: GaussDis, survey: Survey, pairs: NDArray[np.int64], name: str, find: bool = False
) -> GaussDis:
    """Calibrate a model on known pairs, so that twins have equal latents.

    Parameters
    ----------
    model : GaussDis
        The model to calibrate.
    survey : Survey
        The survey of the pairs.
    pairs : array of int (P, 2)
        Rows of `survey`.
    name : str
        The new model's name.
    find : bool
        Find twins among the survey's other stars, and fit the response to them; the known pairs then measure
        the residue.

    Returns
    -------
    GaussDis
        The calibrated model.

    Raises
    ------
    InputError
        With `find`, for a survey too small for that, before any work, and if the model finds too few twins.
    """
    unpaired = np.setdiff1d(np.arange(len(survey)), pairs)
    if find:
        _check_find(model, survey, len(unpaired))
    coefficients, parameters = stars_of(survey, model)
    training: dict[str, Any] = {"pairs": len(pairs), **record(survey, "pairs_survey")}
    how = f"on {len(pairs)} known pairs"
    calibrated = _calibrated(model, coefficients, parameters, pairs, how)
    if find:
        found = unpaired[find_twins(calibrated, coefficients[unpaired], parameters[unpaired])]
        training["found_pairs"], how = len(found), f"{how} and {len(found)} that the model found"
        calibrated = _refitted(calibrated, coefficients, parameters, pairs, found, how)
    before = model.card.training
    if earlier := {key: before[key] for key in RECORDED if key in before}:
        training["calibrated_before"] = earlier
    training = {key: value for key, value in before.items() if key not in RECORDED} | training
    return with_tensors(calibrated, dataclasses.replace(calibrated.card, name=name, training=training))


def _check_find(model: GaussDis, survey: Survey, unpaired: int) -> None:
    """Raise InputError unless `unpaired`, the number of stars in no known pair, is enough to find twins."""
    survey.check_noiseless()
    needed = fewest_pairs(model.card.latent_dim, model.ranges)
    if unpaired < 2 * needed:
        raise InputError(
            f"--find needs {needed} or more pairs of twins beside the known ones, for {model.card.latent_dim} "
            f"latents: {2 * needed} stars at least. {survey.path} has {unpaired} beside the known pairs: "
            "leave out --find, or take a larger survey"
        )


def _calibrated(
    model: GaussDis, coefficients: Array, parameters: Array, pairs: NDArray[np.int64], how: str
) -> GaussDis:
    """`model` calibrated on pairs (P, 2), rows of `coefficients` (N, K) at parameters (N, U)."""
    used, chosen = np.unique(pairs, return_inverse=True)
    unpaired = np.setdiff1d(np.arange(len(coefficients)), used)
    used = np.concatenate([unpaired[: max(0, STARS - len(used))], used])
    pairs = len(used) - chosen.max() - 1 + chosen.reshape(pairs.shape)
    coefficients, parameters = coefficients[used], parameters[used]
    stars = Stars(coefficients, parameters, np.zeros((len(coefficients), model.card.latent_dim)))
    group, gaps = pair_groups(pairs), []
    count = min(FOLDS, int(group.max()) + 1)
    with tqdm(total=count + 2, desc="calibrate", unit="fit", file=sys.stderr, disable=None) as bar:
        stars.refine(model.response, model.scatter)
        bar.update()
        for fold in range(count):
            held_out = group % count == fold
            arrays = (coefficients, parameters, stars.latents)
            test = Stars(*(values[pairs[held_out].ravel()] for values in arrays))
            test.refine(*align(model, stars, pairs[~held_out]))
            gaps.append(test.latents[::2] - test.latents[1::2])
            bar.update()
        response, scatter = align(model, stars, pairs)
        stars.refine(response, scatter)
        bar.update()
    return _with_response(model, response, scatter, np.concatenate(gaps), stars, how)


def _refitted(
    model: GaussDis,
    coefficients: Array,
    parameters: Array,
    known: NDArray[np.int64],
    found: NDArray[np.int64],
    how: str,
) -> GaussDis:
    """`model` with the response of twins `found` (F, 2), the residue measured on those `known` (P, 2).

    Both are rows of `coefficients` (N, K) at parameters (N, U).
    """
    stars = Stars(
        coefficients[found.ravel()], parameters[found.ravel()], np.zeros((found.size, model.card.latent_dim))
    )
    response, scatter = fit_to_pairs(stars, model.response, model.scatter)
    test = Stars(
        coefficients[known.ravel()], parameters[known.ravel()], np.zeros((known.size, model.card.latent_dim))
    )
    test.refine(response, scatter)
    return _with_response(model, response, scatter, test.latents[::2] - test.latents[1::2], stars, how)


def _with_response(
    model: GaussDis, response: Response, scatter: Array, gaps: Array, stars: Stars, how: str
) -> GaussDis:
    """`model` with another response, the residue of noiseless twins' `gaps` (P, D) and the metric of both."""
    residue = gaps.T @ gaps / len(gaps)
    calibrated = with_tensors(model, model.card, scatter=scatter, residue=residue, **response.arrays())
    return with_metric(calibrated, stars, how)

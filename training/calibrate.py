"""Calibrating GaussDis on a few hundred known pairs of chemically identical stars.

    chemtwin calibrate gaussdis.safetensors survey.h5 --pairs pairs.csv --out calibrated.safetensors

Independence of latent and u does not say which latent at one u means the same as which at another; pairs do, in
the manner of RSCA (de Mijolla & Ness 2022), but with a map that depends on u: z' = z + sum of polynomials of u
times (a constant, z, products of z), fitted by ridge regression to make the pairs meet. After each map the
response is fitted again to the whole survey, without labels, which smooths what the few pairs leave open. What
still separates pairs is measured on those that a first calibration did not see, and goes into every posterior.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.basis import design
from model.gaussdis import GaussDis
from model.grid import Array
from model.response import Response
from training.gaussdis import ROUNDS, SAMPLE, STARS, Stars, set_metric, spread, stars_of
from training.survey import Survey

DEGREES = ((1, 0), (2, 0), (2, 1))
"""Degrees in u of the map's linear and square terms that are tried."""

SIZES = (0.01, 0.03, 0.1)
"""Standard deviations of the map's coefficients that are tried."""

SQUARE = 0.3
"""How much smaller the coefficients of products are expected to be."""

LEFT = 0.1
"""Variance that is expected to remain between pairs, in units of the weighting noise."""

WEIGHT_SNR = 50.0
FEWEST = 20


def read_pairs(path: Path, survey: Survey) -> NDArray[np.int64]:
    """Rows (P, 2) of the pairs in a CSV file with columns star_id and twin_id. Raises ValueError."""
    row = {star_id: number for number, star_id in enumerate(survey.star_id)}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if not {"star_id", "twin_id"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} needs the columns star_id and twin_id")
        named = [(line["star_id"], line["twin_id"]) for line in reader]
    unknown = sorted({star_id for pair in named for star_id in pair} - set(row))
    if unknown:
        raise ValueError(f"{path}: {len(unknown)} stars are not in {survey.path}, the first is {unknown[0]}")
    if len(named) < FEWEST:
        raise ValueError(f"{path} holds {len(named)} pairs: a calibration takes {FEWEST} or more")
    return np.array([[row[a], row[b]] for a, b in named], dtype=np.int64)


@dataclass
class Frame:
    """The map z' = z + features(z, u) . `weights` over parameters in `ranges` (U, 2), of `degrees` in u.

    Polynomials of u are taken about their means over `centre` (S, U), so the map changes nothing on average.
    """

    ranges: Array
    centre: Array
    degrees: tuple[int, int]
    weights: Array

    def features(self, latents: Array, parameters: Array) -> tuple[Array, Array]:
        """What the map is linear in (N, F), and the expected size of each coefficient (F,)."""
        rows, columns = np.triu_indices(latents.shape[1])
        linear, square = (self._centred(parameters, degree) for degree in self.degrees)
        products = latents[:, rows] * latents[:, columns] - (rows == columns)
        parts = [linear]
        for polynomial, values in ((linear, latents), (square, products)):
            parts.append((polynomial[:, :, None] * values[:, None]).reshape(len(latents), -1))
        sizes = np.concatenate(
            [np.ones(parts[0].shape[1] + parts[1].shape[1]), np.full(parts[2].shape[1], SQUARE)]
        )
        return np.concatenate(parts, axis=1), sizes

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Mapped latents (N, D)."""
        out = np.empty_like(latents)
        for start in range(0, len(latents), SAMPLE):
            rows = slice(start, start + SAMPLE)
            features, _ = self.features(latents[rows], parameters[rows])
            out[rows] = latents[rows] + features @ self.weights
        return out

    def fit(self, pairs: Array, parameters: Array, weight: Array, size: float) -> None:
        """Make latents `pairs` (2, P, D) at parameters (2, P, U) meet, by ridge regression.

        `weight` (D, D) is the inverse covariance that differences are measured by, `size` the expected size of
        the coefficients.
        """
        (left, sizes), (right, _) = (self.features(z, u) for z, u in zip(pairs, parameters, strict=True))
        change = (left - right) * sizes
        values, vectors = np.linalg.eigh(weight)
        gap = (pairs[0] - pairs[1]) @ vectors
        spectrum, basis = np.linalg.eigh(change @ change.T)
        damped = spectrum[:, None] + LEFT / (size**2 * values)
        dual = basis @ ((basis.T @ gap) / damped)
        self.weights = -(sizes[:, None] * (change.T @ dual)) @ vectors.T

    def _centred(self, parameters: Array, degree: int) -> Array:
        means = design(self.centre, self.ranges, degree)[:, 1:].mean(axis=0)
        return np.asarray(design(parameters, self.ranges, degree)[:, 1:] - means)


def best_frame(pairs: Array, parameters: Array, weight: Array, ranges: Array, centre: Array) -> Frame:
    """The map that makes pairs meet best which it was not fitted to, in two folds; fitted to all of them."""
    folds = np.arange(pairs.shape[1]) % 2
    found: dict[tuple[tuple[int, int], float], float] = {}
    for degrees, size in itertools.product(DEGREES, SIZES):
        frame = Frame(ranges, centre, degrees, np.zeros(0))
        missed = 0.0
        for fold in (0, 1):
            seen, kept = folds == fold, folds != fold
            frame.fit(pairs[:, seen], parameters[:, seen], weight, size)
            gap = np.subtract(*(frame(z[kept], u[kept]) for z, u in zip(pairs, parameters, strict=True)))
            missed += float(np.einsum("nd,de,ne->", gap, weight, gap))
        found[degrees, size] = missed
    degrees, size = min(found, key=lambda choice: found[choice])
    frame = Frame(ranges, centre, degrees, np.zeros(0))
    frame.fit(pairs, parameters, weight, size)
    return frame


def align(model: GaussDis, stars: Stars, pairs: NDArray[np.int64]) -> tuple[Response, Array]:
    """Maps and responses in turns; leaves `stars` with the aligned latents. Returns response and scatter."""
    response, scatter = model.response, model.scatter
    centre = stars.parameters[:SAMPLE]
    for _ in range(ROUNDS):
        typical = _typical(model, response, scatter, stars)
        wanted = np.asarray(np.linalg.inv(typical), dtype=np.float64)
        both = pairs.T
        frame = best_frame(stars.latents[both], stars.parameters[both], wanted, model.ranges, centre)
        stars.latents = frame(stars.latents, stars.parameters)
        stars.whiten()
        response, scatter = stars.fitted(model.ranges)
        stars.refine(response, scatter)
    return response, scatter


def _typical(model: GaussDis, response: Response, scatter: Array, stars: Stars) -> Array:
    """Mean posterior covariance (D, D) at the S/N that weights the pairs."""
    there = _copy(model, response, scatter, np.zeros_like(model.residue))
    some = slice(0, SAMPLE // 4)
    return np.asarray(spread(there, stars.parameters[some], stars.latents[some], WEIGHT_SNR).mean(axis=0))


def _copy(model: GaussDis, response: Response, scatter: Array, residue: Array) -> GaussDis:
    arrays = {**model.arrays(), **response.arrays(), "scatter": scatter, "residue": residue}
    return GaussDis(model.card, model.grid, model.normaliser, **arrays)


def calibrate(model: GaussDis, survey: Survey, pairs: NDArray[np.int64], name: str) -> GaussDis:
    """`model` with twins that meet: calibrated on `pairs` (P, 2), rows of `survey`."""
    used, chosen = np.unique(pairs, return_inverse=True)
    used = np.concatenate([used, np.setdiff1d(np.arange(len(survey)), used)[: STARS - len(used)]])
    pairs = chosen.reshape(pairs.shape)
    seen, parameters = (values[used] for values in stars_of(survey, model))
    start = Stars(seen, parameters, np.zeros((len(seen), model.card.latent_dim)))
    start.refine(model.response, model.scatter)
    half = np.arange(len(pairs)) % 2 == 0
    with tqdm(total=2, desc="calibrate", file=sys.stderr, disable=None) as bar:
        trial = dataclasses.replace(start)
        align(model, trial, pairs[half])
        gap = np.subtract(*trial.latents[pairs[~half].T])
        bar.update()
        response, scatter = align(model, start, pairs)
        bar.update()
    calibrated = _copy(model, response, scatter, gap.T @ gap / len(gap))
    told = model.card.training | {"pairs": len(pairs), "pairs_survey_seed": survey.seed}
    calibrated.card = dataclasses.replace(model.card, name=name, training=told)
    set_metric(calibrated, parameters, start.latents, f"on {len(pairs)} known pairs")
    return calibrated

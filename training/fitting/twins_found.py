"""Twins that a calibrated GaussDis finds itself in a survey without noise, and the response in which they meet.

Where spectra hold no noise, twins lie as far apart as the residue says, and nearly all other stars lie several
times as far: twins of a survey that has some are found without being named. Thousands of them say themselves,
without a map between latents, in which response both stars of each have one latent.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from model.errors import InputError
from model.methods.gaussdis import GaussDis
from model.methods.response import Response, terms
from model.similarity.same_star import Likelihood
from model.spectra.grid import Array
from training.fitting.gaussdis import Stars

ODDS = 1000.0
"""Least odds of a pair of being twins, where any one of the other stars might be the twin."""

DEGREES = (6, 5, 3)
"""Degrees in u of the response's mean, of its linear terms and of those of products."""

LEADING = 4
"""Latents, those that move spectra most, that come in products of three."""

FEWEST = 2
"""Pairs for each of its terms, or more."""

TURNS = 4


def find_twins(model: GaussDis, seen: Array, parameters: Array) -> NDArray[np.int64]:
    """Pairs (P, 2) of rows of noiseless coefficients `seen` (N, K) at parameters (N, U) that are twins.

    Each star of a pair is the other's nearest in units of the residue, and the likelihood ratio of the pair
    makes for `ODDS`. A star is in one pair at most.
    """
    if len(seen) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    stars = Stars(seen, parameters, np.zeros((len(seen), model.card.latent_dim)))
    stars.refine(model.response, model.scatter)
    scaled = stars.latents @ np.linalg.cholesky(np.linalg.inv(model.residue))
    nearest = cKDTree(scaled).query(scaled, k=2)[1][:, 1]
    rows = np.arange(len(seen))
    first = rows[(nearest[nearest] == rows) & (rows < nearest)]
    second = nearest[first]
    unit, own = np.eye(len(model.residue)), 0.5 * model.residue
    shrunk = np.linalg.solve(unit + own, own)
    means = stars.latents - stars.latents @ shrunk
    posteriors = Likelihood.of(means, np.broadcast_to(shrunk, (len(means), *shrunk.shape)))
    sure = posteriors.pairs(first, second) > np.log(len(seen) * ODDS)
    return np.stack([first[sure], second[sure]], axis=1)


def fewest_pairs(latents: int, ranges: Array) -> int:
    """Pairs that determine the response of so many latents over parameters in `ranges` (U, 2), at least."""
    star = np.zeros((1, latents)), ranges.T[:1]
    return FEWEST * int(terms(*star, ranges, DEGREES, min(LEADING, latents)).shape[1])


def hold_together(stars: Stars, response: Response, scatter: Array) -> tuple[Response, Array]:
    """Response and scatter (K, K) of `stars`, twins in neighbouring rows, with one latent for both of a pair.

    In turns: both get the mean of their latents by the last response, weighted with the information on each,
    strongest latents first, and the response is fitted to these. Raises InputError for fewer pairs than it
    takes.
    """
    pairs, size = len(stars.seen) // 2, stars.latents.shape[1]
    leading = min(LEADING, size)
    fewest = fewest_pairs(size, response.ranges)
    if pairs < fewest:
        raise InputError(f"{pairs} pairs of twins are found in the survey, and {fewest} are needed")
    unit = np.eye(size)
    for _ in tqdm(range(TURNS), desc="hold together", file=sys.stderr, disable=None):
        precision = stars.refine(response, scatter) + unit
        pulled = np.matmul(precision, stars.latents[:, :, None])
        shared = np.linalg.solve(precision[::2] + precision[1::2] - unit, pulled[::2] + pulled[1::2])
        stars.latents = np.repeat(shared[:, :, 0], 2, axis=0)
        stars.whiten()
        _, axes = np.linalg.eigh(precision.mean(axis=0))
        stars.latents = stars.latents @ axes[:, ::-1]
        response, scatter = stars.fitted(response.ranges, degrees=DEGREES, leading=leading)
    return response, scatter

"""Find twins in a noiseless survey by a calibrated GaussDis, and fit a response in which they have one latent.

Without noise the distance of twins is that of the residue, and nearly all other stars lie several times as far
away: the twins of a survey are found without known pairs. Thousands of them determine, without a map between
latents, the response in which both stars of a pair have one latent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from model.errors import InputError
from model.methods.gaussdis import GaussDis
from model.methods.response import Response, terms
from model.similarity.likelihood_ratio import Likelihood
from model.spectra.grid import Array
from training.fitting.gaussdis import Stars
from training.fitting.groups import fit_to_groups

ODDS = 1000.0
"""Least odds of a pair of being twins, where any one of the other stars might be the twin."""

DEGREES = (6, 5, 3)
"""Degrees in u of the response's mean, of its linear terms and of those of products."""

LEADING = 4
"""Number of latents, those with the largest effect on spectra, that come in products of three."""

FEWEST = 2
"""Least number of pairs for each term."""

TURNS = 4


def find_twins(model: GaussDis, coefficients: Array, parameters: Array) -> NDArray[np.int64]:
    """Pairs (P, 2) of rows of noiseless `coefficients` (N, K) at parameters (N, U) that are twins.

    Each star of a pair is the other's nearest in units of the residue, and the likelihood ratio of the pair
    makes for `ODDS`. A star is in one pair at most.
    """
    if len(coefficients) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    stars = Stars(coefficients, parameters, np.zeros((len(coefficients), model.card.latent_dim)))
    stars.refine(model.response, model.scatter)
    scaled = stars.latents @ np.linalg.cholesky(np.linalg.inv(model.residue))
    nearest = cKDTree(scaled).query(scaled, k=2)[1][:, 1]
    rows = np.arange(len(coefficients))
    first = rows[(nearest[nearest] == rows) & (rows < nearest)]
    second = nearest[first]
    unit, half = np.eye(len(model.residue)), 0.5 * model.residue
    shrunk = np.linalg.solve(unit + half, half)
    means = stars.latents - stars.latents @ shrunk
    posteriors = Likelihood.of(means, np.broadcast_to(shrunk, (len(means), *shrunk.shape)))
    sure = posteriors.pairs(first, second) > np.log(len(coefficients) * ODDS)
    return np.stack([first[sure], second[sure]], axis=1)


def fewest_pairs(latents: int, ranges: Array) -> int:
    """Pairs that determine the response of so many latents over parameters in `ranges` (U, 2), at least."""
    star = np.zeros((1, latents)), ranges.T[:1]
    return FEWEST * int(terms(*star, ranges, DEGREES, min(LEADING, latents)).shape[1])


def fit_to_pairs(stars: Stars, response: Response, scatter: Array) -> tuple[Response, Array]:
    """Response and scatter (K, K) of `stars`, twins in neighbouring rows, with one latent for each pair.

    Raises InputError for too few pairs.
    """
    pairs, size = len(stars.coefficients) // 2, stars.latents.shape[1]
    fewest = fewest_pairs(size, response.ranges)
    if pairs < fewest:
        raise InputError(f"{pairs} pairs of twins are found in the survey, and {fewest} are needed")
    group = np.repeat(np.arange(pairs), 2)
    return fit_to_groups(stars, group, (response, scatter), DEGREES, min(LEADING, size), TURNS)

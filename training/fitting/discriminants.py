"""First latents of GaussDis from groups of stars of one chemistry: linear discriminants.

A latent must be equal within a group and differ between groups. The functions polynomial(u) x coefficients of
the spectrum that do this best solve a generalised eigenvalue problem (Fisher 1936; on stellar spectra de
Mijolla & Ness 2022, without u). A weak element comes after nonlinear functions of the strong ones. So each
discriminant is taken less what a polynomial of those before it predicts, and is dropped where little remains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from tqdm import tqdm

from model.methods.basis import design, exponents
from model.spectra.grid import Array
from training.fitting.groups import group_means

DEGREE = 3
"""Highest degree in u of the functions."""

STARS_PER_FUNCTION = 10

NOISE = 0.003
"""Standard deviation of noise that is added to each coefficient within a group: tiny ones must not count."""

CANDIDATES = 60
LEADING = 5
"""The first latents, whose products of three are among what predicts the next."""

LEAST_NEW = 0.3
"""Least fraction of a discriminant's variance that those before it must not predict."""

MOST_WITHIN = 0.4
"""Largest variance within groups, as a fraction of the whole, of what is new.

On the giant branch 0.4 leaves 18 latents for 18 elements; 0.6 adds 11 that follow from these.
"""

BATCH_STARS = 4096


def discriminants(coefficients: Array, parameters: Array, ranges: Array, group: NDArray[np.int64]) -> Array:
    """First latents of stars of known groups.

    Parameters
    ----------
    coefficients : array (N, K)
        Spectral coefficients, without noise.
    parameters : array (N, U)
        The stars' parameters.
    ranges : array (U, 2)
        Training ranges of the parameters.
    group : array of int (N,)
        The group of each star, from 0.

    Returns
    -------
    array (N, D)
        Latents of unit variance; the functions decide how many.
    """
    scale = coefficients.std(axis=0)
    degree = _degree(coefficients.shape, parameters.shape[1])
    usual = coefficients[:BATCH_STARS] / scale

    def features() -> Iterator[tuple[slice, Array]]:
        for start in tqdm(range(0, len(group), BATCH_STARS), desc="discriminants", leave=False, disable=None):
            rows = slice(start, start + BATCH_STARS)
            terms = design(parameters[rows], ranges, degree)
            products = terms[:, :, None] * (coefficients[rows] / scale)[:, None]
            yield rows, np.concatenate([terms[:, 1:], products.reshape(len(terms), -1)], axis=1)

    polynomial = design(parameters[:BATCH_STARS], ranges, degree)
    size = polynomial.shape[1] * (1 + usual.shape[1]) - 1
    total, square = np.zeros(size), np.zeros((size, size))
    between, count = np.zeros((group.max() + 1, size), dtype=np.float32), np.bincount(group)
    for rows, values in features():
        total += values.sum(axis=0)
        square += values.T @ values
        np.add.at(between, group[rows], values.astype(np.float32))
    mean = total / len(group)
    covariance = square / len(group) - np.outer(mean, mean)
    means = between / np.sqrt(count, dtype=np.float32)[:, None]
    within = (square - _square(means)) / max(len(group) - len(count), 1)
    noise = np.mean(polynomial**2, axis=0)[:, None] * np.square(NOISE / scale)
    floor = np.concatenate([np.zeros(polynomial.shape[1] - 1), noise.ravel()]) + 1e-6
    axes = eigh(within + np.diag(floor), covariance + np.diag(floor), subset_by_index=[0, CANDIDATES - 1])[1]
    values = np.concatenate([(values - mean) @ axes for _, values in features()])
    return _independent(values / values.std(axis=0), group)


def _degree(shape: tuple[int, ...], parameters: int) -> int:
    """The highest degree in u of functions that stars with coefficients of this `shape` (N, K) can carry."""
    stars, coefficients = shape
    carried = [
        degree
        for degree in range(DEGREE + 1)
        if stars >= STARS_PER_FUNCTION * coefficients * len(exponents(parameters, degree))
    ]
    return max(carried, default=0)


def _square(means: NDArray[Any]) -> Array:
    """Sum (F, F) of the products of `means` (G, F), in double precision."""
    total = np.zeros((means.shape[1],) * 2)
    for start in range(0, len(means), BATCH_STARS):
        block = means[start : start + BATCH_STARS].astype(np.float64)
        total += block.T @ block
    return total


def _independent(candidates: Array, group: NDArray[np.int64]) -> Array:
    """Those (N, D) of `candidates` (N, C), best first, that are no function of the ones before."""
    chosen = np.zeros((len(candidates), 0))
    for values in candidates.T:
        predictors = _polynomial(chosen)
        gram = predictors.T @ predictors + 1e-6 * len(values) * np.eye(predictors.shape[1])
        new = values - predictors @ np.linalg.solve(gram, predictors.T @ values)
        within = np.square(new - group_means(new[:, None], group)[group, 0]).sum() / (
            len(group) - group.max() - 1
        )
        if new.var() > LEAST_NEW and within < MOST_WITHIN * new.var():
            chosen = np.column_stack([chosen, new / new.std()])
    return chosen


def _polynomial(latents: Array) -> Array:
    """All products of two latents (N, D), and of three of the `LEADING` ones, with lower orders."""
    one = np.column_stack([np.ones(len(latents)), latents])
    first, second = np.triu_indices(one.shape[1])
    leading = one[:, : LEADING + 1]
    a, b = np.triu_indices(leading.shape[1])
    cubes = ((leading[:, a] * leading[:, b])[:, :, None] * leading[:, None, 1:]).reshape(len(one), -1)
    return np.concatenate([one[:, first] * one[:, second], cubes], axis=1)

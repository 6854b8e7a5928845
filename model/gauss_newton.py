"""The fit of a latent to spectral coefficients, compiled: each star by itself, whatever it is fitted beside."""

from __future__ import annotations

import math

import numpy as np

from model.compiled import compiled
from model.grid import Array

STEPS = 30
LONGEST = 3.0
"""No step of the fit is longer, in units of the prior's standard deviation."""

SLACK = 0.1
"""Each step of a fit that converges is shorter than the one before, by at least this part of its share."""


@compiled
def gauss_newton(
    mean: Array,
    linear: Array,
    products: Array,
    leading: int,
    seen: Array,
    precision: Array,
    start: Array,
    tolerance: float,
) -> tuple[Array, Array]:
    """The most probable latents (N, D) under a unit Gaussian prior, and the information (N, D, D) on them.

    The response of each star is `mean` (N, K), `linear` (N, D, K) and `products` (N, M, K), of two latents and
    then of three of the first `leading`. `seen` (N, K) are its coefficients; `precision`, their inverse
    covariance, is (N, K, K), or (N, 1, K) where they are independent, or has one row for all. A fit goes from
    `start` (N, D) until its step is below `tolerance`, in units of the posterior's standard deviation. One
    whose steps do not get shorter, though taken whole, goes to and fro about its end: they are halved from
    then on.
    """
    stars, size, count = linear.shape
    latents = start.copy()
    information = np.empty((stars, size, size))
    slope, weighted = np.empty((size, count)), np.empty((size, count))
    left, step, factor = np.empty(count), np.empty(size), np.empty((size, size))
    for star in range(stars):
        weight = precision[min(star, len(precision) - 1)]
        own, latent = information[star], latents[star]
        share, last, whole = 1.0, np.inf, False
        for _ in range(STEPS):
            _respond(latent, mean[star], linear[star], products[star], leading, seen[star], slope, left)
            _weigh(slope, weight, weighted)
            length = _step(weighted, slope, left, latent, own, factor, step)
            if whole and length > (1 - SLACK * share) * last:
                share *= 0.5
            longest = LONGEST / max(_norm(step), 1e-300)
            last, whole = length, longest >= share
            for axis in range(size):
                latent[axis] += step[axis] * min(share, longest)
            if length <= tolerance:
                break
    return latents, information


@compiled
def _add(factor: float, other: Array, one: Array) -> None:
    """Add `factor` times `other` (K,) to `one` (K,)."""
    for place in range(len(one)):
        one[place] += factor * other[place]


@compiled
def _respond(
    latent: Array,
    mean: Array,
    linear: Array,
    products: Array,
    leading: int,
    seen: Array,
    slope: Array,
    left: Array,
) -> None:
    """The response's derivatives at `latent` (D,) into `slope` (D, K); `seen` less the response into `left`."""
    for axis in range(len(latent)):
        for place in range(len(left)):
            slope[axis, place] = linear[axis, place]
    product = 0
    for first in range(len(latent)):
        for second in range(first, len(latent)):
            _add(latent[second], products[product], slope[first])
            _add(latent[first], products[product], slope[second])
            product += 1
    for place in range(len(left)):
        left[place] = seen[place] - mean[place]
    for axis in range(len(latent)):
        half = 0.5 * latent[axis]
        for place in range(len(left)):
            left[place] -= half * (linear[axis, place] + slope[axis, place])
    for first in range(leading):
        for second in range(first, leading):
            for third in range(second, leading):
                one, two, three, own = latent[first], latent[second], latent[third], products[product]
                _add(-one * two * three, own, left)
                _add(two * three, own, slope[first])
                _add(one * three, own, slope[second])
                _add(one * two, own, slope[third])
                product += 1


@compiled
def _weigh(slope: Array, weight: Array, weighted: Array) -> None:
    """Write `slope` (D, K) times `weight`, (K, K) or its diagonal (1, K), into `weighted` (D, K)."""
    for axis in range(len(slope)):
        if len(weight) == 1:
            for place in range(slope.shape[1]):
                weighted[axis, place] = slope[axis, place] * weight[0, place]
        else:
            weighted[axis] = 0.0
            for other in range(slope.shape[1]):
                _add(slope[axis, other], weight[other], weighted[axis])


@compiled
def _step(
    weighted: Array, slope: Array, left: Array, latent: Array, own: Array, factor: Array, step: Array
) -> float:
    """The next step (D,) of the fit at `latent` (D,) into `step`, and the information (D, D) there into `own`.

    Returns the step's length in units of the posterior's standard deviation.
    """
    for axis in range(len(step)):
        pull = -latent[axis]
        for place in range(len(left)):
            pull += weighted[axis, place] * left[place]
        step[axis] = pull
        for other in range(axis + 1):
            product = 0.0
            for place in range(len(left)):
                product += weighted[axis, place] * slope[other, place]
            own[axis, other] = own[other, axis] = product
            factor[axis, other] = product + (axis == other)
    # Cholesky's factor; the latents are too few for LAPACK
    for axis in range(len(step)):
        for other in range(axis + 1):
            rest = factor[axis, other]
            for place in range(other):
                rest -= factor[axis, place] * factor[other, place]
            factor[axis, other] = np.sqrt(rest) if axis == other else rest / factor[other, other]
        for place in range(axis):
            step[axis] -= factor[axis, place] * step[place]
        step[axis] /= factor[axis, axis]
    length: float = _norm(step)
    for axis in range(len(step) - 1, -1, -1):
        step[axis] /= factor[axis, axis]
        for place in range(axis):
            step[place] -= step[axis] * factor[axis, place]
    return length


@compiled
def _norm(vector: Array) -> float:
    square = 0.0
    for value in vector:
        square += value * value
    return math.sqrt(square)

"""Gauss-Newton fits of latents to spectral coefficients, compiled; each star's is independent of its batch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.compiled import compiled
from model.spectra.grid import Array

STEPS = 100
"""A fit that takes more has not converged. Stars in the range take 3 to 17, benchmarks/convergence.py."""

LONGEST = 3.0
"""No step of the fit is longer, in units of the prior's standard deviation."""

HALVINGS = 60
"""Most halvings of the second derivatives, after which they are negligible."""

SLOW = 0.5
"""A whole step of more than this fraction of the one before it calls for the response's curvature."""

DECREASE, ROUNDING = 1e-4, 1e-12
"""The least decrease of the objective, as a fraction of the one that the slope predicts; its rounding error."""


@compiled
def gauss_newton(
    mean: Array,
    linear: Array,
    products: Array,
    leading: int,
    coefficients: Array,
    precision: Array,
    start: Array,
    tolerance: float,
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Find the most probable latents under a unit Gaussian prior.

    Parameters
    ----------
    mean, linear, products : array (N, K), (N, D, K) and (N, M, K)
        The response of each star; products are those of two latents, then of three of the first `leading`.
    leading : int
        Latents that come in products of three.
    coefficients : array (N, K)
        Observed coefficients.
    precision : array (N, K, K), (N, 1, K) or one row for all
        Their inverse covariance; its diagonal where they are independent.
    start : array (N, D)
        Latents from which the fits start.
    tolerance : float
        A fit has converged when its next step is this short, in posterior standard deviations.

    Returns
    -------
    latents : array (N, D)
        The most probable latents.
    information : array (N, D, D)
        The information on them.
    steps : array of int (N,)
        The number of steps, more than `STEPS` where the fit did not converge.
    """
    stars, size, _ = linear.shape
    latents = start.copy()
    information = np.empty((stars, size, size))
    steps = np.empty(stars, dtype=np.int64)
    for star in range(stars):
        response = mean[star], linear[star], products[star], leading
        own = precision[min(star, len(precision) - 1)]
        steps[star] = _fit(response, coefficients[star], own, latents[star], information[star], tolerance)
    return latents, information, steps


@compiled
def _fit(
    response: tuple[Array, Array, Array, int],
    coefficients: Array,
    precision: Array,
    latent: Array,
    information: Array,
    tolerance: float,
) -> int:
    """Fit one star, from `latent` (D,) and into it; returns the number of steps.

    Notes
    -----
    The objective is (r' W r + z' z) / 2, with z the latent, r the residual and W its precision. A step s solves
    (J' W J + I) s = J' W r - z, J being the response's derivatives (Gauss-Newton). It is cut to `LONGEST` and
    halved until the objective decreases. Once a step was halved, or convergence is slow, the second derivatives
    of the response are subtracted (Newton), halved until the matrix is positive definite.
    """
    size, count = len(latent), len(coefficients)
    slope, weighted = np.empty((size, count)), np.empty((size, count))
    residual, weighted_residual = np.empty(count), np.empty(count)
    trial, step, gradient = np.empty(size), np.zeros(size), np.empty(size)
    curvature, factor = np.zeros((size, size)), np.empty((size, size))
    step_size, lowest, predicted, last, curved = 1.0, np.inf, 0.0, np.inf, False
    for number in range(1, STEPS + 1):
        for axis in range(size):
            trial[axis] = latent[axis] + step_size * step[axis]
        _respond(trial, response, coefficients, slope, residual)
        objective = _weigh(trial, residual, precision, weighted_residual)
        if not objective <= lowest - DECREASE * step_size * predicted + ROUNDING * objective:
            step_size, curved = 0.5 * step_size, True
            continue
        for axis in range(size):
            latent[axis] = trial[axis]
        lowest = objective
        _linearise(latent, slope, precision, weighted, weighted_residual, information, gradient)
        if curved:
            _curve(latent, response, weighted_residual, curvature)
        curvature_factor, length = 1.0 if curved else 0.0, -1.0
        for _ in range(HALVINGS):
            length = _solve(information, curvature_factor, curvature, gradient, factor, step)
            if length >= 0:
                break
            curvature_factor *= 0.5
        if 0 <= length <= tolerance:
            _add(1.0, step, latent)
            return number
        curved = curved or (step_size == 1.0 and length > SLOW * last)
        step_size, last, predicted = min(1.0, LONGEST / _norm(step)), length, _dot(gradient, step)
    return STEPS + 1


@compiled
def _add(factor: float, other: Array, one: Array) -> None:
    """Add `factor` times `other` (K,) to `one` (K,)."""
    for index in range(len(one)):
        one[index] += factor * other[index]


@compiled
def _respond(
    latent: Array,
    response: tuple[Array, Array, Array, int],
    coefficients: Array,
    slope: Array,
    residual: Array,
) -> None:
    """Write the response's derivatives at `latent` (D,) into `slope` (D, K), and the residual (K,)."""
    mean, linear, products, leading = response
    for axis in range(len(latent)):
        for index in range(len(residual)):
            slope[axis, index] = linear[axis, index]
    product = 0
    for first in range(len(latent)):
        for second in range(first, len(latent)):
            _add(latent[second], products[product], slope[first])
            _add(latent[first], products[product], slope[second])
            product += 1
    for index in range(len(residual)):
        residual[index] = coefficients[index] - mean[index]
    for axis in range(len(latent)):
        half = 0.5 * latent[axis]
        for index in range(len(residual)):
            residual[index] -= half * (linear[axis, index] + slope[axis, index])
    for first in range(leading):
        for second in range(first, leading):
            for third in range(second, leading):
                one, two, three, own = latent[first], latent[second], latent[third], products[product]
                _add(-one * two * three, own, residual)
                _add(two * three, own, slope[first])
                _add(one * three, own, slope[second])
                _add(one * two, own, slope[third])
                product += 1


@compiled
def _times(vector: Array, precision: Array, product: Array) -> None:
    """Write `vector` (K,) times `precision` (K, K) into `product` (K,)."""
    for index in range(len(product)):
        product[index] = 0.0
    for index in range(len(vector)):
        _add(vector[index], precision[index], product)


@compiled
def _weigh(latent: Array, residual: Array, precision: Array, weighted_residual: Array) -> float:
    """The objective at `latent` (D,); `residual` (K,) times `precision` into `weighted_residual` (K,)."""
    if len(precision) == 1:
        for index in range(len(residual)):
            weighted_residual[index] = residual[index] * precision[0, index]
    else:
        _times(residual, precision, weighted_residual)
    objective: float = 0.5 * (_dot(residual, weighted_residual) + _dot(latent, latent))
    return objective


@compiled
def _linearise(
    latent: Array,
    slope: Array,
    precision: Array,
    weighted: Array,
    weighted_residual: Array,
    information: Array,
    gradient: Array,
) -> None:
    """Write J' W J into `information` (D, D), and the objective's negative gradient into `gradient` (D,)."""
    if len(precision) == 1:
        for axis in range(len(latent)):
            for index in range(len(weighted_residual)):
                weighted[axis, index] = slope[axis, index] * precision[0, index]
    else:
        np.dot(slope, precision, weighted)
    np.dot(weighted, slope.T, information)
    for axis in range(len(latent)):
        gradient[axis] = _dot(slope[axis], weighted_residual) - latent[axis]


@compiled
def _curve(
    latent: Array, response: tuple[Array, Array, Array, int], weighted_residual: Array, curvature: Array
) -> None:
    """Write the response's second derivatives, times `weighted_residual` (K,), into `curvature` (D, D)."""
    _, _, products, leading = response
    product = 0
    for first in range(len(latent)):
        for second in range(first, len(latent)):
            own = _dot(products[product], weighted_residual)
            curvature[first, second] = curvature[second, first] = own * (2.0 if first == second else 1.0)
            product += 1
    for first in range(leading):
        for second in range(first, leading):
            for third in range(second, leading):
                own = _dot(products[product], weighted_residual)
                one, two, three = own * latent[first], own * latent[second], own * latent[third]
                curvature[first, second] += three
                curvature[second, first] += three
                curvature[first, third] += two
                curvature[third, first] += two
                curvature[second, third] += one
                curvature[third, second] += one
                product += 1


@compiled
def _solve(
    information: Array, curvature_factor: float, curvature: Array, gradient: Array, factor: Array, step: Array
) -> float:
    """Solve (information + I - curvature_factor curvature) step = gradient.

    Returns the step's length in units of the standard deviation that this matrix gives the posterior; -1 where
    the matrix is not positive definite.
    """
    # Cholesky's factor; the latents are too few for LAPACK
    for axis in range(len(step)):
        for other in range(axis + 1):
            rest = information[axis, other] - curvature_factor * curvature[axis, other] + (axis == other)
            for index in range(other):
                rest -= factor[axis, index] * factor[other, index]
            if axis == other and rest <= 0:
                return -1.0
            factor[axis, other] = np.sqrt(rest) if axis == other else rest / factor[other, other]
        step[axis] = gradient[axis]
        for index in range(axis):
            step[axis] -= factor[axis, index] * step[index]
        step[axis] /= factor[axis, axis]
    length: float = _norm(step)
    for axis in range(len(step) - 1, -1, -1):
        step[axis] /= factor[axis, axis]
        for index in range(axis):
            step[index] -= step[axis] * factor[axis, index]
    return length


@compiled
def _dot(one: Array, other: Array) -> float:
    total = 0.0
    for index in range(len(one)):
        total += one[index] * other[index]
    return total


@compiled
def _norm(vector: Array) -> float:
    return math.sqrt(_dot(vector, vector))

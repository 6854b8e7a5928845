"""Gaussian-process regression of one smooth, nearly noiseless function of many inputs.

Squared-exponential kernel with one length scale per input (ARD), hyperparameters by maximum marginal
likelihood (Rasmussen & Williams 2006, equations 2.30 and 5.9), leave-one-out residuals in closed form
(equation 5.12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]

_JITTER = 1e-8
_PRIOR_CENTRE, _PRIOR_WIDTH = -2.0, 1.5
_BOUNDS_SCALE, _BOUNDS_AMPLITUDE, _BOUNDS_NOISE = (-7.0, 2.0), (-5.0, 6.0), (-8.0, 1.0)


@dataclass(frozen=True)
class Hyperparameters:
    """Logarithms: `log_scale` (D,) of inverse length scales, `log_amplitude` and `log_noise` of two sigmas."""

    log_scale: Floats
    log_amplitude: float
    log_noise: float

    @classmethod
    def start(cls, inputs: int) -> Hyperparameters:
        """A smooth function of unit variance."""
        return cls(np.full(inputs, -1.5), 1.0, -3.0)

    @classmethod
    def unpack(cls, vector: Floats) -> Hyperparameters:
        """From a vector (D + 2,) of the optimiser."""
        return cls(vector[:-2], float(vector[-2]), float(vector[-1]))


@dataclass(frozen=True)
class Regression:
    """The prediction kernel(x * scale, inputs * scale) @ weights, and the leave-one-out residuals `loo`."""

    scale: Floats
    weights: Floats
    loo: Floats


def optimise(
    inputs: Floats, targets: Floats, start: Sequence[Hyperparameters], iterations: int
) -> list[Hyperparameters]:
    """Hyperparameters of greatest posterior density for `targets` (N, M) at `inputs` (N, D).

    The M processes share their length scales, the mean of those of `start` (M) at first.
    """
    count, scales = targets.shape[1], inputs.shape[1]
    bounds = [_BOUNDS_SCALE] * scales + [_BOUNDS_AMPLITUDE] * count + [_BOUNDS_NOISE] * count
    first = np.r_[
        np.mean([hyper.log_scale for hyper in start], axis=0),
        [hyper.log_amplitude for hyper in start],
        [hyper.log_noise for hyper in start],
    ]

    def objective(vector: Floats) -> tuple[float, Floats]:
        value, slope = 0.0, np.zeros_like(vector)
        for k in range(count):
            own = np.r_[:scales, scales + k, scales + count + k]
            part, part_slope = _negative_log_posterior(vector[own], inputs, targets[:, k])
            value += part
            slope[own] += part_slope
        return value, slope

    result = minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations}
    )
    common = result.x[:scales]
    return [
        Hyperparameters(common, float(result.x[scales + k]), float(result.x[scales + count + k]))
        for k in range(count)
    ]


def condition(inputs: Floats, target: Floats, hyper: Hyperparameters) -> Regression:
    """Condition the process on `target` (N,) at `inputs` (N, D)."""
    scale = np.exp(hyper.log_scale)
    amplitude = np.exp(2 * hyper.log_amplitude)
    factor = _cholesky(amplitude * kernel(inputs * scale, inputs * scale), hyper)
    weights = scipy.linalg.cho_solve((factor, True), target)
    half = scipy.linalg.lapack.dtrtri(factor, lower=1, overwrite_c=1)[0]
    return Regression(scale, amplitude * weights, weights / np.einsum("ij,ij->j", half, half))


def kernel(a: Floats, b: Floats) -> Floats:
    """Squared-exponential kernel (N, M) of the rows of a (N, D) and b (M, D), in units of the length scales."""
    square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * (a @ b.T)
    result: Floats = np.exp(-0.5 * np.maximum(square, 0.0))
    return result


def _negative_log_posterior(vector: Floats, inputs: Floats, target: Floats) -> tuple[float, Floats]:
    hyper = Hyperparameters.unpack(vector)
    scaled = inputs * np.exp(hyper.log_scale)
    covariance = np.exp(2 * hyper.log_amplitude) * kernel(scaled, scaled)
    try:
        factor = _cholesky(covariance.copy(), hyper)
    except scipy.linalg.LinAlgError:
        return 1e10, np.zeros_like(vector)
    inverse = _inverse(factor)
    weights = inverse @ target
    sensitivity = 0.5 * (inverse - np.outer(weights, weights))
    weighted = sensitivity * covariance
    pull = (hyper.log_scale - _PRIOR_CENTRE) / _PRIOR_WIDTH
    value = 0.5 * target @ weights + np.log(np.diag(factor)).sum() + 0.5 * (pull**2).sum()
    slope_scale = -2.0 * ((scaled**2).T @ weighted.sum(1) - np.einsum("id,id->d", scaled, weighted @ scaled))
    slope_noise = 2.0 * np.trace(sensitivity) * np.exp(2 * hyper.log_noise)
    return float(value), np.r_[slope_scale + pull / _PRIOR_WIDTH, 2.0 * weighted.sum(), slope_noise]


def _cholesky(covariance: Floats, hyper: Hyperparameters) -> Floats:
    covariance[np.diag_indices_from(covariance)] += np.exp(2 * hyper.log_noise) + _JITTER
    factor: Floats = scipy.linalg.cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    return factor


def _inverse(factor: Floats) -> Floats:
    lower: Floats = np.tril(scipy.linalg.lapack.dpotri(factor, lower=1)[0])
    return lower + np.tril(lower, -1).T

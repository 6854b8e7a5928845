"""How spectra respond to latents: spectral coefficients as a low-order polynomial of latent and parameters.

The coefficients c (K,) of a star with latent z (D,) at scaled parameters u (U,) are

    c = mean(u) + z . linear(u) + zz . square(u),

where zz (M,) are the M = D (D + 1) / 2 products of latents and mean, linear and square are polynomials of u. A
response of low degree in u is smooth in u: it has no room for a latent that means another thing at each u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.basis import design, exponents
from model.grid import Array

STEPS = 30
TOLERANCE = 1e-3
"""The fit has ended when its next step is this short, in units of the posterior's standard deviation."""

LONGEST = 3.0
"""No step of the fit is longer, in units of the prior's standard deviation."""

SLACK = 0.1
"""Each step of a fit that converges is shorter than the one before, by at least this part of its share."""

BATCH = 256


@dataclass(frozen=True)
class Local:
    """The response at given parameters: `mean` (N, K), `linear` (N, D, K), and for the square terms the
    monomials `design` (N, T2) of the parameters and the symmetric tensors `square` (T2 * D, D * K) of all."""

    mean: Array
    linear: Array
    design: Array
    square: Array

    def __call__(self, latents: Array) -> tuple[Array, Array]:
        """Coefficients (N, K) of latents (N, D), and their derivatives (N, D, K)."""
        bent = (self.design[:, :, None] * latents[:, None]).reshape(len(latents), -1) @ self.square
        bent = bent.reshape(self.linear.shape)
        slope = self.linear + 2 * bent
        return self.mean + np.matmul(latents[:, None], self.linear + bent)[:, 0], slope

    def keep(self, rows: NDArray[np.int64]) -> Local:
        """The response of some stars."""
        return Local(self.mean[rows], self.linear[rows], self.design[rows], self.square)


class Response:
    """Tensors `mean` (T0, K), `linear` (T1, D, K), `square` (T2, M, K) over parameters in `ranges` (U, 2)."""

    def __init__(self, ranges: Array, mean: NDArray[Any], linear: NDArray[Any], square: NDArray[Any]) -> None:
        self.ranges = ranges
        self.mean, self.linear, self.square = (
            np.ascontiguousarray(values, dtype=np.float64) for values in (mean, linear, square)
        )
        self.degrees = tuple(_degree(len(ranges), len(values)) for values in (mean, linear, square))
        self.latents = linear.shape[1]

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """What a model file holds of it."""
        return {
            f"response_{name}": getattr(self, name).astype(np.float32) for name in ("mean", "linear", "square")
        }

    def at(self, parameters: Array) -> Local:
        """The response at parameters (N, U)."""
        mean, linear, square = (design(parameters, self.ranges, degree) for degree in self.degrees)
        flat = linear @ self.linear.reshape(len(self.linear), -1)
        return Local(mean @ self.mean, flat.reshape(len(parameters), self.latents, -1), square, self._symmetric)

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Coefficients (N, K) of latents (N, D) at parameters (N, U)."""
        parts = [self.at(parameters[rows])(latents[rows])[0] for rows in _blocks(len(latents))]
        return np.concatenate(parts) if parts else np.zeros((0, self.mean.shape[1]))

    def by_latents(self, latents: Array, parameters: Array) -> Array:
        """Derivatives (N, D, K) of the coefficients by the latents (N, D), at parameters (N, U)."""
        return self.at(parameters)(latents)[1]

    def slope(self, latents: Array, parameters: Array) -> Array:
        """Derivatives (N, U, K) of the coefficients by the parameters, by differences of 1 % of the ranges."""
        widths = self.ranges[:, 1] - self.ranges[:, 0]
        steps = 0.01 * np.diag(widths)
        return np.stack(
            [
                (self(latents, parameters + step) - self(latents, parameters - step)) / (0.02 * width)
                for step, width in zip(steps, widths, strict=True)
            ],
            axis=1,
        )

    def fit(
        self,
        seen: Array,
        parameters: Array,
        precision: Array,
        start: Array | None = None,
        tolerance: float = TOLERANCE,
    ) -> tuple[Array, Array]:
        """The most probable latents (N, D) under a unit Gaussian prior, and the information (N, D, D) on them.

        `seen` (N, K) are coefficients at parameters (N, U), `precision` (K, K) or (N, K, K) the inverse of
        their covariance, or (N, 1, K) its diagonal where they are independent. Gauss-Newton from `start`
        (N, D), by default from the prior's mean, until the step is below `tolerance` in units of the
        posterior's standard deviation.
        """
        latents, informations = [], []
        for rows in _blocks(len(seen)):
            at = self.at(parameters[rows])
            begin = None if start is None else start[rows]
            weight = precision if precision.ndim == 2 else precision[rows]
            found, information = _gauss_newton(at, seen[rows], weight, begin, tolerance)
            latents.append(found)
            informations.append(information)
        return np.concatenate(latents), np.concatenate(informations)

    @cached_property
    def _symmetric(self) -> Array:
        """`square` as symmetric matrices, (T2 * D, D * K)."""
        rows, columns = np.triu_indices(self.latents)
        whole = np.zeros((len(self.square), self.latents, self.latents, self.square.shape[2]))
        whole[:, rows, columns] += 0.5 * self.square
        whole[:, columns, rows] += 0.5 * self.square
        return whole.reshape(len(self.square) * self.latents, -1)


def terms(latents: Array, parameters: Array, ranges: Array, degrees: Sequence[int]) -> Array:
    """The features (N, T0 + T1 D + T2 M) that a response is linear in, in the order of its tensors."""
    rows, columns = np.triu_indices(latents.shape[1])
    mean, linear, square = (design(parameters, ranges, degree) for degree in degrees)
    products = latents[:, rows] * latents[:, columns]
    parts = [mean]
    for polynomial, values in ((linear, latents), (square, products)):
        parts.append((polynomial[:, :, None] * values[:, None]).reshape(len(latents), -1))
    return np.concatenate(parts, axis=1)


def _gauss_newton(
    at: Local, seen: Array, precision: Array, start: Array | None, tolerance: float
) -> tuple[Array, Array]:
    """The fit of one batch; stars leave the iteration once their step is below `tolerance`.

    A star whose steps do not get shorter, though taken whole, goes to and fro about its fit: they are halved
    from then on.
    """
    size = at.linear.shape[1]
    unit = np.eye(size)
    latents = np.zeros((len(seen), size)) if start is None else start.astype(np.float64)
    information = np.zeros((len(seen), size, size))
    open_ = np.arange(len(seen))
    share, last = np.ones(len(seen)), np.full(len(seen), np.inf)
    whole = np.zeros(len(seen), dtype=bool)
    for _ in range(STEPS):
        own = precision if precision.ndim == 2 else precision[open_]
        local = at if len(open_) == len(seen) else at.keep(open_)
        value, slope = local(latents[open_])
        weighted = slope * own if own.shape[-2] == 1 else np.matmul(slope, own)
        information[open_] = np.matmul(weighted, slope.transpose(0, 2, 1))
        pull = np.matmul(weighted, (seen[open_] - value)[:, :, None])[:, :, 0] - latents[open_]
        step = np.linalg.solve(information[open_] + unit, pull[:, :, None])[:, :, 0]
        length = np.sqrt(np.maximum(np.einsum("nd,nd->n", step, pull), 0.0))
        least = SLACK * share[open_]
        share[open_[whole[open_] & (length > (1 - least) * last[open_])]] *= 0.5
        last[open_] = length
        longest = LONGEST / np.maximum(np.linalg.norm(step, axis=1), 1e-300)
        whole[open_] = longest >= share[open_]
        latents[open_] += step * np.minimum(share[open_], longest)[:, None]
        open_ = open_[length > tolerance]
        if not len(open_):
            break
    return latents, information


def _degree(parameters: int, count: int) -> int:
    return next(d for d in range(20) if len(exponents(parameters, d)) == count)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]

"""How spectra respond to latents: spectral coefficients as a low-order polynomial of latent and parameters.

The coefficients c (K,) of a star with latent z (D,) at scaled parameters u (U,) are

    c = mean(u) + z . linear(u) + zz . square(u),

where zz (M,) are the M = D (D + 1) / 2 products of latents and mean, linear and square are polynomials of u. A
response of low degree in u is smooth in u: it has no room for a latent that means another thing at each u.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.basis import design, exponents
from model.gauss_newton import gauss_newton
from model.grid import Array

TOLERANCE = 1e-3
"""The fit has ended when its next step is this short, in units of the posterior's standard deviation."""

BATCH = 32
"""Stars at a time, so few that what belongs to them stays in the processor's cache."""


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

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Coefficients (N, K) of latents (N, D) at parameters (N, U)."""
        parts = [self._near(latents[rows], parameters[rows])[0] for rows in _blocks(len(latents))]
        return np.concatenate(parts) if parts else np.zeros((0, self.mean.shape[1]))

    def by_latents(self, latents: Array, parameters: Array) -> Array:
        """Derivatives (N, D, K) of the coefficients by the latents (N, D), at parameters (N, U)."""
        return self._near(latents, parameters)[1]

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
        posterior's standard deviation. Raises ValueError if N is not the same for all.
        """
        latents = np.zeros((len(seen), self.latents)) if start is None else start.astype(np.float64)
        lengths = {len(seen), len(parameters), len(latents), len(precision if precision.ndim == 3 else seen)}
        if len(lengths) > 1:  # compiled code would read past an end
            raise ValueError(f"arrays of different lengths: {sorted(lengths)}")
        information = np.empty((len(seen), self.latents, self.latents))
        for rows in _blocks(len(seen)):
            mean, linear, monomials = self._terms(parameters[rows])
            square = (monomials @ self.square.reshape(len(self.square), -1)).reshape(-1, *self.square.shape[1:])
            weight = precision[None] if precision.ndim == 2 else precision[rows]
            latents[rows], information[rows] = gauss_newton(
                mean, linear, square, seen[rows], weight, latents[rows], tolerance
            )
        return latents, information

    def _near(self, latents: Array, parameters: Array) -> tuple[Array, Array]:
        """Coefficients (N, K) of latents (N, D) at parameters (N, U), and their derivatives (N, D, K)."""
        mean, linear, monomials = self._terms(parameters)
        bent = (monomials[:, :, None] * latents[:, None]).reshape(len(latents), -1) @ self._symmetric
        bent = bent.reshape(linear.shape)
        return mean + np.matmul(latents[:, None], linear + bent)[:, 0], linear + 2 * bent

    def _terms(self, parameters: Array) -> tuple[Array, Array, Array]:
        """Mean (N, K), linear terms (N, D, K) and monomials (N, T2) of `square` at parameters (N, U)."""
        monomials = design(parameters, self.ranges, max(self.degrees))  # those of lower degree come first
        mean, linear, square = (monomials[:, : len(own)] for own in (self.mean, self.linear, self.square))
        flat = linear @ self.linear.reshape(len(self.linear), -1)
        return mean @ self.mean, flat.reshape(len(parameters), self.latents, -1), square

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


def _degree(parameters: int, count: int) -> int:
    return next(d for d in range(20) if len(exponents(parameters, d)) == count)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]

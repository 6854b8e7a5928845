"""How spectra respond to latents: spectral coefficients as a low-order polynomial of latent and parameters.

The coefficients c (K,) of a star with latent z (D,) at scaled parameters u (U,) are

    c = mean(u) + z . linear(u) + zz . products(u),

where zz (M,) are the D (D + 1) / 2 products of two latents, then those of three of the leading latents, and
mean, linear and products are polynomials of u. A response of low degree in u is smooth in u: a
latent cannot change its meaning with u. Beyond the range of u only the mean is extrapolated. The response
to latents stays as at the range's edge, because polynomials of high degree soon diverge there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations_with_replacement, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.methods.basis import design, design_slopes, exponents
from model.methods.gauss_newton import STEPS, gauss_newton
from model.spectra.grid import Array

TOLERANCE = 1e-3
"""A fit has converged when its next step is this short, in units of the posterior's standard deviation."""

BATCH = 32
"""Stars at a time, so few that their arrays stay in the processor's cache."""


class Fit(NamedTuple):
    """Latents (N, D), the information (N, D, D) on them, and the number of `steps` (N,) that each took."""

    latents: Array
    information: Array
    steps: NDArray[np.int64]

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Which (N,) fits converged."""
        return self.steps <= STEPS


class Response:
    """Tensors `mean` (T0, K), `linear` (T1, D, K), `products` (T2, M, K) over parameters in `ranges` (U, 2)."""

    def __init__(self, ranges: Array, mean: NDArray[Any], linear: NDArray[Any], products: NDArray[Any]) -> None:
        self.ranges = ranges
        self.mean, self.linear, self.products = (
            np.ascontiguousarray(values, dtype=np.float64) for values in (mean, linear, products)
        )
        self.degrees = tuple(_degree(len(ranges), len(values)) for values in (mean, linear, products))
        self.latents = linear.shape[1]
        self.leading = next(
            n for n in range(self.latents + 1) if len(_factors(self.latents, n)) == products.shape[1]
        )
        self._last: tuple[Array, tuple[Array, Array, Array]] | None = None

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Tensors for the model file."""
        return {
            f"response_{name}": getattr(self, name).astype(np.float32)
            for name in ("mean", "linear", "products")
        }

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Coefficients (N, K) of latents (N, D) at parameters (N, U)."""
        parts = []
        for rows in _blocks(len(latents)):
            mean, linear, products = self._terms(parameters[rows])
            straight = np.matmul(latents[rows, None], linear)[:, 0]
            bent = np.matmul(_products(latents[rows], self.leading)[:, None], products)[:, 0]
            parts.append(mean + straight + bent)
        return np.concatenate(parts) if parts else np.zeros((0, self.mean.shape[1]))

    def by_latents(self, latents: Array, parameters: Array) -> Array:
        """Derivatives (N, D, K) of the coefficients by the latents (N, D), at parameters (N, U)."""
        slopes = np.empty((len(latents), *self.linear.shape[1:]))
        for rows in _blocks(len(latents)):
            _, linear, products = self._terms(parameters[rows])
            slopes[rows] = linear + np.matmul(_by_latents(latents[rows], self.leading), products)
        return slopes

    def turned(self, root: Array) -> Response:
        """The response of latents (N, D) times the transpose of a lower triangular `root` (D, D)."""
        places = {
            tuple(factor): place for place, factor in enumerate(_factors(self.latents, self.leading).tolist())
        }
        whole = np.eye(self.latents + 1)
        whole[:-1, :-1] = root
        turn = np.zeros((len(places), len(places)))
        for place, factor in enumerate(_factors(self.latents, self.leading)):
            parts = (np.flatnonzero(row) for row in whole[factor])
            for others in product(*parts):
                turn[place, places[tuple(sorted(others))]] += whole[factor, others].prod()
        return Response(self.ranges, self.mean, root.T @ self.linear, turn.T @ self.products)

    def slope(self, latents: Array | None, parameters: Array) -> Array:
        """Derivatives (N, U, K) of the coefficients by the parameters, at latents (N, D), or at 0 without any.

        The latents come first: what is left is a polynomial of the parameters for each star.
        """
        if latents is None:
            monomials, *_ = _monomials(parameters, self.ranges, self.degrees)
            return np.asarray(design_slopes(monomials, self.ranges, self.degrees[0]) @ self.mean)
        slopes = np.empty((*parameters.shape, self.mean.shape[1]))
        for rows in _blocks(len(latents)):
            straight = np.matmul(latents[rows], self.linear).transpose(1, 0, 2)
            bent = np.matmul(_products(latents[rows], self.leading), self.products).transpose(1, 0, 2)
            mean, linear, products = (
                design_slopes(monomials, self.ranges, degree)
                for monomials, degree in zip(
                    _monomials(parameters[rows], self.ranges, self.degrees), self.degrees, strict=True
                )
            )
            inside = np.clip(parameters[rows], *self.ranges.T) == parameters[rows]
            of_latents = np.matmul(linear, straight) + np.matmul(products, bent)
            slopes[rows] = mean @ self.mean + inside[:, :, None] * of_latents
        return slopes

    def fit(
        self,
        coefficients: Array,
        parameters: Array,
        precision: Array,
        start: Array | None = None,
        tolerance: float = TOLERANCE,
    ) -> Fit:
        """Find the most probable latents under a unit Gaussian prior.

        Parameters
        ----------
        coefficients : array (N, K)
            Observed spectral coefficients.
        parameters : array (N, U)
            The stars' parameters u.
        precision : array (K, K), (N, K, K) or (N, 1, K)
            Inverse covariance of the coefficients; its diagonal where they are independent.
        start : array (N, D), optional
            Latents from which the fits start, by default the prior's mean.
        tolerance : float
            A fit has converged when its next step is this short, in posterior standard deviations.

        Returns
        -------
        Fit
            Latents, the information on them, and the number of steps of each star.

        Raises
        ------
        ValueError
            If N is not the same for all arrays.
        """
        latents = np.zeros((len(coefficients), self.latents)) if start is None else start.astype(np.float64)
        lengths = {
            len(coefficients),
            len(parameters),
            len(latents),
            len(precision if precision.ndim == 3 else coefficients),
        }
        if len(lengths) > 1:  # compiled code would read past an end
            raise ValueError(f"arrays of different lengths: {sorted(lengths)}")
        information = np.empty((len(coefficients), self.latents, self.latents))
        steps = np.empty(len(coefficients), dtype=np.int64)
        for rows in _blocks(len(coefficients)):
            mean, linear, products = self._terms(parameters[rows])
            weight = precision[None] if precision.ndim == 2 else precision[rows]
            latents[rows], information[rows], steps[rows] = gauss_newton(
                mean, linear, products, self.leading, coefficients[rows], weight, latents[rows], tolerance
            )
        return Fit(latents, information, steps)

    def _terms(self, parameters: Array) -> tuple[Array, Array, Array]:
        """Mean (N, K), linear terms (N, D, K) and those of products (N, M, K) at parameters (N, U).

        The last ones are remembered: a star is fitted, compared and decoded at the same parameters.
        """
        last = self._last
        if last is not None and np.array_equal(last[0], parameters):
            return last[1]
        monomials = _monomials(parameters, self.ranges, self.degrees)
        mean, linear, products = (
            (own @ tensor.reshape(len(tensor), -1)).reshape(len(parameters), *tensor.shape[1:])
            for own, tensor in zip(monomials, (self.mean, self.linear, self.products), strict=True)
        )
        self._last = parameters.copy(), (mean, linear, products)
        return mean, linear, products


def terms(latents: Array, parameters: Array, ranges: Array, degrees: Sequence[int], leading: int = 0) -> Array:
    """The features (N, T0 + T1 D + T2 M) that a response is linear in, in the order of its tensors."""
    mean, linear, products = _monomials(parameters, ranges, degrees)
    parts = [mean]
    for polynomial, values in ((linear, latents), (products, _products(latents, leading))):
        parts.append((polynomial[:, :, None] * values[:, None]).reshape(len(latents), -1))
    return np.concatenate(parts, axis=1)


def _monomials(parameters: Array, ranges: Array, degrees: Sequence[int]) -> list[Array]:
    """Monomials (N, T) of the parameters (N, U) for each of a response's tensors."""
    both = np.concatenate([parameters, np.clip(parameters, *ranges.T)])
    monomials = design(both, ranges, max(degrees))  # those of lower degree come first
    given, within = np.split(monomials, 2)
    counts = [len(exponents(len(ranges), degree)) for degree in degrees]
    return [values[:, :count] for values, count in zip((given, within, within), counts, strict=True)]


@cache
def _factors(latents: int, leading: int) -> NDArray[np.int64]:
    """The latents (M, 3) in each product; the third of one of two is `latents`, which stands for 1."""
    pairs = [(*two, latents) for two in combinations_with_replacement(range(latents), 2)]
    triples = list(combinations_with_replacement(range(leading), 3))
    return np.array(pairs + triples, dtype=np.int64)


def _products(latents: Array, leading: int) -> Array:
    """Products (N, M) of latents (N, D)."""
    factors = _factors(latents.shape[1], leading)
    return np.asarray(_with_one(latents)[:, factors].prod(axis=2))


def _by_latents(latents: Array, leading: int) -> Array:
    """Derivatives (N, D, M) of the products of latents (N, D)."""
    count, size = latents.shape
    factors, values = _factors(size, leading), _with_one(latents)
    slopes = np.zeros((count, size + 1, len(factors)))
    for factor in range(3):
        rest = np.delete(factors, factor, axis=1)
        slopes[:, factors[:, factor], np.arange(len(factors))] += values[:, rest].prod(axis=2)
    return slopes[:, :size]


def _with_one(latents: Array) -> Array:
    return np.concatenate([latents, np.ones((len(latents), 1))], axis=1)


def _degree(parameters: int, count: int) -> int:
    return next(d for d in range(20) if len(exponents(parameters, d)) == count)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]

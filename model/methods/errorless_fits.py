"""Fits of complete spectra without errors, such as synthetic ones: GaussDis in the coefficients alone.

Each spectrum is read once, for its products with the basis; residuals then follow from these. A spectrum with
errors or masks takes about eight times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.methods.basis import Basis
from model.methods.response import Fit, Response
from model.spectra.grid import Array

SPECTRA_AT_ONCE = 128
"""Spectra that are multiplied by the basis at once."""


@dataclass(frozen=True)
class Measured:
    """The `coefficients` (N, K) of spectra's residuals from the polynomial, and these residuals' squares (N,).

    `gram` (K, K) are the products of the basis's components, the unit matrix but for single precision.
    """

    coefficients: Array
    squares: Array
    gram: Array

    def squared_residual(self, fitted: Array) -> Array:
        """Sum of squared residuals (N,) of the spectra from coefficients (N, K)."""
        crossed = np.einsum("nk,nk->n", fitted, 2 * self.coefficients - fitted @ self.gram)
        return np.asarray(np.maximum(self.squares - crossed, 0.0))


class ErrorlessFits:
    """Fits by a `response` with `scatter` (K, K) and `continuum` (K, K), as `GaussDis` has them."""

    def __init__(self, basis: Basis, response: Response, scatter: Array, continuum: Array) -> None:
        self._basis, self._response = basis, response
        self._scatter, self._continuum = scatter, continuum

    def measure(self, flux: Sequence[Array], parameters: Array) -> Measured:
        """Measure N spectra (P,) at parameters (N, U), each read once."""
        polynomial, components, gram, table = self._tables
        terms, count = self._basis.terms(parameters), len(polynomial)
        products, squares = np.empty((len(flux), len(table))), np.empty(len(flux))
        for start in range(0, len(flux), SPECTRA_AT_ONCE):
            part = slice(start, start + SPECTRA_AT_ONCE)
            given = np.stack(flux[part])
            np.matmul(given, table.T, out=products[part])
            np.einsum("np,np->n", given, given, out=squares[part])
        expected = np.einsum("nt,nt->n", terms, terms @ polynomial - 2 * products[:, :count])
        return Measured(products[:, count:] - terms @ components, squares + expected, gram)

    def fit(self, measured: Measured, parameters: Array, variance: Array) -> Fit:
        """The most probable latents, for white noise of `variance` (N,) per pixel."""
        frame, scatter, response = self._white
        precision = 1 / (variance[:, None] + scatter)
        return response.fit(measured.coefficients @ frame, parameters, precision[:, None])

    @cached_property
    def _tables(self) -> tuple[Array, Array, Array, Array]:
        """Products of polynomial and components, and both.

        Of the polynomial with itself (T, T) and with the components (T, K), of these with themselves (K, K);
        and the polynomial above the components (T + K, P).
        """
        polynomial, components = self._basis.polynomial, self._basis.components
        table = np.concatenate([polynomial, components])
        gram = np.asarray(components @ components.T)
        return polynomial @ polynomial.T, polynomial @ components.T, gram, table

    @cached_property
    def _white(self) -> tuple[Array, Array, Response]:
        """A frame of the coefficients in which white noise of any level has a diagonal covariance.

        The matrix (K, K) into the frame, the `scatter` (K,) there, where white noise of unit variance has
        variance 1, and the response there.
        """
        root = np.linalg.cholesky(np.eye(len(self._scatter)) + self._continuum)
        half = np.linalg.solve(root, np.linalg.solve(root, self._scatter).T)
        spread, axes = np.linalg.eigh((half + half.T) / 2)
        frame = np.linalg.solve(root.T, axes)
        tensors = (self._response.mean, self._response.linear, self._response.products)
        response = Response(self._response.ranges, *(tensor @ frame for tensor in tensors))
        return frame, np.maximum(spread, 0.0), response

"""The linear spectral basis: a polynomial of u per wavelength, and the leading components of its residuals.

It is all of PolyDis (paper, section 2.2, after Price-Jones & Bovy 2017, 2019), and the way in and out of the
compact networks. Fitting is in `training.spectral_basis`.
"""

from __future__ import annotations

from functools import cache, cached_property
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum

FEW = 32
"""So many stars are weighted one by one: the table of products takes 60 MB, and longer for fewer than 25."""


@cache
def exponents(parameters: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """Exponents of all monomials of `parameters` variables up to total `degree`, the constant first."""
    return tuple(
        tuple(chosen.count(i) for i in range(parameters))
        for total in range(degree + 1)
        for chosen in combinations_with_replacement(range(parameters), total)
    )


def scaled(parameters: Array, ranges: Array) -> Array:
    """Parameters (N, U) such that `ranges` (U, 2) becomes -1 to 1."""
    return np.asarray(2 * (parameters - ranges[:, 0]) / (ranges[:, 1] - ranges[:, 0]) - 1)


def design(parameters: Array, ranges: Array, degree: int) -> Array:
    """Monomials (N, T) of the scaled parameters (N, U)."""
    unit = scaled(parameters, ranges).T
    powers = np.ones((degree + 1, *unit.shape))
    for power in range(1, degree + 1):
        np.multiply(powers[power - 1], unit, out=powers[power])
    chosen = np.array(exponents(len(unit), degree))
    monomials = powers[chosen[:, 0], 0]
    for parameter in range(1, len(unit)):
        monomials *= powers[chosen[:, parameter], parameter]
    return np.ascontiguousarray(monomials.T)


@cache
def _derivatives(parameters: int, degree: int) -> NDArray[np.float64]:
    """Derivatives (U, T, T) of all monomials by each variable, as combinations (.., T) of monomials (T, ..)."""
    powers = exponents(parameters, degree)
    places = {power: place for place, power in enumerate(powers)}
    found = np.zeros((parameters, len(powers), len(powers)))
    for place, power in enumerate(powers):
        for number in np.flatnonzero(power):
            lower = (*power[:number], power[number] - 1, *power[number + 1 :])
            found[number, places[lower], place] = power[number]
    return found


def design_slopes(monomials: Array, ranges: Array, degree: int) -> Array:
    """Derivatives (N, U, T) of monomials (N, T), as `design` gives them, by the parameters."""
    widths = ranges[:, 1] - ranges[:, 0]
    slopes = monomials @ _derivatives(len(ranges), degree) * (2 / widths)[:, None, None]
    return np.asarray(slopes.transpose(1, 0, 2))


class Basis:
    """A polynomial of the parameters for each pixel, and the components of the residuals.

    Parameters
    ----------
    ranges : array (U, 2)
        Training ranges of the parameters.
    polynomial : array (T, P)
        Coefficients of the T monomials of the scaled parameters.
    components : array (K, P)
        Orthonormal rows.
    variances : array (K,)
        Variances of the training survey's coefficients.
    discarded : array (1,)
        Mean variance per pixel outside the components.
    """

    def __init__(
        self,
        ranges: Array,
        *,
        polynomial: NDArray[Any],
        components: NDArray[Any],
        variances: NDArray[Any],
        discarded: NDArray[Any],
    ) -> None:
        self.ranges = ranges
        self.polynomial = polynomial.astype(np.float64)
        self.components = components.astype(np.float64)
        self.variances = variances.astype(np.float64)
        self.discarded = float(discarded.item())
        self.degree = next(d for d in range(20) if len(exponents(len(ranges), d)) == len(polynomial))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors for the model file."""
        names = ("polynomial", "components", "variances", "discarded")
        return {name: np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float32)) for name in names}

    def leading(self, count: int) -> Basis:
        """The same polynomial with the first `count` components."""
        size, pixels = self.components.shape
        dropped = self.discarded * (pixels - size) + float(self.variances[count:].sum())
        arrays = self.arrays() | {
            "components": self.components[:count],
            "variances": self.variances[:count],
            "discarded": np.array([dropped / (pixels - min(count, size))]),
        }
        return Basis(self.ranges, **arrays)

    def expected(self, parameters: Array) -> Array:
        """The polynomial's flux (N, P) at parameters (N, U): a star of the survey's mean chemistry."""
        return np.asarray(self.terms(parameters) @ self.polynomial)

    def terms(self, parameters: Array) -> Array:
        """The monomials (N, T) of `polynomial` at parameters (N, U)."""
        return design(parameters, self.ranges, self.degree)

    def project(self, flux: Array, parameters: Array, variance: Array | None = None) -> Array:
        """Project residuals from the polynomial onto the components.

        Parameters
        ----------
        flux : array (N, P)
            Normalised flux.
        parameters : array (N, U)
            The stars' parameters.
        variance : array (N, P), optional
            Variance of each pixel, infinite where masked.

        Returns
        -------
        array (N, K)
            Coefficients.

        Notes
        -----
        Masked pixels are filled with their expectation given the good ones and their noise, under the training
        residuals' Gaussian (probabilistic PCA).
        """
        residual = flux - self.expected(parameters)
        if variance is None:
            return np.asarray(residual @ self.components.T)
        good = np.isfinite(variance)
        projected = np.where(good, residual, 0.0) @ self.components.T
        for row, mask in enumerate(good):
            if not mask.all():
                projected[row] = self._completion(mask, variance[row])[0] @ projected[row]
        return np.asarray(projected)

    def rebuild(self, coefficients: Array, parameters: Array) -> Array:
        """Flux (N, P) of coefficients (N, K) at parameters (N, U)."""
        return np.asarray(self.expected(parameters) + coefficients @ self.components)

    def completion(self, spectrum: Spectrum, variance: Array) -> tuple[Array, Array]:
        """The linear map from a spectrum's good pixels to its coefficients.

        Parameters
        ----------
        spectrum : Spectrum
            A prepared spectrum.
        variance : array (P,)
            As given to `project`.

        Returns
        -------
        complete : array (K, K)
            Takes the projection of the good residuals to the coefficients.
        missing : array (K, K)
            The coefficients' covariance from the missing pixels.
        """
        good = spectrum.ivar > 0
        if good.all():
            return np.eye(len(self.components)), np.zeros((len(self.components),) * 2)
        return self._completion(good, variance)

    def noise(self, spectrum: Spectrum) -> Array:
        """Covariance (K, K) of the good residuals' projection, from the pixels' ivar."""
        good = spectrum.ivar > 0
        variance = np.divide(1.0, spectrum.ivar, out=np.zeros(len(good)), where=good).astype(np.float32)
        return ((self.single * variance) @ self.single.T).astype(np.float64)

    def slope(self, parameters: Array) -> Array:
        """Derivative (U, P) of `expected` by the parameters (U,)."""
        slopes = design_slopes(self.terms(parameters[None]), self.ranges, self.degree)
        return np.asarray(slopes[0] @ self.polynomial)

    def information(self, residual: Array, ivar: Array) -> tuple[Array, Array]:
        """Information of residuals on the coefficients.

        Parameters
        ----------
        residual, ivar : array (N, P)
            Residuals from the polynomial and their inverse variances.

        Returns
        -------
        information : array (N, K, K)
            The Fisher information.
        weighted : array (N, K)
            The information times the least-squares coefficients.
        """
        weighted = (residual * ivar) @ self.components.T
        weights = ivar.astype(np.float32)
        if len(weights) <= FEW:
            roots = (self.single * np.sqrt(weight) for weight in weights)
            return np.stack([root @ root.T for root in roots]).astype(np.float64), weighted
        products, places = self._products
        return np.take(weights @ products.T, places, axis=1).astype(np.float64), weighted

    def _completion(self, good: NDArray[np.bool_], variance: Array) -> tuple[Array, Array]:
        """The matrix (K, K) that completes a projection of good pixels, and its covariance (K, K).

        With V the components on the good pixels, A = V V^T, L the latents' prior variances, d the variance
        per pixel outside the components, s = d plus the mean `variance` (P,) of the good pixels, and
        M = (s / L + A)^-1: the coefficients are (I + (I - A) M) V r. The covariance from the missing pixels is
        (I - A) (s^2 M / L M + d M A M) (I - A) + d (I - A), beside the good pixels' noise.
        """
        masked = self.components[:, ~good]
        missing = masked @ masked.T
        unit = np.eye(len(missing))
        prior = np.maximum(self.variances - self.discarded, 1e-3 * self.variances)
        noise = self.discarded + float(variance[good].mean())
        inverse = np.linalg.inv(np.diag(noise / prior) + unit - missing)
        uncertain = (
            noise**2 * (inverse / prior) @ inverse + self.discarded * inverse @ (unit - missing) @ inverse
        )
        return unit + missing @ inverse, missing @ uncertain @ missing + self.discarded * missing

    @cached_property
    def by_pixel(self) -> NDArray[np.float32]:
        """`single` (P, K), a pixel's together: some pixels' are taken in a fraction of the time."""
        return np.ascontiguousarray(self.single.T)

    @cached_property
    def single(self) -> NDArray[np.float32]:
        """The components (K, P) in single precision, enough for covariances."""
        return self.components.astype(np.float32)

    @cached_property
    def _products(self) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """The products (K (K + 1) / 2, P) of all pairs of components, and the place (K, K) of each pair."""
        rows, columns = np.triu_indices(len(self.components))
        places = np.empty((len(self.components), len(self.components)), dtype=np.intp)
        places[rows, columns] = places[columns, rows] = np.arange(len(rows))
        return self.single[rows] * self.single[columns], places

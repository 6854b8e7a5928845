"""Latents fitted to spectral coefficients, together with parameters that are known with errors.

The errors of Teff, log g and [Fe/H] move coefficients by more than most latents do, and not in proportion: a
slope taken 70 K from the truth is wrong by several errors of a good spectrum. But the spectrum itself says
where between the errors its parameters are. So the latent is fitted twice: with the slopes at the parameters
as they are known, and, at the most probable ones that this gives, with the slopes there. Each time what is
left of the parameters' errors is integrated over.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.methods.basis import Basis, design, design_slopes, exponents
from model.methods.inverses import inverse
from model.methods.response import TOLERANCE, Response
from model.methods.scatter import Scatter
from model.spectra.grid import Array

NEAR = 0.01
"""So many posterior standard deviations from the most probable latents, scatter and slopes are as there."""

FARTHEST = 3.0
"""So many standard deviations at most are parameters moved."""


class FittedLatents(NamedTuple):
    """The most probable latents of N stars.

    Attributes
    ----------
    latents : array (N, D)
        In the frame where the population is the unit Gaussian.
    information : array (N, D, D)
        The information on them.
    converged : array of bool (N,)
        Which fits converged.
    parameters : array (N, U)
        The most probable parameters: the known ones where these have no errors.
    coefficients : array (N, K)
        What the response at these parameters is fitted to.
    slopes : array (N, U, K)
        Derivatives of the coefficients by the parameters, in units of the errors of these.
    covariances : array (N, K, K) or (K, K)
        Of the coefficients' noise and scatter, as the last fit weighted them.
    """

    latents: Array
    information: Array
    converged: NDArray[np.bool_]
    parameters: Array
    coefficients: Array
    slopes: Array
    covariances: Array

    @property
    def by_errors(self) -> Array:
        """Covariance (N, K, K) of the coefficients from the errors of the parameters."""
        return np.asarray(np.matmul(self.slopes.transpose(0, 2, 1), self.slopes))


class LatentFit:
    """Fits of latents in the frame where the population is the unit Gaussian.

    Parameters
    ----------
    response : Response
        Of latents in that frame.
    scattered : Scatter
        Covariance of the coefficients about the response, by latents in the frame of `population`.
    population : array (D, D)
        Root of the population's covariance.
    basis : Basis
        The spectral basis.
    components : array (K, P)
        What complete residual spectra are multiplied with for their coefficients.
    nearest : callable
        Moves parameters (N, U) to where the polynomials are trusted.
    """

    def __init__(
        self,
        response: Response,
        scattered: Scatter,
        population: Array,
        basis: Basis,
        components: Array,
        nearest: Callable[[Array], Array],
    ) -> None:
        self._response, self._scattered, self._population = response, scattered, population
        self._ranges, self._nearest = basis.ranges, nearest
        self._degree = max(basis.degree, response.degrees[0])
        expected = basis.polynomial @ components.T
        missing = len(exponents(len(basis.ranges), self._degree)) - len(expected)
        self._expected = np.pad(expected, ((0, missing), (0, 0)))

    def __call__(
        self,
        coefficients: Array,
        noise: Array,
        parameters: Array,
        errors: Array | None = None,
        start: Array | None = None,
    ) -> FittedLatents:
        """Fit the latents of N stars.

        Parameters
        ----------
        coefficients : array (N, K)
            Residuals, in the basis, from the polynomial at the known parameters.
        noise : array (N, K, K) or (K, K)
            Their covariance, without scatter and without the parameters' errors.
        parameters, errors : array (N, U)
            The known parameters and their standard deviations; None for exact ones.
        start : array (N, D), optional
            Latents that the first fit starts from, by default the prior's mean.

        Returns
        -------
        FittedLatents
            Latents, parameters, and what the last fit was made of.
        """
        if errors is None or not errors.any():
            return self._fit_exact(coefficients, noise, parameters, start)
        covariances = self._covariances(noise, start, parameters)
        exact = inverse(covariances)
        precision = _less_known(exact, self._slopes(start, parameters, errors))
        first = self._response.fit(coefficients, parameters, precision, start, NEAR)
        if self._scattered.grows:
            covariances = self._covariances(noise, first.latents, parameters)
            exact = inverse(covariances)
        slopes = self._slopes(first.latents, parameters, errors)
        precision = _less_known(exact, slopes)
        residual = coefficients - self._response(first.latents, parameters)
        moved = np.einsum("nuk,nk->nu", np.matmul(slopes, precision), residual)
        found = self._nearest(parameters + errors * np.clip(moved, -FARTHEST, FARTHEST))
        found = np.where(errors > 0, found, parameters)
        moved = np.divide(found - parameters, errors, out=np.zeros_like(moved), where=errors > 0)
        slopes = self._slopes(first.latents, found, errors)
        precision = _less_known(exact, slopes)
        there = coefficients + (self._terms(parameters) - self._terms(found)) @ self._expected
        there += np.einsum("nu,nuk->nk", moved, slopes)
        last = self._response.fit(there, found, precision, first.latents)
        converged = first.converged & last.converged
        return FittedLatents(last.latents, last.information, converged, found, there, slopes, covariances)

    def with_offset(self, offset: Array) -> LatentFit:
        """Fits of a response with another `offset` (T, K) in its mean: one that `coefficients` do not have."""
        other = copy(self)
        other._expected = self._expected.copy()
        other._expected[: len(offset)] += offset
        return other

    def _fit_exact(
        self, coefficients: Array, noise: Array, parameters: Array, start: Array | None
    ) -> FittedLatents:
        """As `__call__`, of exact parameters."""
        covariances = self._covariances(noise, start, parameters)
        tolerance = NEAR if self._scattered.grows else TOLERANCE
        fit = self._response.fit(coefficients, parameters, inverse(covariances), start, tolerance)
        converged = fit.converged
        if self._scattered.grows:
            covariances = self._covariances(noise, fit.latents, parameters)
            fit = self._response.fit(coefficients, parameters, inverse(covariances), fit.latents)
            converged = converged & fit.converged
        slopes = np.zeros((*parameters.shape, coefficients.shape[1]))
        return FittedLatents(
            fit.latents, fit.information, converged, parameters, coefficients, slopes, covariances
        )

    def _terms(self, parameters: Array) -> Array:
        """The monomials (N, T) of what is expected at parameters (N, U)."""
        return design(parameters, self._ranges, self._degree)

    def _covariances(self, noise: Array, latents: Array | None, parameters: Array) -> Array:
        """Of noise and scatter (N, K, K), or (K, K) for all stars; at latents of 0 without any."""
        if latents is None:
            latents = np.zeros((len(parameters), self._response.latents))
        return noise + self._scattered(latents @ self._population.T, parameters)

    def _slopes(self, latents: Array | None, parameters: Array, errors: Array) -> Array:
        """Derivatives (N, U, K) of measured coefficients by the parameters, in units of their errors."""
        slopes = self._response.slope(latents, parameters)
        terms = design_slopes(self._terms(parameters), self._ranges, self._degree)
        slopes += np.matmul(terms, self._expected)
        return np.asarray(slopes * errors[:, :, None])


def _less_known(precision: Array, slopes: Array) -> Array:
    """The precision (N, K, K) of coefficients that vary by `slopes` (N, U, K), too, each with variance 1."""
    weighted = np.matmul(slopes, precision)
    known = np.eye(slopes.shape[1]) + np.matmul(weighted, slopes.transpose(0, 2, 1))
    return np.asarray(precision - np.matmul(weighted.transpose(0, 2, 1), np.linalg.solve(known, weighted)))

"""How far coefficients scatter about a response: more for unusual stars than for usual ones.

The covariance of the coefficients of a star with latent z at parameters u about the response is

    S exp(a . f(z, u)) + s(u)^2 exp(b . u) W,

where S (K, K) is what the polynomial misses of the spectra that it was fitted to, W (K, K) the misfit of
observed spectra with usual lines, s the strength of the lines of a star of mean chemistry in units of
`USUAL_DEPTH`, u is scaled, and f are its monomials up to degree 2 without the constant, then z, then its
squares less 1. The growths a and b are empty where they are 0.
"""

from __future__ import annotations

import numpy as np

from model.methods.basis import Basis, design, scaled
from model.spectra.grid import Array

DEGREE = 2
LARGEST = 5.0
"""Largest logarithm of a factor, beyond the stars that it was fitted to."""

USUAL_DEPTH = 0.07
"""Mean depth of the lines of giants in open clusters, as a fraction of the continuum."""


class Scatter:
    """A covariance (K, K) and a misfit (K, K) of coefficients in a `basis`, and their growths (F,) and (U,)."""

    def __init__(
        self, basis: Basis, covariance: Array, growth: Array, misfit: Array, misfit_growth: Array
    ) -> None:
        self._basis = basis
        self._covariance, self._growth = covariance, growth
        self._misfit, self._misfit_growth = misfit, misfit_growth

    @property
    def grows(self) -> bool:
        """Whether a star's scatter depends on its latent."""
        return bool(self._growth.any())

    @property
    def differs(self) -> bool:
        """Whether stars differ in their scatter."""
        return self.grows or bool(self._misfit.any())

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Covariance (N, K, K) at latents (N, D) and parameters (N, U); (K, K) if all stars have the same."""
        covariance = self._covariance
        if self.grows:
            features = growth_features(self._basis.ranges, latents, parameters)
            covariance = factors(features, self._growth)[:, None, None] * covariance
        if self._misfit.any():
            size = np.square(line_strength(self._basis, parameters))
            if self._misfit_growth.any():
                size *= factors(scaled_within(self._basis.ranges, parameters), self._misfit_growth)
            covariance = covariance + size[:, None, None] * self._misfit
        return covariance


def line_strength(basis: Basis, parameters: Array) -> Array:
    """Strength s (N,) of the lines at parameters (N, U), moved into the basis's ranges."""
    monomials = basis.terms(np.clip(parameters, *basis.ranges.T))
    depth = 1 - monomials @ basis.polynomial.mean(axis=1)
    return np.asarray(depth / USUAL_DEPTH)


def scaled_within(ranges: Array, parameters: Array) -> Array:
    """Parameters (N, U) moved into `ranges` (U, 2), and scaled such that these become -1 to 1."""
    return scaled(np.clip(parameters, *ranges.T), ranges)


def growth_features(ranges: Array, latents: Array, parameters: Array) -> Array:
    """The features f (N, F) of latents (N, D) and parameters (N, U), moved into `ranges` (U, 2)."""
    monomials = design(np.clip(parameters, *ranges.T), ranges, DEGREE)[:, 1:]
    return np.concatenate([monomials, latents, np.square(latents) - 1], axis=1)


def factors(features: Array, growth: Array) -> Array:
    """Factors (N,) of the covariance at features (N, F)."""
    return np.asarray(np.exp(np.clip(features @ growth, -LARGEST, LARGEST)))

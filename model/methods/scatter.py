"""How far coefficients scatter about a response: more for unusual stars than for usual ones.

The covariance of the coefficients of a star with latent z at parameters u about the response is

    S exp(a . f(z, u)) + W,

where S (K, K) is what the polynomial misses of the spectra that it was fitted to, W (K, K) the misfit of
observed spectra, and f the monomials of u up to degree 2 without the constant, then z, then its squares less 1.
The growth a is empty for a scatter that is the same for all stars.
"""

from __future__ import annotations

import numpy as np

from model.methods.basis import design, scaled
from model.spectra.grid import Array

DEGREE = 2
LARGEST = 5.0
"""Largest logarithm of a factor, beyond the stars that it was fitted to."""


class Scatter:
    """A covariance (K, K) with its growth (F,), and a misfit (K, K), for parameters in `ranges` (U, 2)."""

    def __init__(self, ranges: Array, covariance: Array, growth: Array, misfit: Array) -> None:
        self._ranges = ranges
        self._covariance, self._growth, self._misfit = covariance, growth, misfit

    @property
    def grows(self) -> bool:
        """Whether stars differ in their scatter."""
        return bool(self._growth.any())

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Covariance (N, K, K) at latents (N, D) and parameters (N, U); (K, K) if all stars have the same."""
        if not self.grows:
            return self._covariance + self._misfit
        factor = factors(growth_features(self._ranges, latents, parameters), self._growth)
        return factor[:, None, None] * self._covariance + self._misfit


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

"""How far coefficients scatter about a response: more for unusual stars than for usual ones.

The covariance of the coefficients of a star with latent z at parameters u about the response is

    S exp(a . f(z, u)) + W exp(b . f(z, u)),

where S (K, K) is what the polynomial misses of the spectra that it was fitted to, W (K, K) the misfit of
observed spectra, and f the monomials of u up to degree 2 without the constant, then z, then its squares less 1.
The growths a and b may have the first of these only, or none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.methods.basis import design, scaled
from model.spectra.grid import Array

DEGREE = 2
LARGEST = 5.0
"""Largest logarithm of a factor, beyond the stars that it was fitted to."""


class Scatter:
    """The sum of covariances (K, K), each with its growth (F or less,), for parameters in `ranges` (U, 2)."""

    def __init__(self, ranges: Array, parts: Sequence[tuple[Array, Array]]) -> None:
        self._ranges = ranges
        self._constant = np.sum([covariance for covariance, _ in parts], axis=0)
        self._growing = [(covariance, growth) for covariance, growth in parts if growth.any()]
        for covariance, _ in self._growing:
            self._constant = self._constant - covariance

    @property
    def grows(self) -> bool:
        """Whether stars differ in their scatter."""
        return bool(self._growing)

    def __call__(self, latents: Array, parameters: Array) -> Array:
        """Covariance (N, K, K) at latents (N, D) and parameters (N, U); (K, K) if all stars have the same."""
        total = self._constant
        if self.grows:
            features = growth_features(self._ranges, latents, parameters)
            for covariance, growth in self._growing:
                total = total + factors(features[:, : len(growth)], growth)[:, None, None] * covariance
        return np.asarray(total)


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

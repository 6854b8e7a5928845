"""What a latent distance means: how often true twins would lie that far apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from model.grid import Array


def p_same(distance: NDArray[np.float64], covariance: Array) -> Array:
    """Probability that twins lie at least this far apart: a p-value, uniform for true twins.

    `distance` (N,) Euclidean; `covariance` (N, D, D) of each pair's latent difference. The squared distance
    of a Gaussian difference is a weighted sum of chi-squares; its tail is taken from a single chi-square
    with the same first three cumulants (Pearson's approximation; Imhof 1961, Biometrika 48, 419).
    """
    square = covariance @ covariance
    first = np.trace(covariance, axis1=1, axis2=2)
    second = np.einsum("nij,nij->n", covariance, covariance)
    third = np.einsum("nij,nij->n", square, covariance)
    freedom = second**3 / third**2
    scaled = (distance**2 - first) / np.sqrt(2 * second) * np.sqrt(2 * freedom) + freedom
    return np.asarray(chi2.sf(np.maximum(scaled, 0.0), freedom))

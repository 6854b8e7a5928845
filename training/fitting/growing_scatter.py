"""A covariance that grows with features of the star, fitted to residuals."""

from __future__ import annotations

import numpy as np

from model.methods.scatter import factors
from model.spectra.grid import Array

STARS_PER_FEATURE = 10
"""Of fewer stars the scatter does not grow."""

PRIOR = 40.0
"""A growth is drawn to 0 as by so many stars with a feature of 1."""

TURNS = 4
STEPS = 30
STEP_SIZE = 0.7
LEAST = 1e-2
"""Least size of a residual, in units of the covariance, for the first growth."""


def fit_scatter(residual: Array, features: Array) -> tuple[Array, Array]:
    """Fit a covariance S exp(a . f) to residuals.

    Parameters
    ----------
    residual : array (N, K)
        Residuals of coefficients.
    features : array (N, F)
        Features f of each star (`model.methods.scatter.growth_features`).

    Returns
    -------
    covariance : array (K, K)
        S, the covariance where the features are 0.
    growth : array (F,)
        The growths a; 0 for less than 10 stars per feature.
    """
    covariance = residual.T @ residual / len(residual)
    if len(features) < STARS_PER_FEATURE * features.shape[1]:
        return np.asarray(covariance), np.zeros(features.shape[1])
    for _ in range(TURNS):
        sizes = np.einsum("nk,kl,nl->n", residual, np.linalg.inv(covariance), residual) / len(covariance)
        _, growth = fit_growth(sizes, features)
        scaled = residual / np.sqrt(factors(features, growth))[:, None]
        covariance = scaled.T @ scaled / len(residual)
    return np.asarray(covariance), growth


def fit_growth(sizes: Array, features: Array) -> tuple[float, Array]:
    """Fit c exp(a . f) to the mean of positive `sizes` (N,) with features f (N, F), as of gamma variates.

    Returns c and the growths a (F,), found by Fisher's scoring.
    """
    usual = float(sizes.mean())
    sizes = sizes / usual
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    prior = PRIOR * (np.arange(design.shape[1]) > 0)  # none of the constant
    information = design.T @ design + np.diag(prior)
    found = np.asarray(np.linalg.solve(information, design.T @ np.log(np.maximum(sizes, LEAST))), np.float64)
    for _ in range(STEPS):
        slope = design.T @ (sizes / factors(design, found) - 1) - prior * found
        found += STEP_SIZE * np.linalg.solve(information, slope)
    return usual * float(np.exp(found[0])), found[1:]

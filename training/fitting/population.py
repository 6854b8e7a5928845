"""The distribution of the latents of the stars that will be searched: a Gaussian about 0.

A model is trained on broad chemistry, so that real stars lie well inside it. They differ by less, and in few
ways. Under their own distribution the noise of what they do not differ in moves no latent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array

FREEDOM = 20.0
"""The prior about the unit matrix counts as this many groups."""

STEPS = 50
"""Twice as many change nothing in the tests."""


def fit_population(means: Array, covariances: Array, group: NDArray[np.int64]) -> Array:
    """Fit the covariance of latents by expectation-maximisation.

    Parameters
    ----------
    means, covariances : array (N, D) and (N, D, D)
        Posteriors of the stars' latents under a unit Gaussian prior.
    group : array of int (N,)
        The star's group, numbered from 0, whose members share a latent; single stars have groups of their own.

    Returns
    -------
    array (D, D)
        Lower triangular root L of the covariance L L'. The unit matrix if there are fewer groups than the
        covariance has numbers: siblings of five clusters are ranked no better by one of so few.
    """
    unit = np.eye(means.shape[1])
    if group.max() + 1 < unit.size:
        return unit
    precision = np.linalg.inv(covariances)
    information = np.zeros((group.max() + 1, *unit.shape))
    pull = np.zeros((group.max() + 1, len(unit)))
    np.add.at(information, group, precision - unit)
    np.add.at(pull, group, np.einsum("nde,ne->nd", precision, means))
    population = unit
    for _ in range(STEPS):
        posterior = np.linalg.inv(information + np.linalg.inv(population))
        latents = np.einsum("gde,ge->gd", posterior, pull)
        found = posterior.sum(axis=0) + latents.T @ latents
        population = (FREEDOM * unit + found) / (FREEDOM + len(latents))
    return np.asarray(np.linalg.cholesky(population))

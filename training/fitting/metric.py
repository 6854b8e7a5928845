"""The metric of latents: distances in units of the differences of twins."""

from __future__ import annotations

import numpy as np

from model.spectra.grid import Array


def difference_metric(covariances: Array) -> Array:
    """The metric (D, D) in which the mean covariance of twins' differences is the unit matrix.

    Of posterior `covariances` (N, D, D) under a unit Gaussian prior; the twins are neighbouring rows.
    """
    other = np.roll(covariances, 1, axis=0)
    mixed = covariances @ other
    pair = (covariances + other - mixed - mixed.swapaxes(1, 2)).mean(axis=0)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(pair)))


def deviation_metric(covariances: Array) -> Array:
    """The metric (D, D) in units of the mean standard deviation.

    It is the inverse of the mean matrix square root of the posterior covariances. A few poorly measured stars
    would decide the mean covariance, and a few well measured ones the mean information.

    Parameters
    ----------
    covariances : array (N, D, D)
        Posterior covariances A of latents whose prior is the unit Gaussian.

    Returns
    -------
    array (D, D)
        Symmetric. The differences of two posterior means of one latent, whose covariance is 2 A - 2 A A, have
        the mean square D in it.
    """
    variances, axes = np.linalg.eigh(covariances)
    deviations = (axes * np.sqrt(np.maximum(variances, 0.0))[:, None]) @ axes.swapaxes(1, 2)
    metric = np.linalg.inv(deviations.mean(axis=0))
    pair = 2 * (covariances - covariances @ covariances).mean(axis=0)
    return np.asarray(metric * np.sqrt(len(metric) / np.trace(metric @ pair @ metric)))

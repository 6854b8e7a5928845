"""The metric of latents: distances in units of the difference of twins."""

from __future__ import annotations

import numpy as np

from model.spectra.grid import Array


def twins_metric(covariances: Array) -> Array:
    """The metric (D, D) in which twins differ by one unit per latent.

    A latent's unit is its mean standard deviation: the inverse of the mean matrix square root of the posterior
    covariances. Of the mean covariance a few poorly measured stars would decide, of the mean information a few
    well measured ones; on synthetic surveys of the giant branch both find fewer twins.

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

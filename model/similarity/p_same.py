"""What a latent distance means: how often true twins would lie that far apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from model.spectra.grid import Array


def p_same(distance: NDArray[np.float64], covariance: Array) -> Array:
    """Probability that twins lie at least this far apart: a p-value, uniform for true twins.

    Parameters
    ----------
    distance : array (N,)
        Euclidean distance of the latents of each pair.
    covariance : array (N, D, D)
        Covariance of each pair's latent difference, were they twins.

    Returns
    -------
    array (N,)
        Probabilities.

    Notes
    -----
    The squared distance of a Gaussian difference is a weighted sum of chi-squares; its tail is taken as that of
    a scaled chi-square with the same mean and variance (Satterthwaite 1946, Biometrics Bulletin 2, 110).
    """
    mean = np.trace(covariance, axis1=1, axis2=2)
    half_variance = np.einsum("nij,nij->n", covariance, covariance)
    freedom = mean**2 / half_variance
    return np.asarray(chdtrc(freedom, distance**2 * freedom / mean))

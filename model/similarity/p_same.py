"""What a latent distance means: how often true twins would lie that far apart."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from model.spectra.grid import Array

P_SAME_LIMIT = 0.01
"""Stars of a smaller p_same are different: noise alone puts 1 % of true twins so far apart."""


class Verdict(StrEnum):
    """What a pair's p_same says of the two stars."""

    SAME = "same within noise"
    DIFFERENT = "different"
    UNKNOWN = "cannot tell"


def p_same(
    distance: NDArray[np.float64], covariance: Array, fe_h_difference: NDArray[np.float64] | None = None
) -> Array:
    """Probability that twins lie at least this far apart: a p-value, uniform for true twins.

    Parameters
    ----------
    distance : array (N,)
        Euclidean distance of the latents of each pair.
    covariance : array (N, D, D)
        Covariance of each pair's latent difference, were they twins.
    fe_h_difference : array (N,), optional
        Difference of [Fe/H] in units of its error, NaN where the error is unknown: one more dimension, for
        models that remove [Fe/H] from the latent.

    Returns
    -------
    array (N,)
        Probabilities.

    Notes
    -----
    The squared distance of a Gaussian difference is a weighted sum of chi-squares; its tail is taken as that of
    a scaled chi-square with the same mean and variance (Satterthwaite 1946, Biometrics Bulletin 2, 110). The
    dimension of [Fe/H] has the weight of the latent's mean variance.
    """
    mean = np.trace(covariance, axis1=1, axis2=2)
    half_variance = np.einsum("nij,nij->n", covariance, covariance)
    square = distance**2
    if fe_h_difference is not None:
        known = np.isfinite(fe_h_difference)
        weight = np.where(known, mean / covariance.shape[1], 0.0)
        square = square + weight * np.where(known, fe_h_difference, 0.0) ** 2
        mean, half_variance = mean + weight, half_variance + weight**2
    freedom = mean**2 / half_variance
    return np.asarray(chdtrc(freedom, square * freedom / mean))


def fe_h_difference(fe_h: Array, error: Array, other_fe_h: float, other_error: float) -> Array:
    """Differences (N,) of [Fe/H] (N,) from one star's, in units of their errors; NaN where those are 0."""
    variance = error**2 + other_error**2
    unit = np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.asarray((fe_h - other_fe_h) / unit)


def verdict(p_same: float | None, in_domain: bool) -> Verdict:
    """What to say of a pair of stars.

    Parameters
    ----------
    p_same : float or None
        Of the pair; None where it is not known.
    in_domain : bool
        Whether the model knows both stars.

    Returns
    -------
    Verdict
        `UNKNOWN` where p_same is not known or a star lies outside the domain. Otherwise `DIFFERENT` below
        `P_SAME_LIMIT`, and `SAME` from there on.
    """
    if p_same is None or not in_domain:
        return Verdict.UNKNOWN
    return Verdict.DIFFERENT if p_same < P_SAME_LIMIT else Verdict.SAME

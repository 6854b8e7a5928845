"""Stars of one chemistry share one latent: the mean of what their spectra say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array


def group_means(values: Array, group: NDArray[np.int64]) -> Array:
    """Means (G, ...) of `values` (N, ...) over the groups (N,), numbered from 0."""
    total = np.zeros((group.max() + 1, *values.shape[1:]))
    np.add.at(total, group, values)
    count = np.bincount(group).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(total / count)


def group_latents(latents: Array, information: Array, group: NDArray[np.int64]) -> Array:
    """Most probable common latents of groups.

    Parameters
    ----------
    latents : array (N, D)
        Most probable latents of the single stars, under a unit Gaussian prior.
    information : array (N, D, D)
        Information of each spectrum on them.
    group : array of int (N,)
        The group of each star, from 0.

    Returns
    -------
    array (G, D)
        Latents. The prior counts once for each group.
    """
    unit, size = np.eye(latents.shape[1]), np.bincount(group)
    precision = information + unit
    pulled = np.matmul(precision, latents[:, :, None])
    total, moment = (group_means(values, group) * size[:, None, None] for values in (precision, pulled))
    return np.asarray(np.linalg.solve(total - (size - 1)[:, None, None] * unit, moment)[:, :, 0])

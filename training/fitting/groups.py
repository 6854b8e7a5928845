"""Stars of one chemistry share one latent: the mean of what their spectra say."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.methods.response import Response
from model.spectra.grid import Array
from training.fitting.gaussdis import Stars


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


def fit_to_groups(
    stars: Stars,
    group: NDArray[np.int64],
    start: tuple[Response, Array],
    degrees: tuple[int, int, int],
    leading: int,
    turns: int,
) -> tuple[Response, Array]:
    """Fit a response in which the stars of a group have one latent.

    In turns: all get the most probable latent of their group by the last response, strongest latents first, and
    the response is fitted to these.

    Parameters
    ----------
    stars : Stars
        N stars, whose latents change.
    group : array of int (N,)
        The group of each star, from 0.
    start : (Response, array (K, K))
        The first response, and the scatter of coefficients about it.
    degrees : (int, int, int)
        Degrees in u of the response's mean, linear terms and products.
    leading : int
        Number of latents, those with the largest effect on spectra, that come in products of three.
    turns : int
        Number of turns.

    Returns
    -------
    response : Response
        The response.
    scatter : array (K, K)
        Covariance of the coefficients' residuals.
    """
    response, scatter = start
    for _ in tqdm(range(turns), desc="fit to groups", file=sys.stderr, disable=None):
        information = stars.refine(response, scatter)
        stars.latents = group_latents(stars.latents, information, group)[group]
        stars.whiten()
        _, axes = np.linalg.eigh(information.mean(axis=0))
        stars.latents = stars.latents @ axes[:, ::-1]
        response, scatter = stars.fitted(response.ranges, degrees=degrees, leading=leading)
    return response, scatter

"""Spectra of one star, recognised by its id, by its position on the sky, or because they are identical."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from model.spectra.grid import Array

ARCSEC = 1.0
"""Positions that differ by no more are of one star: an APOGEE fibre sees 2 arcsec."""


def same_stars(keys: Sequence[str], digests: NDArray[np.uint64], ra: Array, dec: Array) -> NDArray[np.int64]:
    """The number (N,) of the star of each spectrum.

    Parameters
    ----------
    keys : sequence of str
        What the ids of one star have in common.
    digests : array of uint64 (N,)
        Digests of the spectra.
    ra, dec : array (N,)
        Positions in degrees, NaN where not known.
    """
    links = [_links(np.unique(np.array(keys), return_inverse=True)[1]), _links(digests), _near(ra, dec)]
    first, second = np.concatenate(links).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(keys), len(keys)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def best_of_each(star: NDArray[np.int64], snr: Array) -> NDArray[np.int64]:
    """For each spectrum (N,) the one of its star with the highest S/N; of several the first."""
    order = np.lexsort((np.arange(len(star)), -snr, star))
    number, first = np.unique(star[order], return_index=True)
    return np.asarray(order[first][np.searchsorted(number, star)], np.int64)


def _links(values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Pairs (M, 2) that connect all rows of one value."""
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    return np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)


def _near(ra: Array, dec: Array) -> NDArray[np.int64]:
    """Pairs (M, 2) of rows whose positions are within `ARCSEC`."""
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    lon, lat = np.radians(ra[rows]), np.radians(dec[rows])
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    pairs = KDTree(points).query_pairs(2 * np.sin(np.radians(ARCSEC / 3600) / 2), output_type="ndarray")
    return np.asarray(rows[pairs], np.int64).reshape(-1, 2)

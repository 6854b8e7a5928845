"""Do two spectra have one latent or two? The log likelihood ratio of same against different.

A spectrum's posterior N(m, S) under the prior N(0, I) says of the latent what a likelihood of information
F = S^-1 - I says. With L = S^-1 = F + I and h = L m, two spectra i and j have the log ratio

    (h_i + h_j)' (L_i + L_j - I)^-1 (h_i + h_j) / 2 - h_i' m_i / 2 - h_j' m_j / 2
        - log|L_i + L_j - I| / 2 + log|L_i| / 2 + log|L_j| / 2
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.spectra.grid import Array

NEAREST = 300
"""Candidates per query whose exact ratio is computed."""

_PAIRS_AT_ONCE = 512
_QUERIES_AT_ONCE = 64
_SMALLEST = 1e-14

Rows = NDArray[np.int64] | slice


@dataclass(frozen=True)
class Likelihood:
    """Posteriors of N latents, in the form that likelihood ratios need.

    Attributes
    ----------
    mean : array (N, D)
        Posterior means m.
    precision : array (N, D, D)
        Inverse covariances L.
    shift : array (N, D)
        L m.
    offset : array (N,)
        Half of log|L| - m' L m.
    """

    mean: Array
    precision: Array
    shift: Array
    offset: Array

    @classmethod
    def of(cls, means: Array, covariances: Array) -> Likelihood:
        """From posterior means and covariances.

        Parameters
        ----------
        means : array (N, D)
            Posterior means under a unit Gaussian prior.
        covariances : array (N, D, D)
            Posterior covariances; their eigenvalues are clipped to at most 1, the prior's.

        Returns
        -------
        Likelihood
            The posteriors.
        """
        variance, axes = np.linalg.eigh((covariances + covariances.swapaxes(1, 2)) / 2)
        variance = np.clip(variance, _SMALLEST, 1.0)
        precision = (axes / variance[:, None]) @ axes.swapaxes(1, 2)
        shift = np.einsum("nij,nj->ni", precision, means)
        offset = -0.5 * (np.log(variance).sum(axis=1) + np.einsum("ni,ni->n", shift, means))
        return cls(np.asarray(means), precision, shift, offset)

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: Rows) -> Likelihood:
        return Likelihood(self.mean[rows], self.precision[rows], self.shift[rows], self.offset[rows])

    def ratio(self, query: Likelihood, rows: NDArray[np.int64] | None = None) -> Array:
        """Log ratios (M,) of the chosen rows, all by default, with one query."""
        rows = np.arange(len(self)) if rows is None else rows
        parts = (self[rows[start : start + _PAIRS_AT_ONCE]] for start in range(0, len(rows), _PAIRS_AT_ONCE))
        return np.concatenate([_ratio(part, query) for part in parts])

    def pairs(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
        """Log ratios (M,) of pairs of rows."""
        parts = (slice(start, start + _PAIRS_AT_ONCE) for start in range(0, len(first), _PAIRS_AT_ONCE))
        return np.concatenate([_ratio(self[first[part]], self[second[part]]) for part in parts])


def _ratio(first: Likelihood, second: Likelihood) -> Array:
    """Log ratios (N,) of rows of `first` with rows of `second`, or with its only row."""
    joint = first.precision + (second.precision - np.eye(first.mean.shape[1]))
    shift = first.shift + second.shift
    factor = np.linalg.cholesky(joint)
    solved = np.linalg.solve(factor, shift[:, :, None])[:, :, 0]
    width = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    joined = 0.5 * np.einsum("nd,nd->n", solved, solved) - width
    return np.asarray(joined + (first.offset + second.offset))


def likelihood_ratio(means: Array, covariances: Array, query_mean: Array, query_covariance: Array) -> Array:
    """Log likelihood ratios of same against different latent.

    Parameters
    ----------
    means, covariances : array (N, D) and (N, D, D)
        Posteriors of N stars under a unit Gaussian prior.
    query_mean, query_covariance : array (D,) and (D, D)
        The posterior of one star.

    Returns
    -------
    array (N,)
        Natural logarithms, by the formula in this module's head.
    """
    query = Likelihood.of(query_mean[None], query_covariance[None])
    return Likelihood.of(means, covariances).ratio(query)


def ranked_doppelgangers(
    stars: Likelihood,
    twin: NDArray[np.int64],
    queries: NDArray[np.int64],
    nearest: int = NEAREST,
    shown: bool = True,
) -> NDArray[np.int64]:
    """Count for each query the stars whose ratio is at least that of its twin.

    Parameters
    ----------
    stars : Likelihood
        Posteriors of N stars.
    twin : array of int (N,)
        The row of each star's twin.
    queries : array of int (Q,)
        Rows of the stars to search for.
    nearest : int
        Candidates per query whose exact ratio is computed; only these can count.
    shown : bool
        Show a progress bar.

    Returns
    -------
    array of int (Q,)
        The counts. Ties count against the twin.
    """
    count = []
    for row, candidates in shortlists(stars, queries, nearest, shown):
        rows = np.append(candidates[candidates != twin[row]], twin[row])
        ratio = stars.ratio(stars[row : row + 1], rows)
        count.append(np.count_nonzero(ratio[:-1] >= ratio[-1]))
    return np.array(count, dtype=np.int64)


def shortlists(
    stars: Likelihood, queries: NDArray[np.int64], nearest: int = NEAREST, shown: bool = True
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Find each query's nearest stars by a ratio that takes the query's precision for all.

    Parameters
    ----------
    stars : Likelihood
        Posteriors of N stars.
    queries : array of int (Q,)
        Rows of the stars to search for.
    nearest : int
        Number of candidates.
    shown : bool
        Show a progress bar.

    Yields
    ------
    row : int
        A query's row.
    candidates : array of int (nearest,)
        Rows of its candidates, in no order.
    """
    shortlist = _Shortlist(stars)
    count = min(nearest, len(stars) - 1)
    with tqdm(total=len(queries), unit="star", desc="rank", disable=None if shown else True) as bar:
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = queries[start : start + _QUERIES_AT_ONCE]
            for row, score in zip(block.tolist(), shortlist.scores(block), strict=True):
                score[row] = -np.inf
                yield row, np.argpartition(score, len(stars) - count)[len(stars) - count :]
            bar.update(len(block))


class _Shortlist:
    """Scores all stars for a query as if each had its precision: a quadratic form of their means."""

    def __init__(self, stars: Likelihood) -> None:
        self._stars = stars
        dimensions = stars.mean.shape[1]
        self._pairs = np.triu_indices(dimensions)
        self._weight = np.where(self._pairs[0] == self._pairs[1], 0.5, 1.0)
        first, second = self._pairs
        self._features = np.vstack([stars.mean.T, (stars.mean[:, first] * stars.mean[:, second]).T])

    def scores(self, rows: NDArray[np.int64]) -> Array:
        """Scores (Q, N) for the queries in `rows`."""
        precision, mean = self._stars.precision[rows], self._stars.mean[rows]
        both = precision @ np.linalg.solve(2 * precision - np.eye(mean.shape[1]), precision)
        linear = np.einsum("nij,nj->ni", both, mean)
        quadratic = (both - precision)[:, *self._pairs] * self._weight
        return np.asarray(np.hstack([linear, quadratic]) @ self._features)

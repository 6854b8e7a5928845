"""Twins that a calibrated GaussDis finds itself in a survey without noise.

Where spectra hold no noise, twins lie as far apart as the residue says, and nearly all other stars lie several
times as far: twins of a survey that has some are found without being named.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from model.gaussdis import GaussDis
from model.grid import Array
from model.likelihood import Likelihood
from training.gaussdis import Stars

ODDS = 1000.0
"""Least odds of a pair of being twins, where any one of the other stars might be the twin."""


def find_twins(model: GaussDis, seen: Array, parameters: Array) -> NDArray[np.int64]:
    """Pairs (P, 2) of rows of noiseless coefficients `seen` (N, K) at parameters (N, U) that are twins.

    Each star of a pair is the other's nearest in units of the residue, and the likelihood ratio of the pair
    makes for `ODDS`. A star is in one pair at most.
    """
    if len(seen) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    stars = Stars(seen, parameters, np.zeros((len(seen), model.card.latent_dim)))
    stars.refine(model.response, model.scatter)
    scaled = stars.latents @ np.linalg.cholesky(np.linalg.inv(model.residue))
    nearest = cKDTree(scaled).query(scaled, k=2)[1][:, 1]
    rows = np.arange(len(seen))
    first = rows[(nearest[nearest] == rows) & (rows < nearest)]
    second = nearest[first]
    unit, own = np.eye(len(model.residue)), 0.5 * model.residue
    shrunk = np.linalg.solve(unit + own, own)
    means = stars.latents - stars.latents @ shrunk
    posteriors = Likelihood.of(means, np.broadcast_to(shrunk, (len(means), *shrunk.shape)))
    sure = posteriors.pairs(first, second) > np.log(len(seen) * ODDS)
    return np.stack([first[sure], second[sure]], axis=1)

"""A network's twins ranked by likelihood: what twins differ by at a noise level, learned from validation pairs.

A network gives latents without errors. Here all latents are one Gaussian population, N(m, T), and a star's is
drawn about its group's with the covariance W of noise and of what is left of u. Pairs of a validation survey
with the same noise give both. In axes where W is 1 and T is diagonal, t, two stars have the log likelihood
ratio of same against different, summed over the axes and up to a constant,

    t a b / (1 + 2t) - t^2 (a^2 + b^2) / (2 (1 + t) (1 + 2t)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh

from model.spectra.grid import Array
from training.evaluation.evaluate import TwinSearch, doppelgangers, random_pairs
from training.spectral_basis import CPU


@dataclass(frozen=True)
class PairLikelihood:
    """Log likelihood ratios of pairs of latents, with D axes.

    Attributes
    ----------
    mean : array (D,)
        The population's mean.
    axes : array (D, D)
        The map to the axes.
    variance : array (D,)
        The population's variance t along them, in units of the variance of a star about its group.
    """

    mean: Array
    axes: Array
    variance: Array

    @classmethod
    def of(cls, latents: Array, twin: NDArray[np.int64]) -> PairLikelihood:
        """From the latents (N, D) of pairs, and the row (N,) of each star's twin."""
        within = np.cov((latents - latents[twin]).T) / 2
        total, axes = eigh(np.cov(latents.T), within)
        return cls(latents.mean(axis=0), axes, np.maximum(total - 1, 0.0))

    def search(
        self, latents: Array, twin: NDArray[np.int64], snr: float = np.inf, device: torch.device = CPU
    ) -> TwinSearch:
        """Search every star's twin among all others, the most likely first; distances are minus the ratios."""
        z, t = (latents - self.mean) @ self.axes, self.variance
        queries, candidates = z * np.sqrt((1 + t) / (1 + 2 * t)), z * t / np.sqrt((1 + t) * (1 + 2 * t))
        own = np.square(candidates).sum(axis=1) / 2

        def ratio(first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
            product = np.einsum("nd,nd->n", queries[first], candidates[second])
            return np.asarray(product - own[first] - own[second])

        near = -ratio(np.arange(len(z)), twin)
        far = -ratio(*random_pairs(twin))
        return TwinSearch(snr, doppelgangers(candidates, twin, device=device, queries=queries), near, far)

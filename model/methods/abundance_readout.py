"""Abundances from a latent by a linear map, with errors (fitted in `training.fitting.abundance_readout`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array


@dataclass(frozen=True)
class AbundanceReadout:
    """A linear map from latents to [X/Fe].

    Attributes
    ----------
    names : tuple of str
        The E elements.
    slope : array (D, E)
        Slopes, dex per unit of each latent.
    constant : array (E,)
        [X/Fe] of latent 0, dex.
    scatter : array (E,)
        Standard deviation of true abundances about the map, without noise, dex.
    provenance : dict
        The stars of the fit.
    """

    names: tuple[str, ...]
    slope: Array
    constant: Array
    scatter: Array
    provenance: dict[str, Any]

    def __call__(self, latents: Array, covariances: Array | None = None) -> tuple[Array, Array]:
        """Abundances of latents.

        Parameters
        ----------
        latents : array (N, D)
            Latents.
        covariances : array (N, D, D), optional
            Their covariances; without them the errors are those of noiseless spectra.

        Returns
        -------
        abundances : array (N, E)
            [X/Fe], dex.
        errors : array (N, E)
            Their standard deviations, dex.
        """
        variance = np.broadcast_to(self.scatter**2, (len(latents), len(self.names)))
        if covariances is not None:
            variance = variance + np.einsum("de,ndf,fe->ne", self.slope, covariances, self.slope)
        return latents @ self.slope + self.constant, np.sqrt(variance)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors for the model file."""
        values = {"slope": self.slope, "constant": self.constant, "scatter": self.scatter}
        return {f"abundance_{name}": array.astype(np.float32) for name, array in values.items()}

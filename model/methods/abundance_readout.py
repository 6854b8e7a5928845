"""Abundances from a latent by a linear map, with errors (fitted in `training.fitting.abundance_readout`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array


@dataclass(frozen=True)
class AbundanceReadout:
    """[X/Fe] (dex) of the elements `names` (E,) as `latent @ slope + constant`, with `slope` (D, E).

    `scatter` (E,) is the standard deviation of true abundances about that, without noise; `provenance`
    names the stars of the fit.
    """

    names: tuple[str, ...]
    slope: Array
    constant: Array
    scatter: Array
    provenance: dict[str, Any]

    def __call__(self, latents: Array, covariances: Array | None = None) -> tuple[Array, Array]:
        """Abundances (N, E) of latents (N, D), and their standard deviations (N, E).

        Without the latents' `covariances` (N, D, D) the errors are those of noiseless spectra.
        """
        variance = np.broadcast_to(self.scatter**2, (len(latents), len(self.names)))
        if covariances is not None:
            variance = variance + np.einsum("de,ndf,fe->ne", self.slope, covariances, self.slope)
        return latents @ self.slope + self.constant, np.sqrt(variance)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors for the model file."""
        values = {"slope": self.slope, "constant": self.constant, "scatter": self.scatter}
        return {f"abundance_{name}": array.astype(np.float32) for name, array in values.items()}

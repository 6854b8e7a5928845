"""PolyDis: the paper's baseline (section 2.2, after Price-Jones & Bovy 2017, 2019).

A polynomial of the parameters u, fitted wavelength by wavelength, removes the dependence on u; the residuals'
principal components are the latent. Fitting is in `training.fitting.polydis`; this is the inference.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.methods.base import Card, Model
from model.methods.basis import Basis
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from model.spectra.spectrum import Spectrum


class PolyDis(Model):
    """The coefficients of a spectral basis are the latent.

    Tensors: those of `Basis`, and `twins` (`Model.twins`).
    """

    method: ClassVar[str] = "polydis"

    def __init__(
        self,
        card: Card,
        grid: Grid,
        normaliser: Normaliser | None,
        *,
        twins: NDArray[Any],
        **basis: NDArray[Any],
    ) -> None:
        super().__init__(card, grid, normaliser, twins)
        self.basis = Basis(self.ranges, **basis)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors for the model file."""
        return {**self.basis.arrays(), "twins": self.twins.astype(np.float32)}

    def encode(self, flux: Array, parameters: Array, variance: Array | None = None) -> Array:
        """Principal components (N, D) of the residuals, as in the paper; missing pixels are completed."""
        return self.basis.project(flux, parameters, variance)

    def decode(self, latents: Array, parameters: Array) -> Array:
        """Flux (N, P): the polynomial at the parameters plus the latents' residuals."""
        return self.basis.rebuild(latents, parameters)

    def coefficients(self, latents: Array, parameters: Array) -> Array:
        """The latents (N, D) themselves."""
        return latents

    def transfer(self, flux: Array, parameters: Array, to: Array) -> Array:
        """The paper's own recasting for PolyDis (section 5.4): the whole residual moves to new parameters."""
        return np.asarray(flux - self.basis.expected(parameters) + self.basis.expected(to))

    def covariance(self, spectrum: Spectrum) -> Array:
        """Pixel noise, missing pixels and the parameters' errors, propagated to the latent (D, D)."""
        known = spectrum.parameters.values(self.parameter_names)
        complete, missing = self.basis.completion(spectrum, self.variance(spectrum))
        flux_slope = np.where(spectrum.ivar > 0, self.basis.slope(known), 0.0)
        slope = self.basis.components @ flux_slope.T * spectrum.parameters.errors(self.parameter_names)
        return np.asarray(complete @ (self.basis.noise(spectrum) + slope @ slope.T) @ complete.T + missing)

    def decode_sd(self, latent: Array, parameters: Array, covariance: Array) -> Array:
        """Standard deviation (P,) of the decoded flux for a latent of this covariance (D, D)."""
        return np.asarray(np.sqrt(np.sum(self.basis.components * (covariance @ self.basis.components), axis=0)))

"""The steps from spectra to network inputs, fitted once on the survey before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import InputError
from model.methods.basis import Basis
from model.spectra.continuum import Normaliser
from model.spectra.grid import Grid
from training.config import NetworkConfig
from training.random_streams import Stream
from training.spectral_basis import CPU, fit_basis, fit_normaliser, training_ranges
from training.surveys.survey import Survey, add_noise

NOISE_STARS = 4096


@dataclass(frozen=True)
class Frontend:
    """Normaliser, basis, and the scale of the coefficients that are the network inputs.

    `scale` (K,) is empty when the inputs are pixels; `noise` (M, M), or None for white noise, turns white
    noise of 1 / snr into that of the network inputs.
    """

    normaliser: Normaliser | None
    basis: Basis
    scale: NDArray[np.float64]
    noise: NDArray[np.float64] | None

    @classmethod
    def fit(cls, survey: Survey, config: NetworkConfig, device: torch.device = CPU) -> Frontend:
        """Fit all of it on a survey's flux and parameters. Raises InputError for less than a batch."""
        if len(survey) < config.batch:
            raise InputError(
                f"{survey.path} has {len(survey)} stars, fewer than a batch of {config.batch}: too few to "
                "train a model on. Adapt a trained one to them with chemtwin model adapt "
                "(docs/how-to/adapt-a-model.md); to train all the same, give "
                f"--set batch={len(survey)} or less"
            )
        normaliser = fit_normaliser(survey) if config.continuum == "pseudo" else None
        basis = fit_basis(
            survey,
            normaliser,
            parameters=config.parameters,
            degree=config.degree,
            components=config.components,
            device=device,
        )
        if config.inputs == "pixels":
            return cls(normaliser, basis, np.zeros(0), None)
        scale = np.sqrt(basis.variances + config.snr[1] ** -2)
        return cls(normaliser, basis, scale, coefficient_noise(survey, normaliser, basis))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, for a checkpoint."""
        pixels = np.zeros(0, dtype=np.int64) if self.normaliser is None else self.normaliser.pixels
        noise = np.zeros((0, 0)) if self.noise is None else self.noise
        return {**self.basis.arrays(), "scale": self.scale, "noise": noise, "continuum_pixels": pixels}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], survey: Survey, config: NetworkConfig) -> Frontend:
        """The reverse of `arrays`, for the survey and configuration that they were fitted with."""
        pixels, noise, scale = arrays.pop("continuum_pixels"), arrays.pop("noise"), arrays.pop("scale")
        return cls(
            Normaliser(Grid(survey.wavelength), pixels) if len(pixels) else None,
            Basis(training_ranges(survey, config.parameters), **arrays),
            scale,
            noise if len(noise) else None,
        )


def coefficient_noise(
    survey: Survey, normaliser: Normaliser | None, basis: Basis
) -> NDArray[np.float64] | None:
    """Cholesky factor (K, K) of the coefficients' covariance for white noise of unit variance in the pixels.

    Coefficients of white noise are white (None); the normaliser, which divides by a continuum fitted to the
    same noise, makes them a little less so: measured on spectra at S/N 100.
    """
    if normaliser is None:
        return None
    differences = []
    for rows, flux in survey.blocks("noise"):
        noisy = add_noise(flux, 100, Stream.CONTINUUM_NOISE, rows.start)
        change = normaliser.batch(noisy) - normaliser.batch(flux)
        differences.append(100 * change @ basis.components.T)
        if rows.stop >= NOISE_STARS:
            break
    return np.asarray(np.linalg.cholesky(np.cov(np.concatenate(differences).T)), dtype=np.float64)

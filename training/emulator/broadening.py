"""Gaussian line broadening of synthetic spectra, each star its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

from model.spectra.grid import Array, Grid

LIGHT = 299_792.458
"""km/s."""


def broaden(flux: NDArray[np.float32], sd: Array, grid: Grid) -> NDArray[np.float32]:
    """Flux (N, P) convolved, detector by detector, with Gaussians of standard deviation `sd` (N,), km/s.

    Each detector must be evenly spaced in log wavelength. The convolution is a product of cosine transforms:
    exact for flux that its pixels resolve, however narrow the Gaussian, and mirrored at a detector's ends.
    """
    out = np.empty_like(flux)
    for detector in grid.detectors:
        wavelength = grid.wavelength[detector]
        count = len(wavelength)
        pixel = LIGHT * np.log(wavelength[-1] / wavelength[0]) / (count - 1)
        phase = np.pi * np.arange(count) / count
        damping = np.exp(-0.5 * np.square(np.outer(sd / pixel, phase))).astype(np.float32)
        out[:, detector] = idct(dct(flux[:, detector], axis=1) * damping, axis=1)
    return out

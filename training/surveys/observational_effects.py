"""Effects of observation for synthetic spectra: errors in labels and velocity, masks, another LSF, slopes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.constants import speed_of_light
from scipy.fft import dct, idct
from scipy.ndimage import shift

from model.errors import InputError
from model.spectra.grid import Array, Grid

LABEL_SD = {"teff": 50.0, "logg": 0.1, "fe_h": 0.05}
"""Errors of the labels: K, dex, dex."""

VELOCITY_SD = 0.5
"""Residual radial velocity, km/s."""

MASKED, BLOCK_PIXELS = 0.1, 50
"""Fraction of masked pixels, and the length of a block."""

RESOLUTION, LOWER_RESOLUTION = 22_500.0, 21_375.0
SLOPE_SD = 0.01

CASES = {
    "none": "noise only",
    "labels": "errors in all labels",
    **{name: f"error in {name}" for name in LABEL_SD},
    "velocity": f"velocity off by {VELOCITY_SD:g} km/s",
    "pixels": f"{MASKED:.0%} of pixels masked, at random",
    "blocks": f"{MASKED:.0%} of pixels masked, in blocks of {BLOCK_PIXELS}",
    "resolution": f"one twin at R = {LOWER_RESOLUTION:,.0f}",
    "slopes": f"slopes of {SLOPE_SD:.0%} across each chip",
}
"""Every kind of perturbation, in words."""


def perturbed(
    spectra: NDArray[Any], parameters: Array, kind: str, generator: np.random.Generator, wavelength: Array
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Flux (N, P), labels (N, 3) in the order of `LABEL_SD`, and masked pixels (N, P) of perturbed stars.

    `wavelength` (P,) Angstrom, logarithmic within each chip; `kind` is one of `CASES`. Each star has its own
    draw; "resolution" broadens every second star, the first of each pair of neighbouring twins.
    """
    flux: Array = spectra.astype(np.float64)
    parameters = parameters.astype(np.float64)
    masked: NDArray[np.bool_] = np.zeros(flux.shape, dtype=np.bool_)
    if kind == "labels" or kind in LABEL_SD:
        errors = generator.standard_normal(parameters.shape) * list(LABEL_SD.values())
        parameters += errors * [kind in ("labels", name) for name in LABEL_SD]
    elif kind == "velocity":
        flux = shifted(flux, VELOCITY_SD * generator.standard_normal(len(flux)), wavelength)
    elif kind == "pixels":
        masked = generator.random(flux.shape) < MASKED
    elif kind == "blocks":
        masked = blocks(flux.shape, generator)
    elif kind == "resolution":
        flux[::2] = broadened(flux[::2], wavelength)
    elif kind == "slopes":
        flux *= slopes(len(flux), generator, wavelength)
    elif kind != "none":
        raise InputError(f"{kind} is no kind of perturbation: {', '.join(CASES)}")
    return flux, parameters, masked


def shifted(flux: Array, velocity: Array, wavelength: Array) -> Array:
    """Flux (N, P) redshifted by `velocity` (N,) km/s, by quintic splines within each chip."""
    moved = np.empty_like(flux)
    shifts = np.log1p(velocity * 1e3 / speed_of_light)
    for chip in Grid(wavelength).detectors:
        pixels = shifts / _step(wavelength[chip])
        for star, by in enumerate(pixels):
            moved[star, chip] = shift(flux[star, chip], by, order=5, mode="mirror")
    return moved


def broadened(
    flux: Array, wavelength: Array, resolution: float = RESOLUTION, other: float | Array = LOWER_RESOLUTION
) -> Array:
    """Flux (N, P) of Gaussian resolution `resolution`, brought to `other`, one or (N, 1), within each chip.

    The Gaussian multiplies the cosine transform, since it is less than half a pixel wide and cannot be sampled;
    the chip is mirrored at its ends.
    """
    variance = (np.square(1 / other) - resolution**-2) / (8 * np.log(2))
    out = np.empty_like(flux)
    for chip in Grid(wavelength).detectors:
        part = flux[:, chip]
        frequency = np.pi * np.arange(part.shape[1]) / part.shape[1]
        transfer = np.exp(-0.5 * variance * (frequency / _step(wavelength[chip])) ** 2)
        out[:, chip] = idct(dct(part, axis=1) * transfer, axis=1)
    return out


def blocks(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.bool_]:
    """Masked pixels (N, P): each star is cut into blocks from its own start, and a fraction of them chosen."""
    stars, pixels = shape
    start = generator.integers(BLOCK_PIXELS, size=(stars, 1))
    cell = (np.arange(pixels) + start) // BLOCK_PIXELS
    cells = pixels // BLOCK_PIXELS
    rank = generator.permuted(np.tile(np.arange(cells + 2), (stars, 1)), axis=1)
    return np.asarray(np.take_along_axis(rank, cell, axis=1) < round(MASKED * cells))


def slopes(stars: int, generator: np.random.Generator, wavelength: Array) -> Array:
    """Factors (N, P), linear in pixels from 1 - s to 1 + s across each chip, s Gaussian of `SLOPE_SD`."""
    factors = np.empty((stars, len(wavelength)))
    for chip in Grid(wavelength).detectors:
        s = SLOPE_SD * generator.standard_normal((stars, 1))
        factors[:, chip] = 1 + s * np.linspace(-1, 1, chip.stop - chip.start)
    return factors


def _step(wavelength: Array) -> float:
    """A chip's pixel in ln lambda."""
    return float(np.log(wavelength[-1] / wavelength[0]) / (len(wavelength) - 1))

"""What an observation does to synthetic spectra and to their labels.

    chemtwin survey synthesize survey.h5 --observed

Noise and masks have the patterns of the shipped DR10 giants. Resolution, velocity and continuum differ from
star to star, residuals remain under sky lines and of the Earth's atmosphere, and labels have errors.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from model.spectra.grid import Array, Grid
from model.spectra.parameters import PARAMETER_UNITS
from training.random_streams import Stream, generator
from training.surveys.observational_effects import RESOLUTION, broadened, shifted

FOLDER = Path(__file__).parents[1] / "observed"
TEMPLATES, TELLURIC = FOLDER / "dr10_giants.h5", FOLDER / "telluric.h5"

MEDIAN_SNR, SNR_SPREAD, SNR_RANGE = 130.0, 0.5, (40.0, 500.0)
"""S/N of the stars: a log-normal distribution, its standard deviation in ln S/N, and its limits."""

LABEL_SD = {"teff": 60.0, "logg": 0.08, "fe_h": 0.03}
"""Errors (K, dex) of labels in the middle of their range."""

WARM = 0.3
"""Errors of labels are smaller by this fraction at the warmest stars, and larger at the coolest."""

RESOLUTIONS = 20_000.0, 24_000.0
VELOCITY_SD = 0.2
"""Error of the radial velocity, km/s."""

CONTINUUM_SD, CONTINUUM_DEGREE = 0.005, 3
"""Error of the continuum, in each detector a Legendre series up to this degree."""

SKY, SKY_SD = 1.5, 0.5
"""Pixels with this many times the median noise are under sky lines. Their residual, one amplitude for a
detector, is this fraction of the noise."""

TELLURIC_SD = 0.05
"""Error of the atmosphere's optical depth, as a fraction of it: one hundredth of the flux in strong lines."""

VRAD_SD = 40.0
"""Velocities of stars against the Earth, km/s: the atmosphere's lines fall on other pixels of each star."""


class Observed(NamedTuple):
    """Observed flux, ivar (N, P)."""

    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]


def observed_snr(stars: int, seed: int) -> Array:
    """S/N per pixel (N,) of stars as APOGEE's."""
    drawn = generator(Stream.OBSERVED_LABELS, 0, seed=seed).normal(np.log(MEDIAN_SNR), SNR_SPREAD, stars)
    return np.clip(np.exp(drawn), *SNR_RANGE)


def observed_labels(parameters: Array, seed: int) -> tuple[Array, Array]:
    """Labels (N, 3) with errors, and the errors' standard deviations (N, 3)."""
    teff = parameters[:, 0]
    warmth = 2 * (teff - teff.min()) / max(np.ptp(teff), 1.0) - 1
    sd = (1 - WARM * warmth)[:, None] * [LABEL_SD[name] for name in PARAMETER_UNITS]
    drawn = generator(Stream.OBSERVED_LABELS, 1, seed=seed).standard_normal(parameters.shape)
    return parameters + sd * drawn, sd


def observed_velocities(stars: int, seed: int) -> Array:
    """Velocities (N,) of stars against the Earth, km/s."""
    return VRAD_SD * generator(Stream.OBSERVED_LABELS, 2, seed=seed).standard_normal(stars)


def noise_patterns(grid: Grid, unmasked: bool) -> Array:
    """Noise (M, P) of M real spectra in units of its median, infinite where a pixel is masked.

    `unmasked`: the median instead.
    """
    with h5py.File(TEMPLATES) as file:
        error = file["error"][:][:, Grid.apogee().apogee_pixels].astype(np.float64)
    assert error.shape[1] == len(grid), "the emulator has APOGEE's grid"
    good = np.isfinite(error) & (error > 0) & (error < 1.0)
    error[~good] = np.nan
    pattern = error / np.nanmedian(error, axis=1)[:, None]
    return np.where(good, pattern, 1.0 if unmasked else np.inf)


def observe(
    flux: NDArray[Any], snr: Array, vrad: Array, patterns: Array, grid: Grid, start: int, seed: int
) -> Observed:
    """Observe stars.

    Parameters
    ----------
    flux : array (N, P)
        True flux at `RESOLUTION`, in units of the continuum.
    snr : array (N,)
        The stars' S/N per pixel.
    vrad : array (N,)
        Their velocities against the Earth, km/s.
    patterns : array (M, P)
        From `noise_patterns`.
    grid : Grid
        The pixels.
    start : int
        The first star's row in its survey, which fixes the draw with `seed`.

    Returns
    -------
    Observed
        Flux and inverse variance; in masked pixels flux is 1 and the inverse variance 0.
    """
    random = generator(Stream.OBSERVED_SPECTRA, start, seed=seed)
    stars = len(flux)
    seen = broadened(
        flux.astype(np.float64), grid.wavelength, RESOLUTION, random.uniform(*RESOLUTIONS, size=(stars, 1))
    )
    seen = shifted(seen, VELOCITY_SD * random.standard_normal(stars), grid.wavelength)
    seen *= np.exp(TELLURIC_SD * random.standard_normal((stars, 1)) * atmosphere(vrad, grid))
    noise = patterns[random.integers(len(patterns), size=stars)] / snr[:, None]
    masked = np.isinf(noise)
    noise[masked] = 0.0
    sky = np.where(noise > SKY / snr[:, None], noise, 0.0)
    for detector in grid.detectors:
        x = np.linspace(-1, 1, detector.stop - detector.start)
        series = random.standard_normal((CONTINUUM_DEGREE + 1, stars)) / np.sqrt(CONTINUUM_DEGREE + 1)
        seen[:, detector] *= 1 + CONTINUUM_SD * legendre.legval(x, series)
        seen[:, detector] += SKY_SD * random.standard_normal((stars, 1)) * sky[:, detector]
    seen += noise * random.standard_normal(seen.shape)
    seen[masked] = 1.0
    ivar = np.divide(1.0, noise**2, out=np.zeros_like(noise), where=~masked)
    return Observed(seen.astype(np.float32), ivar.astype(np.float32))


def atmosphere(vrad: Array, grid: Grid) -> Array:
    """Log transmission (N, P) of the Earth's atmosphere, in the frames of stars of velocities (N,), km/s."""
    at_rest = _atmosphere()
    return shifted(np.broadcast_to(at_rest, (len(vrad), len(at_rest))), -vrad, grid.wavelength)


@cache
def _atmosphere() -> Array:
    """Log transmission (P,) of the Earth's atmosphere, in its own frame (`training.observed.telluric`)."""
    with h5py.File(TELLURIC) as file:
        return np.asarray(np.log(file["transmission"][:] / file.attrs["unit"]))

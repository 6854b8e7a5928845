"""Wavelength grids, and resampling onto them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.errors import SpectrumError

Array = NDArray[np.float64]

SAME = 1e-7
"""Wavelengths that differ by no more than this part are the same."""

WIDEST = 3.0
"""Pixels farther apart than so many of the model's are not interpolated."""

APOGEE_PIXELS = 8575
MAX_PIXELS = 10 * APOGEE_PIXELS
"""The longest spectrum that is accepted."""

APOGEE_LOG_START, APOGEE_LOG_STEP = 4.179, 6e-6
APOGEE_DETECTORS = ((246, 3274), (3585, 6080), (6344, 8335))
"""Pixel ranges of the three detectors in DR13 to DR17 combined spectra."""


def apogee_wavelength() -> Array:
    """Vacuum wavelengths (8575,) in Angstrom of the APOGEE combined spectra."""
    return np.asarray(10.0 ** (APOGEE_LOG_START + APOGEE_LOG_STEP * np.arange(APOGEE_PIXELS)), np.float64)


@dataclass(frozen=True)
class Grid:
    """The pixels of a model.

    Attributes
    ----------
    wavelength : array (P,)
        Angstrom, vacuum, rest frame, strictly increasing.

    Raises
    ------
    ValueError
        For fewer than two wavelengths, or some that do not increase.
    """

    wavelength: Array

    def __post_init__(self) -> None:
        if self.wavelength.ndim != 1 or len(self.wavelength) < 2 or not np.all(np.diff(self.wavelength) > 0):
            raise ValueError("a grid is a strictly increasing array of at least two wavelengths")

    @classmethod
    def apogee(cls) -> Grid:
        """The 7,514 detector pixels of APOGEE combined spectra (DR13 to DR17)."""
        everything = apogee_wavelength()
        return cls(np.concatenate([everything[a:b] for a, b in APOGEE_DETECTORS]))

    def __len__(self) -> int:
        return len(self.wavelength)

    @cached_property
    def detectors(self) -> tuple[slice, ...]:
        """Contiguous runs of pixels: a step of more than 3 times the median one (in ln lambda) parts them."""
        step = np.diff(np.log(self.wavelength))
        edges = [0, *(np.flatnonzero(step > 3 * np.median(step)) + 1), len(self)]
        return tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(edges))

    @cached_property
    def apogee_pixels(self) -> NDArray[np.intp] | None:
        """Indices (P,) of this grid's pixels among the 8,575 of APOGEE, or None if they are not among them."""
        everything = apogee_wavelength()
        nearest = np.clip(np.searchsorted(everything, self.wavelength * (1 - 1e-9)), 0, APOGEE_PIXELS - 1)
        same = np.allclose(everything[nearest], self.wavelength, rtol=1e-8, atol=0)
        return nearest if same else None

    def is_own(self, wavelength: Array | None, pixels: int) -> bool:
        """Whether `pixels` fluxes at `wavelength` (n,) Angstrom, or None, are already on this grid."""
        if pixels != len(self):
            return False
        return wavelength is None or bool(np.all(np.abs(wavelength / self.wavelength - 1) <= SAME))

    def resample(self, wavelength: Array | None, flux: Array, ivar: Array) -> tuple[Array, Array, str]:
        """Bring one spectrum onto this grid.

        Parameters
        ----------
        wavelength : array (n,) or None
            Angstrom, in vacuum and at rest. None: the flux has this grid's pixels, or APOGEE's 8,575.
        flux : array (n,)
            Finite, also where it is to be ignored.
        ivar : array (n,)
            Inverse variance; 0 marks a pixel to ignore.

        Returns
        -------
        flux : array (P,)
            The flux on this grid.
        ivar : array (P,)
            Its inverse variance, 0 where the spectrum does not cover a pixel.
        history : str
            What was done, in words.

        Raises
        ------
        SpectrumError
            For a length or a wavelength range that does not fit.

        Notes
        -----
        Flux is interpolated by a cubic spline through the good pixels, variance linearly. A pixel is used only
        where both its neighbours on the old grid are good.
        """
        if wavelength is None:
            if len(flux) == len(self):
                return flux, ivar, "model grid"
            if len(flux) == APOGEE_PIXELS and self.apogee_pixels is not None:
                return flux[self.apogee_pixels], ivar[self.apogee_pixels], "cut from the APOGEE grid"
            raise SpectrumError(
                "wrong_length",
                f"flux has {len(flux)} pixels; without wavelength it must have the model's {len(self)} or "
                f"APOGEE's {APOGEE_PIXELS}. Send wavelength (Angstrom, vacuum, rest frame) with it.",
            )
        if self.is_own(wavelength, len(flux)):
            return flux, ivar, "model grid"
        self._check_wavelength(wavelength)
        resampled = self._interpolate(wavelength, flux, ivar)
        return *resampled, f"resampled from {len(wavelength)} pixels by cubic splines"

    def _check_wavelength(self, wavelength: Array) -> None:
        if not np.all(np.isfinite(wavelength)) or np.any(np.diff(wavelength) <= 0):
            raise SpectrumError("bad_wavelength", "wavelength must be finite and strictly increasing")
        low, high = self.wavelength[0], self.wavelength[-1]
        covered = np.mean((self.wavelength >= wavelength[0]) & (self.wavelength <= wavelength[-1]))
        if covered < 0.5:
            hint = next(
                (
                    f" These look like {unit}."
                    for unit, factor in (("nanometres", 10.0), ("micrometres", 1e4))
                    if wavelength[0] * factor < high and wavelength[-1] * factor > low
                ),
                "",
            )
            raise SpectrumError(
                "wavelength_out_of_range",
                f"the spectrum spans {wavelength[0]:.6g} to {wavelength[-1]:.6g} Angstrom and covers "
                f"{covered:.0%} of the model's {low:.1f} to {high:.1f}; at least half is needed.{hint}",
            )
        inside = wavelength[(wavelength >= low) & (wavelength <= high)]
        own = float(np.median(np.diff(self.wavelength)))
        step = float(np.median(np.diff(inside))) if len(inside) > 1 else np.inf
        if step > WIDEST * own:
            raise SpectrumError(
                "too_coarse",
                f"the spectrum's pixels are {step:.3g} Angstrom apart: at most {WIDEST * own:.2g} can be "
                f"resampled to the model's {own:.2g}",
            )

    def _interpolate(self, wavelength: Array, flux: Array, ivar: Array) -> tuple[Array, Array]:
        target = self.wavelength
        good = ivar > 0
        if good.sum() < 2:
            return np.zeros(len(self)), np.zeros(len(self))
        right = np.clip(np.searchsorted(wavelength, target), 1, len(wavelength) - 1)
        exact = np.isclose(wavelength[right], target, rtol=1e-8, atol=0)
        left = np.where(exact, right, right - 1)
        step = float(np.median(np.diff(np.log(target))))
        usable = (
            (target >= wavelength[0] * (1 - 1e-9))
            & (target <= wavelength[-1] * (1 + 1e-9))
            & good[left]
            & good[right]
            & (np.log(wavelength[right] / wavelength[left]) <= WIDEST * step)
        )
        from scipy.interpolate import CubicSpline  # a fifth of a start's imports, for few spectra

        new_flux = CubicSpline(wavelength[good], flux[good], extrapolate=False)(target)
        variance = np.interp(target, wavelength[good], 1.0 / ivar[good])
        usable &= np.isfinite(new_flux)
        return np.where(usable, new_flux, 0.0), np.where(usable, 1.0 / variance, 0.0)

"""What a survey's FITS file holds of a star, whichever its layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import FormatError
from model.grid import APOGEE_LOG_START, APOGEE_LOG_STEP, APOGEE_PIXELS, Array

SAME_LOG = 1e-8
"""Scales that nowhere differ by more than this in log10 are the same: 0.002 pixels."""


@dataclass(frozen=True)
class StarFile:
    """What a survey's file holds of a star: one of its `rows` spectra.

    `flux` (n,), `ivar` (n,), `bad` (n,) pixels to ignore, `wavelength` (n,) Angstrom or None for APOGEE's
    8,575. `labels` has those of teff, logg, fe_h that may be trusted, `errors` the 1-sigma errors of those that
    have one.
    """

    kind: str
    flux: Array
    ivar: Array
    bad: NDArray[np.bool_]
    wavelength: Array | None
    normalized: bool
    star_id: str | None = None
    ra: float | None = None
    dec: float | None = None
    labels: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    rows: int = 1
    warnings: tuple[str, ...] = ()


def number(value: Any) -> float | None:
    """A finite float, or None for what is missing or one of SDSS's sentinels (-9999, -9999.99)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > -9990 else None


def text(value: Any) -> str | None:
    """The text, or None for what is missing or blank."""
    told = str(value).strip() if value is not None else ""
    return told or None


def log_linear(start: float, step: float, reference: float | None, pixels: int, where: str) -> Array | None:
    """Wavelengths (n,) in Angstrom of pixels on a log10 scale, None where they are APOGEE's own.

    `start` is that of the `reference` pixel, by default the first, 1. Raises FormatError, naming `where`.
    """
    start -= (1.0 if reference is None else reference) * step - step
    if (
        pixels == APOGEE_PIXELS
        and abs(start - APOGEE_LOG_START) < SAME_LOG
        and abs(step - APOGEE_LOG_STEP) < SAME_LOG / pixels
    ):
        return None
    if not (3 < start < 5 and 0 < step < 0.01):
        raise FormatError("unknown_fits", f"{where} is not on a log10(Angstrom) wavelength scale")
    return np.asarray(10.0 ** (start + step * np.arange(pixels)), np.float64)

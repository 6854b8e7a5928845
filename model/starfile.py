"""What a survey's FITS file holds of a star, whichever its layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.grid import Array


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

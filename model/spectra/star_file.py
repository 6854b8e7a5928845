"""A star as read from a survey's FITS file, whatever its layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import FormatError
from model.spectra.grid import APOGEE_LOG_START, APOGEE_LOG_STEP, APOGEE_PIXELS, Array

SAME_LOG = 1e-8
"""Scales that nowhere differ by more than this in log10 are the same: 0.002 pixels."""

DESIGNATION = r"(?:2M|AP)\d{8}[+-]\d{7}"
"""A 2MASS designation, the id of nearly every APOGEE star."""

COORDINATES = re.compile(r"(?<!\d)(\d{8}[+-]\d{7})(?!\d)")
"""The part of a 2MASS designation that is the star's position, whatever is before it: 2M, AP, J, 2MASS-J."""

PARTS = re.compile(r"(\d\d)(\d\d)(\d{4})([+-])(\d\d)(\d\d)(\d{3})\Z")

FAR = {"teff": 500.0, "logg": 1.0, "fe_h": 0.5}
"""Labels of one star differ by no more (K, dex, dex) from one pipeline to another."""

SPECTRUM_FLAGS = {
    0: ("BAD_PIXELS", "many of its pixels are bad"),
    3: ("VERY_BRIGHT_NEIGHBOR", "a star 100 times brighter is on the neighbouring fibre"),
    17: ("SUSPECT_BROAD_LINES", "its lines are broad: a fast rotator, or two stars"),
    18: ("BAD_RV_COMBINATION", "its visits may be combined at wrong velocities"),
    21: ("MULTIPLE_SUSPECT", "it may be the light of several stars"),
    22: ("RV_FAIL", "its radial velocity is not known, so it may not be at rest"),
}
"""Bits of APOGEE's STARFLAG, and of astra's spectrum_flags, that make the spectrum itself doubtful."""


@dataclass(frozen=True)
class StarFile:
    """A star of a survey's file: one of its `rows` spectra, with labels and warnings.

    Attributes
    ----------
    kind : str
        The layout: apStar, aspcapStar, mwmStar or mwmVisit.
    flux, ivar : array (n,)
        Flux and its inverse variance.
    bad : array of bool (n,)
        Pixels to mask.
    wavelength : array (n,) or None
        Angstrom; None for APOGEE's 8,575 pixels.
    normalized : bool
        Whether the flux was divided by a continuum.
    star_id : str or None
        The star's id in the survey.
    ra, dec : float or None
        Position in degrees.
    labels : dict of str to float
        Those of teff (K), logg and fe_h (dex) that may be trusted.
    errors : dict of str to float
        Their 1-sigma errors, where there are any.
    rows : int
        Number of spectra in the file.
    warnings : tuple of str
        Warnings of the spectrum.
    label_notes : dict of str to tuple of str
        Warnings of a label, by its name.
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
    label_notes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def disagreements(self, labels: Mapping[str, float]) -> tuple[str, ...]:
        """Warnings of the user's `labels` that are far from the file's own."""
        return tuple(
            f"{name} = {labels[name]:g} is far from the file's own {own:g}: is it another star's?"
            for name, own in self.labels.items()
            if name in labels and abs(labels[name] - own) > FAR[name]
        )

    def notes_of(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The warnings of a star whose `labels` named here are the file's; its other labels are the user's."""
        notes = (note for name in labels for note in self.label_notes.get(name, ()))
        return tuple(dict.fromkeys((*self.warnings, *notes)))


def same_star(first: str, second: str) -> bool:
    """Whether two ids may name one star: not if both contain a 2MASS designation and these differ."""
    positions = [match[1] for match in map(COORDINATES.search, (first, second)) if match]
    return len(positions) < 2 or positions[0] == positions[1]


def designated_position(star_id: str) -> tuple[float, float] | None:
    """The position (ra, dec), in degrees, that an id with a 2MASS designation states: 2M17334253-1654573."""
    stated = COORDINATES.search(star_id)
    found = PARTS.match(stated[1]) if stated is not None else None
    if found is None:
        return None
    hours, minutes, seconds, sign, degrees, arcmin, arcsec = found.groups()
    ra = 15 * (int(hours) + int(minutes) / 60 + int(seconds) / 360_000)
    dec = int(degrees) + int(arcmin) / 60 + int(arcsec) / 36_000
    return ra, -dec if sign == "-" else dec


def number(value: Any) -> float | None:
    """A finite float, or None for what is missing or one of SDSS's sentinels (-9999, -9999.99)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > -9990 else None


def text(value: Any) -> str | None:
    """The text, or the digits of an integer; None for what is blank or of another type.

    A floating-point number is no identifier: its digits may be rounded.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)):
        return None
    return str(value).strip() or None


def spectrum_notes(flags: Any, keyword: str) -> tuple[str, ...]:
    """Warnings of the spectrum from `flags`, the value of STARFLAG or of another `keyword`."""
    bits = number(flags)
    if bits is None or bits < 0:
        return ()
    return tuple(
        f"the file's {keyword} has {name} set: {meaning}"
        for bit, (name, meaning) in SPECTRUM_FLAGS.items()
        if int(bits) >> bit & 1
    )


def log_linear(start: float, step: float, reference: float | None, pixels: int, where: str) -> Array | None:
    """Wavelengths of pixels on a log10 scale.

    Parameters
    ----------
    start : float
        Decimal logarithm of the wavelength in Angstrom of the reference pixel.
    step : float
        Step of log10 from one pixel to the next.
    reference : float or None
        The reference pixel, counted from 1; None: the first.
    pixels : int
        Number n of pixels.
    where : str
        Part of the file, for the error's message.

    Returns
    -------
    array (n,) or None
        Wavelengths in Angstrom; None where they are APOGEE's own.

    Raises
    ------
    FormatError
        For a scale that is not log10 of Angstrom.
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

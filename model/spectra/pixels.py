"""Pixel masks and inverse variances, from the types of arrays that users and files have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import SpectrumError
from model.spectra.grid import Array

LARGEST_EXACT = 2.0**53
"""Every whole number up to this has its own double: the bits of a larger one may be rounded away."""


def bad_pixels(bitmask: NDArray[Any], bad_bits: int) -> NDArray[np.bool_]:
    """Which pixels have one of the bits `bad_bits` set.

    Parameters
    ----------
    bitmask : array of any shape
        Integers; or booleans, of which True counts as bit 0 (BADPIX); or floating-point numbers, of which every
        finite one is a whole number between 0 and 2**53. One that is not finite says that no flag is known.
    bad_bits : int
        The bits that make a pixel unusable.

    Returns
    -------
    array of bool, of the same shape
        False where no flag is known: there the inverse variance decides.

    Raises
    ------
    SpectrumError
        ``bad_bitmask`` for other types, and for floating-point numbers that are no bit masks.
    """
    kind = bitmask.dtype.kind
    if kind == "f":
        known = np.where(np.isfinite(bitmask), bitmask, 0)
        whole = (known >= 0) & (known <= LARGEST_EXACT) & (known == np.floor(known))
        if not whole.all():
            raise SpectrumError(
                "bad_bitmask",
                f"bitmask has {int((~whole).sum())} values that are not whole numbers from 0 to 2**53: "
                "a bit mask is integers, 0 for a good pixel",
            )
        bitmask = known
    elif kind not in "biu":
        raise SpectrumError("bad_bitmask", f"bitmask has values of type {bitmask.dtype}, not integers")
    # to 64 bits first: numpy does not take 255 for a mask of int8
    return np.asarray((bitmask.astype(np.int64) & bad_bits) != 0)


def ivar_of(error: NDArray[Any]) -> Array:
    """Inverse variances, in double precision, of 1-sigma errors of any shape.

    0, which ignores the pixel, where the error is not finite or not positive.
    """
    exact = error.astype(np.float64)
    usable = np.isfinite(exact) & (exact > 0)
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(np.where(usable, 1 / np.where(usable, exact, 1.0) ** 2, 0.0))

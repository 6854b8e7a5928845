"""Pixel masks and inverse variances, from the types of arrays that users and files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import SpectrumError
from model.spectra.grid import Array, Grid
from model.spectra.pixel_loops import clear_unusable, mask_without_flux

LARGEST_EXACT = 2.0**53
"""Every whole number up to this has its own double: the bits of a larger one may be rounded away."""

MAX_MASKED, MUCH_MASKED = 0.5, 0.25
"""A larger masked fraction of the pixels is an error; from the second fraction on there is a warning."""

USELESS = 10.0
"""A pixel whose error is more than this many times the median error carries no useful information."""

MAX_FLUX, MAX_IVAR = 1e30, 1e80
"""Beyond these, in whatever unit, numbers are a mistake, and their products might overflow."""


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
    """Convert errors to inverse variances, in double precision.

    Parameters
    ----------
    error : array of any shape
        1-sigma errors.

    Returns
    -------
    array of the same shape
        0, which masks the pixel, where the error is not finite or not positive.
    """
    exact = error.astype(np.float64)
    usable = np.isfinite(exact) & (exact > 0)
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(np.where(usable, 1 / np.where(usable, exact, 1.0) ** 2, 0.0))


def mask_unusable(flux: Array, ivar: Array | None, bad: NDArray[np.bool_] | None) -> tuple[Array, Array]:
    """Set flux and ivar of every unusable pixel to 0.

    Parameters
    ----------
    flux : array (n,)
        A flux of exactly 0 is unusable: no star's is, and files have it where there is no flux.
    ivar : array (n,) or None
        Inverse variance; None counts as 1.
    bad : array of bool (n,) or None
        Pixels to mask.

    Returns
    -------
    flux : array (n,)
        Flux, 0 in masked pixels.
    ivar : array (n,)
        Inverse variance, 0 in masked pixels.

    Raises
    ------
    SpectrumError
        For a negative ivar, a flux that is neither finite nor masked, and numbers beyond the limits.
    """
    # copies of one type and layout, which compiled code changes
    flux = np.array(flux, dtype=np.float64)
    ivar = np.ones_like(flux) if ivar is None else np.array(ivar, dtype=np.float64)
    masked = np.zeros(0, dtype=np.bool_) if bad is None else np.array(bad, dtype=np.bool_)
    smallest, largest = mask_without_flux(flux, ivar)
    if smallest < 0:
        raise SpectrumError("negative_ivar", "ivar must not be negative")
    least = _least(ivar[ivar > 0]) if smallest < largest / USELESS**2 else 0.0
    unknown, first, beyond = clear_unusable(flux, ivar, masked, least, (MAX_FLUX, MAX_IVAR))
    if unknown:
        raise SpectrumError(
            "flux_not_finite",
            f"{unknown} pixels have no finite flux and are not masked (first: pixel {first}). "
            "Give them ivar 0 or a bad bit in bitmask.",
        )
    if beyond:
        raise SpectrumError("too_large", f"a flux is beyond {MAX_FLUX:g}, or an ivar beyond {MAX_IVAR:g}")
    return flux, ivar


def _least(ivar: Array) -> float:
    """The least useful inverse variance, from those (n,) of a spectrum's pixels.

    By the median pixel; or, where most pixels carry next to no information, by the pixel at which half of all
    information is collected, from the best pixel on.
    """
    middle = median(ivar)
    if ivar.max() <= 10 * middle:
        return middle / USELESS**2  # half of the information is collected at no more than the greatest
    best = np.sort(ivar)[::-1]
    half = best[np.searchsorted(np.cumsum(best), 0.5 * best.sum())]
    return float(max(middle / USELESS**2, half / (10 * USELESS**2)))


def median(values: Array) -> float:
    """The median of `values` (n,), none of them NaN.

    By one partition: numpy takes four times as long for two at once, or to sort.
    """
    middle = len(values) // 2
    parted = np.partition(values, middle)
    upper = float(parted[middle])
    return upper if len(values) % 2 else 0.5 * (upper + float(parted[:middle].max()))


def mask_warnings(grid: Grid, stages: Mapping[str, Array]) -> list[str]:
    """Warn of masked pixels.

    Parameters
    ----------
    grid : Grid
        The model's grid of P pixels.
    stages : mapping of str to array (P,)
        The ivar after each step of the preparation, by the reason for what the step masks.

    Returns
    -------
    list of str
        Warnings.

    Raises
    ------
    SpectrumError
        When more than `MAX_MASKED` of the pixels are masked after the last step.
    """
    masked = list(stages.values())[-1] == 0
    count = np.count_nonzero(masked)
    if count < min(MUCH_MASKED * len(grid), *(part.stop - part.start for part in grid.detectors)):
        return []
    warnings = []
    for number, detector in enumerate(grid.detectors, 1):
        if masked[detector].all():
            first, last = grid.wavelength[detector][[0, -1]]
            reason = next(name for name, ivar in stages.items() if not ivar[detector].any())
            warnings.append(
                f"detector {number} of {len(grid.detectors)}, {first:.0f} to {last:.0f} Angstrom, "
                f"is masked whole: {reason}"
            )
    fraction = count / len(grid)
    if fraction > MAX_MASKED:
        raise SpectrumError(
            "too_many_masked",
            f"{fraction:.1%} of the model's pixels are masked or not covered; at most {MAX_MASKED:.0%} may be"
            + "".join(f"; {warning}" for warning in warnings),
        )
    if fraction >= MUCH_MASKED:
        warnings.append(
            f"{fraction:.1%} of the model's pixels are masked or not covered: the latent is of the rest alone"
        )
    return warnings

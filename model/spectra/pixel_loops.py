"""Loops over the pixels of one spectrum, compiled: each reads the pixels once and runs without the lock.

Arrays that are written to are contiguous and of double precision; a function writes to no other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.compiled import compiled
from model.spectra.grid import Array


@compiled
def mask_without_flux(flux: Array, ivar: Array) -> tuple[float, float]:
    """Set `ivar` (n,) to 0 where it is not finite or there is no flux.

    Parameters
    ----------
    flux : array (n,)
        Flux; a pixel of exactly 0 is unusable.
    ivar : array (n,)
        Inverse variance, changed in place.

    Returns
    -------
    least : float
        The least positive inverse variance, infinite without any; a negative one where there is one.
    largest : float
        The largest.
    """
    least, largest = math.inf, 0.0
    for pixel in range(len(flux)):
        if ivar[pixel] < 0:
            return ivar[pixel], largest
        if not math.isfinite(ivar[pixel]) or flux[pixel] == 0:
            ivar[pixel] = 0.0
        if ivar[pixel] > 0:
            least, largest = min(least, ivar[pixel]), max(largest, ivar[pixel])
    return least, largest


@compiled
def clear_unusable(
    flux: Array, ivar: Array, bad: NDArray[np.bool_], least: float, largest: tuple[float, float]
) -> tuple[int, int, bool]:
    """Set flux and ivar (n,) to 0 in pixels that are bad or of less ivar than `least`.

    Parameters
    ----------
    flux, ivar : array (n,)
        Flux and inverse variance, changed in place.
    bad : array of bool (n,) or (0,)
        Pixels to mask; empty for none.
    least : float
        The least useful inverse variance.
    largest : (float, float)
        Largest absolute flux and largest inverse variance that are possible.

    Returns
    -------
    unknown : int
        How many pixels are used and have no finite flux.
    first : int
        The first of them.
    beyond : bool
        Whether a flux or an inverse variance is beyond `largest`.
    """
    unknown, first, beyond = 0, -1, False
    for pixel in range(len(flux)):
        if ivar[pixel] < least or (len(bad) > 0 and bad[pixel]):
            ivar[pixel] = 0.0
        if ivar[pixel] == 0:
            flux[pixel] = 0.0
        elif not math.isfinite(flux[pixel]):
            unknown += 1
            if first < 0:
                first = pixel
        elif abs(flux[pixel]) > largest[0] or ivar[pixel] > largest[1]:
            beyond = True
    return unknown, first, beyond


@compiled
def divide_by_continuum(
    flux: Array, ivar: Array, basis: Array, pixels: NDArray[np.int64], limits: Array, enough: int
) -> bool:
    """Fit the continuum of one detector, and divide by it.

    Parameters
    ----------
    flux, ivar : array (n,)
        Flux and inverse variance, changed in place where the fit succeeds.
    basis : array (T, n)
        The polynomials.
    pixels : array of int (c,)
        The continuum pixels.
    limits : array (r,)
        Of each fit the largest relative distance of a pixel from the last continuum.
    enough : int
        The least number of pixels to fit to.

    Returns
    -------
    bool
        Whether a continuum was found.
    """
    terms = len(basis)
    design, ratio = np.empty((terms, len(pixels))), np.empty(len(pixels))
    count = 0
    for pixel in pixels:
        if ivar[pixel] > 0:
            ratio[count] = flux[pixel]
            for term in range(terms):
                design[term, count] = basis[term, pixel]
            count += 1
    if count == 0:
        return False
    scale = np.median(ratio[:count])
    if not scale > 0:
        return False
    ratio /= scale
    continuum, polynomial = np.full(len(flux), scale), np.empty(len(flux))
    normal, coefficients = np.empty((terms, terms)), np.empty(terms)
    for limit in limits:
        used = 0
        for number in range(count):
            if abs(ratio[number] - 1) < limit:
                ratio[used] = ratio[number]
                for term in range(terms):
                    design[term, used] = design[term, number]
                used += 1
        count = used
        if count < enough or not _least_squares(ratio[:count], design, normal, coefficients):
            return False
        _evaluate(design, coefficients, polynomial[:count])
        for number in range(count):
            ratio[number] /= polynomial[number]
        _evaluate(basis, coefficients, polynomial)
        low = 0
        for pixel in range(len(flux)):
            continuum[pixel] *= polynomial[pixel]
            low += not continuum[pixel] > 0.1 * scale
        if low:
            return False
    for pixel in range(len(flux)):
        flux[pixel] /= continuum[pixel]
        ivar[pixel] *= continuum[pixel] * continuum[pixel]
    return True


@compiled
def _evaluate(basis: Array, coefficients: Array, polynomial: Array) -> None:
    """Write the sum of `basis` (T, n) times `coefficients` (T,) into `polynomial`, its first pixels."""
    polynomial[:] = 0.0
    for term in range(len(coefficients)):
        row, factor = basis[term], coefficients[term]
        for pixel in range(len(polynomial)):
            polynomial[pixel] += factor * row[pixel]


@compiled
def _least_squares(ratio: Array, design: Array, normal: Array, solution: Array) -> bool:
    """Fit `ratio` (c,) by the first c of `design` (T, n), by Cholesky; False where that is singular.

    `normal` (T, T) is overwritten, and the coefficients are written into `solution` (T,).
    """
    terms = len(solution)
    for one in range(terms):
        own = design[one]
        total = 0.0
        for pixel in range(len(ratio)):
            total += own[pixel] * ratio[pixel]
        solution[one] = total
        for other in range(one + 1):
            row = design[other]
            total = 0.0
            for pixel in range(len(ratio)):
                total += own[pixel] * row[pixel]
            normal[one, other] = total
    for one in range(terms):
        for other in range(one + 1):
            rest = normal[one, other]
            for index in range(other):
                rest -= normal[one, index] * normal[other, index]
            if one == other and rest <= 0:
                return False
            normal[one, other] = math.sqrt(rest) if one == other else rest / normal[other, other]
        for index in range(one):
            solution[one] -= normal[one, index] * solution[index]
        solution[one] /= normal[one, one]
    for one in range(terms - 1, -1, -1):
        solution[one] /= normal[one, one]
        for index in range(one):
            solution[index] -= solution[one] * normal[one, index]
    return True


@compiled
def mask_unphysical(flux: Array, ivar: Array, brightest: float, has_errors: bool) -> int:
    """Set flux and ivar (P,) to 0 where normalised flux is unphysical, and flux where the pixel is masked.

    Parameters
    ----------
    flux, ivar : array (P,)
        Normalised flux and its inverse variance, changed in place.
    brightest : float
        More than this and 5 standard deviations is unphysical, and so are 5 below 0.
    has_errors : bool
        Whether ivar tells the errors; without, the flux is taken as exact.

    Returns
    -------
    int
        How many pixels are unphysical.
    """
    count = 0
    for pixel in range(len(flux)):
        if ivar[pixel] > 0:
            beyond = max(flux[pixel] - brightest, -flux[pixel])
            if beyond > 0 and (not has_errors or beyond * beyond * ivar[pixel] > 25):
                ivar[pixel] = 0.0
                count += 1
        if not ivar[pixel] > 0:
            flux[pixel] = 0.0
    return count


@compiled
def squared_residuals(
    flux: Array, ivar: Array, model: Array, floor: float, has_errors: bool
) -> tuple[int, float, float, float]:
    """Sums over the good pixels of a spectrum's squared residuals from a model.

    Parameters
    ----------
    flux, ivar : array (P,)
        A spectrum; pixels of ivar 0 do not count.
    model : array (P,)
        What the model expects.
    floor : float
        The model's own variance.
    has_errors : bool
        Whether ivar tells the errors; without, the flux is taken as exact.

    Returns
    -------
    good : int
        How many pixels count.
    square, weighted, scaled : float
        Sum of squares; times ivar; and over the variance with `floor`, 0 where that is 0.
    """
    good, square, weighted, scaled = 0, 0.0, 0.0, 0.0
    for pixel in range(len(flux)):
        if ivar[pixel] > 0:
            own = (flux[pixel] - model[pixel]) ** 2
            variance = floor + (1 / ivar[pixel] if has_errors else 0.0)
            good += 1
            square += own
            weighted += own * ivar[pixel]
            if variance > 0:
                scaled += own / variance
    return good, square, weighted, scaled

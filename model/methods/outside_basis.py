"""The part of spectra outside a basis, compiled: masked pixels are filled from the good ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.compiled import compiled
from model.spectra.grid import Array

FILLS = 3
"""Times that masked pixels are filled from the good ones before a spectrum is compared with the basis."""


@compiled
def squares_outside(
    projected: Array, squares: Array, by_pixel: NDArray[np.float32], good: NDArray[np.bool_]
) -> Array:
    """Sums of the squares of residuals that orthonormal components do not explain.

    Parameters
    ----------
    projected : array (N, K)
        Projections of the residuals, 0 in masked pixels, onto the components.
    squares : array (N,)
        Sums of the residuals' squares.
    by_pixel : array of float32 (P, K)
        The components.
    good : array of bool (N, P)
        Which pixels are not masked.

    Returns
    -------
    array (N,)
        Sums of the squares of the rest, in good pixels.
    """
    stars, size = projected.shape
    rest = squares.copy()
    filled, own = np.empty(size), np.empty(size)
    for star in range(stars):
        for index in range(size):
            filled[index] = projected[star, index]
        for fill in range(FILLS):
            for index in range(size):
                own[index] = projected[star, index]
            in_masked = 0.0
            for pixel in range(good.shape[1]):
                if not good[star, pixel]:
                    value = 0.0
                    for index in range(size):
                        value += by_pixel[pixel, index] * filled[index]
                    in_masked += value * value
                    for index in range(size):
                        own[index] += value * by_pixel[pixel, index]
            if fill < FILLS - 1:
                filled[:] = own
            else:
                rest[star] -= in_masked
        for index in range(size):
            rest[star] += filled[index] * (filled[index] - 2 * projected[star, index])
    return rest

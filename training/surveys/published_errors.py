"""APOGEE's published errors of abundances (DR12), and a survey's abundances as APOGEE would measure them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DR12 = {
    "fe_h": (-3.357, 0.098, -0.303, -0.071),
    "C": (-3.350, 0.769, -0.919, -0.066),
    "N": (-2.704, 0.291, -0.591, -0.078),
    "O": (-3.649, 0.670, -0.614, -0.093),
    "Na": (-2.352, -0.002, -0.915, -0.263),
    "Mg": (-3.537, 0.263, -0.825, -0.297),
    "Al": (-2.764, 0.471, -0.868, -0.162),
    "Si": (-3.150, 0.383, -0.224, -0.105),
    "S": (-3.037, 0.507, -0.625, -0.299),
    "K": (-2.770, 0.216, -0.667, -0.275),
    "Ca": (-3.226, 0.284, -0.879, -0.429),
    "Ti": (-3.186, 0.657, -0.819, -0.068),
    "Mn": (-3.031, 0.639, -0.661, -0.326),
    "Ni": (-3.153, 0.135, -0.493, -0.185),
}
"""A, B, C, D of ln sigma = A + B (Teff - 4500 K) / 1000 K + C [M/H] + D (S/N - 100) / 100, sigma in dex.

Holtzman et al. (2015, AJ 150, 148) and sdss.org/dr12/irspec/abundances, from the scatter within star
clusters. They are of [X/H] and are used here for [X/Fe]. V, with an error of 0.20 dex, is not used.
"""

PUBLISHED = tuple(DR12)

HIGHEST_SNR = 200.0
"""S/N above which APOGEE's errors no longer fall."""


def published_errors(teff: Array, fe_h: Array, snr: float) -> Array:
    """Errors (N, 14) in dex, ordered as PUBLISHED, of stars of `teff` (N,) K and `fe_h` (N,) at one `snr`."""
    a, b, c, d = np.array(list(DR12.values())).T
    noise = (min(snr, HIGHEST_SNR) - 100.0) / 100.0
    errors: Array = np.exp(a + np.outer((teff - 4500.0) / 1000.0, b) + np.outer(fe_h, c) + d * noise)
    return errors


def measured_abundances(
    parameters: Array, abundances: Array, names: Sequence[str], snr: float, generator: np.random.Generator
) -> tuple[Array, Array]:
    """What APOGEE would measure at `snr`, and its errors, both (N, 14) in dex, ordered as PUBLISHED.

    The truth is a survey's `parameters` (N, 3), teff, logg and fe_h, and its [X/Fe] `abundances` (N, E) of the
    elements `names`; errors are independent and Gaussian. Dividing by the errors' mean over the stars, which
    are alike, gives the space where distance counts errors.
    """
    truth = np.column_stack([parameters[:, 2], abundances[:, [names.index(name) for name in PUBLISHED[1:]]]])
    errors = published_errors(parameters[:, 0], parameters[:, 2], snr)
    return truth + errors * generator.standard_normal(truth.shape), errors

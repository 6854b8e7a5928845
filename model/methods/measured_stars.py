"""Stars as the response of GaussDis is fitted to them."""

from __future__ import annotations

from typing import NamedTuple

from model.spectra.grid import Array


class Measured(NamedTuple):
    """Spectral coefficients of N stars, as a response is fitted to them.

    Attributes
    ----------
    coefficients : array (N, K)
        Residuals from the polynomial, in the basis.
    covariances : array (N, K, K)
        Of noise and continuum, for exact parameters.
    parameters, errors : array (N, U)
        The stars' parameters, no farther out than the polynomials are trusted, and their errors.
    unexplained : array (N,)
        Residual variance per pixel outside the basis, beyond noise.
    """

    coefficients: Array
    covariances: Array
    parameters: Array
    errors: Array
    unexplained: Array

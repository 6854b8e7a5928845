"""Pseudo-continuum normalisation, the same for synthetic and observed spectra.

Method `continuum_pixels`: in each detector a Chebyshev polynomial is fitted by unweighted least squares to
a fixed set of pixels that stay close to the continuum over the whole training survey (the idea of
The Cannon, Ness et al. 2015, ApJ 808, 16, section 2.3), and divides the flux. The fit is repeated on
the divided spectrum, so that an observed spectrum with a slope and a flat synthetic one end up alike. Left
out as cosmic rays or sky are pixels above three times the detector's median and then, from the second fit
on, those more than 30 % off the last one. Being linear in the flux on fixed pixels, the continuum does not
drift with the noise, as a percentile or a sigma-clipped fit does. No weights enter but 0 and 1, so it does
not depend on how errors were assigned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from model.errors import SpectrumError
from model.spectra.grid import Array, Grid
from model.spectra.pixel_loops import divide_by_continuum

METHOD = "continuum_pixels"
ROUNDS = 3
OUTLIER, GROSS = 0.3, 2.0
LIMITS = np.array([GROSS, *(OUTLIER,) * (ROUNDS - 1)])
"""How far a continuum pixel may be from the last continuum in each round, relative to it."""


@dataclass(frozen=True)
class Normaliser:
    """The pseudo-continuum of a grid: one polynomial for each detector, through fixed pixels.

    Attributes
    ----------
    grid : Grid
        The model's grid of P pixels.
    pixels : array of int (C,)
        Indices of the continuum pixels.
    degree : int
        Degree of the Chebyshev polynomials in ln(wavelength).
    """

    grid: Grid
    pixels: NDArray[np.int64]
    degree: int = 4

    @classmethod
    def from_survey(
        cls, grid: Grid, mean: Array, sd: Array, degree: int = 4, segments: int = 20, fraction: float = 0.15
    ) -> Normaliser:
        """Choose the continuum pixels from a survey.

        Parameters
        ----------
        grid : Grid
            The survey's grid.
        mean, sd : array (P,)
            Mean and standard deviation of the survey's flux.
        degree : int
            Degree of the polynomials.
        segments : int
            Equal parts into which each detector is cut, so that every part of it constrains the fit.
        fraction : float
            The fraction of each part's pixels to take: those with the smallest (1 - mean) + sd.

        Returns
        -------
        Normaliser
            The normaliser.
        """
        score = (1 - mean) + sd
        chosen = [
            part[np.argsort(score[part], kind="stable")[: max(1, round(fraction * len(part)))]]
            for detector in grid.detectors
            for part in np.array_split(np.arange(detector.start, detector.stop), segments)
        ]
        return cls(grid, np.sort(np.concatenate(chosen)).astype(np.int64), degree)

    def describe(self) -> str:
        """One line for a spectrum's history."""
        return f"normalised by {METHOD} (Chebyshev degree {self.degree}, {len(self.pixels)} pixels)"

    def header(self) -> dict[str, Any]:
        """Method, degree and number of pixels, for the model card."""
        return {"method": METHOD, "degree": self.degree, "pixels": len(self.pixels)}

    @cached_property
    def _designs(self) -> list[tuple[slice, Array, NDArray[np.int64]]]:
        """For each detector: its pixels, the Chebyshev basis (n, degree + 1) there, its continuum pixels."""
        designs = []
        for detector in self.grid.detectors:
            log_wavelength = np.log(self.grid.wavelength[detector])
            x = 2 * (log_wavelength - log_wavelength[0]) / (log_wavelength[-1] - log_wavelength[0]) - 1
            inside = self.pixels[(self.pixels >= detector.start) & (self.pixels < detector.stop)]
            basis = np.asfortranarray(chebyshev.chebvander(x, self.degree), dtype=np.float64)
            designs.append((detector, basis, (inside - detector.start).astype(np.int64)))
        return designs

    def __call__(self, flux: Array, ivar: Array) -> tuple[Array, Array]:
        """Normalise one spectrum.

        Parameters
        ----------
        flux, ivar : array (P,)
            Flux and inverse variance; pixels of ivar 0 do not count.

        Returns
        -------
        flux : array (P,)
            Flux in units of the continuum.
        ivar : array (P,)
            Its inverse variance, 0 in detectors that could not be normalised.

        Raises
        ------
        SpectrumError
            When no detector can be normalised.

        Notes
        -----
        A detector is masked whole that has less than a quarter of its continuum pixels, no light, or a fitted
        continuum that falls below a tenth of its median. Continuum pixels far off the continuum (`GROSS`,
        `OUTLIER`) do not count.
        """
        flux, ivar = np.array(flux, dtype=np.float64), np.array(ivar, dtype=np.float64)
        for detector, basis, pixels in self._designs:
            enough = max(3 * basis.shape[1], len(pixels) // 4)
            if not divide_by_continuum(flux[detector], ivar[detector], basis.T, pixels, LIMITS, enough):
                ivar[detector] = 0.0
        if not np.any(ivar > 0):
            raise SpectrumError("no_continuum", "no continuum could be fitted: too few good pixels, or no flux")
        return flux, ivar

    def complete(self, flux: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Normalise complete spectra, all at once.

        Parameters
        ----------
        flux : array (N, P)
            Flux without bad pixels.

        Returns
        -------
        flux : array (N, P)
            Normalised flux.
        same : array of bool (N,)
            Whether a call would give the same: no continuum pixel of the spectrum has to be excluded.

        Notes
        -----
        Bounds stand for what a call compares: the least and the largest continuum pixel for their median, the
        coefficients for the least continuum.
        """
        result, same = np.empty_like(flux), np.ones(len(flux), dtype=bool)
        for (detector, basis, pixels), (solve, nodes, through) in zip(
            self._designs, self._products, strict=True
        ):
            if len(pixels) < 3 * basis.shape[1]:
                same[:] = False
                continue
            design = basis[pixels]
            ratio = flux[:, detector.start + pixels]
            least, largest = ratio.min(axis=1), ratio.max(axis=1)
            same &= (least > 0) & (largest < (1 + GROSS) * least)
            at_nodes, low = np.ones((1, 1)), np.ones(1)
            for again in range(ROUNDS):
                if again:
                    same &= (np.abs(ratio - 1) < OUTLIER).all(axis=1)
                coefficients = ratio @ solve
                low = low * (coefficients[:, 0] - np.abs(coefficients[:, 1:]).sum(axis=1))
                same &= low > 0.1 * largest
                at_nodes = at_nodes * (coefficients @ nodes.T)
                ratio = ratio / (coefficients @ design.T)
            np.divide(flux[:, detector], at_nodes @ through, out=result[:, detector])
        return result, same

    @cached_property
    def _products(self) -> list[tuple[Array, Array, Array]]:
        """For each detector, a product of `ROUNDS` polynomials from its values at as many nodes as it needs.

        The matrix (c, degree + 1) from c continuum pixels to coefficients, the Chebyshev basis (m, degree + 1)
        at the nodes, and the matrix (m, n) from values there to the pixels.
        """
        highest = ROUNDS * self.degree
        nodes = chebyshev.chebpts1(highest + 1)
        at_nodes = np.asarray(chebyshev.chebvander(nodes, highest), dtype=np.float64)
        return [
            (
                np.asarray(np.linalg.pinv(basis[pixels]).T, np.float64),
                at_nodes[:, : self.degree + 1],
                np.asarray(
                    np.linalg.solve(at_nodes.T, chebyshev.chebvander(basis[:, 1], highest).T), np.float64
                ),
            )
            for _, basis, pixels in self._designs
        ]

    def seen_through(self, components: Array, flux: Array) -> Array:
        """What projections onto components (K, P) are projections of (K, P), before normalising.

        For small noise added to a normalised `flux` (P,): a round of normalising is linear in it, and takes off
        the flux times the polynomial through the noise in the continuum pixels.
        """
        seen = components.copy()
        for (detector, basis, pixels), (solve, _, _) in zip(self._designs, self._products, strict=True):
            part = seen[:, detector]
            for _ in range(ROUNDS):
                part[:, pixels] -= (part * flux[detector]) @ basis @ solve.T
        return seen

    def templates(self, flux: Array) -> list[tuple[slice, Array]]:
        """What a small error of the continuum changes in a normalised `flux` (P,).

        For each detector its pixels, and rows (degree + 1, n): the polynomials times the flux.
        """
        return [(detector, basis.T * flux[detector]) for detector, basis, _ in self._designs]

    def batch(self, flux: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise complete spectra without bad pixels, such as synthetic ones, in single precision.

        Parameters
        ----------
        flux : array of float32 (N, P)
            Flux over another continuum.

        Returns
        -------
        array of float32 (N, P)
            Normalised flux.
        """
        result = np.empty_like(flux)
        for detector, basis, pixels in self._designs:
            solve = np.linalg.pinv(basis[pixels])
            part = flux[:, detector].astype(np.float64)
            for _ in range(ROUNDS):
                part /= part[:, pixels] @ solve.T @ basis.T
            result[:, detector] = part
        return result

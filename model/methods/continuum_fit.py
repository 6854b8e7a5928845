"""The continuum, fitted again together with the spectral coefficients.

A normaliser draws its polynomials through a seventh of the pixels, and their noise is an error of the whole
spectrum. All pixels together know the continuum better. So its polynomials, times the flux, are fitted along
with the components, and coefficients are free of any error that is one of these. A weak prior (`CONTINUUM_SD`)
keeps the fit regular where a detector has no pixels. What that gives: research/giant-branch.md.
"""

from __future__ import annotations

import numpy as np

from model.methods.basis import Basis
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array

CONTINUUM_SD = 0.1
"""Standard deviation of an error of the normaliser's polynomial, relative to the continuum."""

BATCH = 16
"""Stars at a time, so few that their arrays stay in the processor's cache."""


class ContinuumFit:
    """The polynomials of a normaliser's R coefficients, fitted along with the K components of a basis.

    Attributes
    ----------
    templates : array (R, P)
        What each coefficient changes, at the middle of the basis's ranges: orthonormal, of one detector each.
    components : array (K, P)
        Least squares: the products of a complete residual spectrum with them are its coefficients.
    excess : array (K, K)
        What the fit adds to the coefficients' covariance for white noise of unit variance.
    """

    def __init__(self, normaliser: Normaliser, basis: Basis) -> None:
        self._basis = basis
        pixels = basis.components.shape[1]
        flux = basis.expected(basis.ranges.mean(axis=1)[None])[0]
        self._detectors, rows = [], []
        for detector, polynomials in normaliser.templates(flux):
            frame, size = np.linalg.qr(polynomials.T)
            prior = size @ size.T * CONTINUUM_SD**2  # of the coefficients of the orthonormal templates
            single = np.ascontiguousarray(frame.T, dtype=np.float32)  # enough for covariances, as the basis's
            self._detectors.append((detector, single, np.linalg.inv(prior)))
            whole = np.zeros((frame.shape[1], pixels))
            whole[:, detector] = frame.T
            rows.append(whole)
        self.templates = np.concatenate(rows)
        shared = basis.components @ self.templates.T
        covariance = np.linalg.inv(np.eye(len(shared)) - shared @ shared.T)
        self.excess = covariance - np.eye(len(shared))
        self.components = covariance @ (basis.components - shared @ self.templates)

    def forget(self, information: Array, weighted: Array, residual: Array, ivar: Array) -> None:
        """Take off what was known of the coefficients only because the continuum was.

        Parameters
        ----------
        information : array (N, K, K)
            The Fisher information at a known continuum; changed in place, as `weighted`.
        weighted : array (N, K)
            The information times the least-squares coefficients.
        residual, ivar : array (N, P)
            What they are of, as for `Basis.information`.
        """
        components = self._basis.by_pixel
        for start in range(0, len(ivar), BATCH):
            rows = slice(start, start + BATCH)
            stars = weighted[rows]
            crossed = np.empty((len(stars), len(self.templates), stars.shape[1]))
            solved, at = np.empty_like(crossed), 0
            for detector, templates, prior in self._detectors:
                own = slice(at, at := at + len(templates))
                weights = ivar[rows, detector].astype(np.float32)
                seen = (weights[:, None] * templates).reshape(-1, weights.shape[1])
                crossed[:, own] = (seen @ components[detector]).reshape(crossed[:, own].shape)
                known = (seen @ templates.T).reshape(len(stars), *prior.shape) + prior
                solved[:, own] = np.linalg.solve(known, crossed[:, own])
                pull = (residual[rows, detector] * weights) @ templates.T
                stars -= np.einsum("nrk,nr->nk", solved[:, own], pull)
            information[rows] -= crossed.transpose(0, 2, 1) @ solved

"""PolyDis: the paper's baseline (section 2.2, after Price-Jones & Bovy 2017, 2019).

A polynomial of the parameters u, fitted wavelength by wavelength, takes out what u explains; the residuals'
principal components are the latent. Fitting is in `training.polydis`; this is the inference.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.base import Card, Model
from model.grid import Array, Grid
from model.normalise import Normaliser
from model.spectrum import Spectrum


def exponents(parameters: int, degree: int) -> list[tuple[int, ...]]:
    """Exponents of all monomials of `parameters` variables up to total `degree`, the constant first."""
    return [
        tuple(chosen.count(i) for i in range(parameters))
        for total in range(degree + 1)
        for chosen in combinations_with_replacement(range(parameters), total)
    ]


def design(parameters: Array, ranges: Array, degree: int) -> Array:
    """Monomials (N, T) of parameters (N, U) scaled so that `ranges` (U, 2) becomes -1 to 1."""
    scaled = 2 * (parameters - ranges[:, 0]) / (ranges[:, 1] - ranges[:, 0]) - 1
    columns = [np.prod(scaled**power, axis=1) for power in exponents(parameters.shape[1], degree)]
    return np.stack(columns, axis=1)


class PolyDis(Model):
    """Polynomial of u per wavelength, and the leading components of what it leaves.

    Tensors: `polynomial` (T, P), `components` (D, P) with orthonormal rows, `variances` (D,) of the
    training latents, `discarded` (1,) the mean variance per pixel of what the components leave out, and
    `twins` (D, D), the covariance of noiseless twins' latent differences (empty if the survey had no twins).
    """

    method: ClassVar[str] = "polydis"

    def __init__(
        self,
        card: Card,
        grid: Grid,
        normaliser: Normaliser | None,
        *,
        polynomial: NDArray[Any],
        components: NDArray[Any],
        variances: NDArray[Any],
        discarded: NDArray[Any],
        twins: NDArray[Any],
    ) -> None:
        super().__init__(card, grid, normaliser)
        self.polynomial = polynomial.astype(np.float64)
        self.components = components.astype(np.float64)
        self.variances = variances.astype(np.float64)
        self.discarded = float(discarded.item())
        self.twins = twins.astype(np.float64)
        self.ranges = np.array(list(card.parameters.values()), dtype=np.float64)
        self.degree = next(
            degree for degree in range(20) if len(exponents(len(self.ranges), degree)) == len(polynomial)
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the model file holds beside the card."""
        names = ("polynomial", "components", "variances", "discarded", "twins")
        return {name: np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float32)) for name in names}

    def twin_covariance(self) -> Array | None:
        """Covariance (D, D) of two noiseless twins' latent difference, None where it was never measured."""
        return self.twins if self.twins.size else None

    def expected(self, parameters: Array) -> Array:
        """The polynomial's flux (N, P) at parameters (N, U): a star of the survey's mean chemistry."""
        return design(parameters, self.ranges, self.degree) @ self.polynomial

    def encode(self, flux: Array, parameters: Array, variance: Array | None = None) -> Array:
        """Principal components (N, D) of the residuals, as in the paper.

        Missing pixels are filled with their expectation given the good ones and their noise, under the
        training residuals' Gaussian (probabilistic PCA): a complete spectrum is projected as it is.
        """
        residual = flux - self.expected(parameters)
        if variance is None:
            return np.asarray(residual @ self.components.T)
        good = np.isfinite(variance)
        projected = np.where(good, residual, 0.0) @ self.components.T
        for row, mask in enumerate(good):
            if not mask.all():
                projected[row] = self._completion(mask, variance[row])[0] @ projected[row]
        return np.asarray(projected)

    def decode(self, latents: Array, parameters: Array) -> Array:
        """Flux (N, P): the polynomial at the parameters plus the latents' residuals."""
        return np.asarray(self.expected(parameters) + latents @ self.components)

    def transfer(self, flux: Array, parameters: Array, to: Array) -> Array:
        """The paper's own recasting for PolyDis (section 5.4): the whole residual moves to new parameters."""
        return np.asarray(flux - self.expected(parameters) + self.expected(to))

    def covariance(self, spectrum: Spectrum) -> Array:
        """Pixel noise, missing pixels and the parameters' errors, propagated to the latent (D, D)."""
        good = spectrum.ivar > 0
        variance = np.divide(1.0, spectrum.ivar, out=np.zeros(len(good)), where=good).astype(np.float32)
        covariance = ((self._single * variance) @ self._single.T).astype(np.float64)
        complete = np.eye(len(covariance))
        if not good.all():
            complete, missing = self._completion(good, self.variance(spectrum))
            covariance = complete @ covariance @ complete.T + missing
        errors = spectrum.parameters.errors(self.parameter_names)
        if errors.any():
            change = self._slope(spectrum.parameters.values(self.parameter_names)) * errors[:, None]
            slope = complete @ self.components[:, good] @ change[:, good].T
            covariance = covariance + slope @ slope.T
        return np.asarray(covariance)

    def decode_sd(self, covariance: Array) -> Array:
        """Standard deviation (P,) of the decoded flux for a latent of this covariance (D, D)."""
        return np.asarray(np.sqrt(np.sum(self.components * (covariance @ self.components), axis=0)))

    def _completion(self, good: NDArray[np.bool_], variance: Array) -> tuple[Array, Array]:
        """The matrix (D, D) that completes a projection of good pixels, and the covariance (D, D) it leaves.

        With V the components on the good pixels, A = V V^T, L the latents' prior variances, d the variance
        per pixel that the components leave out, s = d plus the mean `variance` (P,) of the good pixels, and
        M = (s / L + A)^-1: the latent is (I + (I - A) M) V r. What the missing pixels leave open is
        (I - A) (s^2 M / L M + d M A M) (I - A) + d (I - A), beside the good pixels' noise.
        """
        hidden = self.components[:, ~good]
        unseen = hidden @ hidden.T
        unit = np.eye(len(unseen))
        prior = np.maximum(self.variances - self.discarded, 1e-3 * self.variances)
        noise = self.discarded + float(variance[good].mean())
        inverse = np.linalg.inv(np.diag(noise / prior) + unit - unseen)
        open_ = noise**2 * (inverse / prior) @ inverse + self.discarded * inverse @ (unit - unseen) @ inverse
        return unit + unseen @ inverse, unseen @ open_ @ unseen + self.discarded * unseen

    @cached_property
    def _single(self) -> NDArray[np.float32]:
        """The components (D, P) in single precision, enough for covariances."""
        return self.components.astype(np.float32)

    def _slope(self, parameters: Array) -> Array:
        """Derivative (U, P) of the residual by the parameters (U,), by differences of 1 % of the ranges."""
        steps = 0.01 * np.diag(self.ranges[:, 1] - self.ranges[:, 0])
        change = self.expected(parameters - steps) - self.expected(parameters + steps)
        return np.asarray(change / (2 * np.diag(steps))[:, None])

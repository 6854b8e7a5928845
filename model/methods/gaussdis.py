"""GaussDis: every latent is a Gaussian posterior, mean and covariance, given the noise of each pixel.

The decoder is a polynomial response (`model.methods.response`) in a spectral basis; the prior of the latent is
the same unit Gaussian at all parameters u, which is what disentangles it. A spectrum is embedded by a fit
weighted with its pixels' ivar: masked pixels carry no information, and noise widens the posterior but does not
move it. Training is in `training.fitting.gaussdis` and `training.fitting.calibrate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from model.methods.base import Card, Embedding, Inferred, Model
from model.methods.basis import Basis, design
from model.methods.continuum_fit import ContinuumFit
from model.methods.errorless_fits import ErrorlessFits
from model.methods.gauss_newton import STEPS
from model.methods.inverses import inverse_root
from model.methods.latent_fit import FittedLatents, LatentFit
from model.methods.measured_stars import Measured
from model.methods.outside_basis import squares_outside
from model.methods.response import Response
from model.methods.scatter import Scatter, factors, scaled_within
from model.similarity.likelihood_ratio import likelihood_ratio
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum

MARGIN = 0.2
"""How far beyond the training range, in units of its width, the polynomials are trusted to extrapolate."""

LEAST_IVAR = 1e-30
"""A smaller inverse variance counts as this: single precision has none."""

NOISELESS_SNR = 1e4
"""Highest S/N that a spectrum is taken to have."""

UNCONVERGED = f"the fit of the latent did not converge in {STEPS} steps: do not trust the latent or its errors"

ERRORLESS_AT_ONCE = 256
"""Spectra without errors that are embedded at once."""

UNUSUAL = 10.0
"""Residual variance of so many times the usual is no more than a survey's own spectra may have."""

FOREIGN = 1e-4
"""A spectrum whose chi-square under the model is rarer than this is outside the model's domain."""


OPTIONAL = (
    "shared",
    "scatter_growth",
    "misfit",
    "misfit_growth",
    "residual_variance",
    "floor_growth",
    "mean_offset",
    "response_offset",
    "observed_components",
)
"""Tensors that a model file has only where they are not 0."""


class GaussDis(Model):
    """A polynomial response with the noise of its residuals.

    Tensors: those of `Basis`; `response_mean`, `response_linear`, `response_products` (`Response`); `scatter`
    (K, K), the covariance of the coefficients about the response, its `scatter_growth` (F,), and `misfit` (K,
    K), that of observed spectra with usual lines, its `misfit_growth` (U,) (`model.methods.scatter`);
    `continuum` (K, K), what the normaliser adds to the coefficients' covariance for white noise of unit
    variance, absent where the continuum is fitted along with them (`model.methods.continuum_fit`); `residue`
    (D, D), the covariance of twins' noiseless latent differences; `metric` (D, D), from the unit-prior latent
    to the one returned; `twins`, empty; `population` (D, D), the lower triangular root of the covariance that
    the latents of searched stars have in the response's frame; `shared` (K, K), the covariance of what the
    response misses of a chemistry, by which twins do not differ; `residual_variance` (3,), the variance per
    pixel outside the basis that a survey's spectra have without noise, which `misfit` allows for, that of noise
    in units of ivar's, and the part of the latter that weighted pixels have; `floor_growth` (U,), by which the
    square of the card's `error_floor` grows; `mean_offset` (P,) and `response_offset` (T, K), what observed
    stars added to the mean spectrum and to `response_mean`; `observed_components` (1,), how many of the last
    components were fitted to observed spectra. `population` and `OPTIONAL` ones may be absent.
    """

    method: ClassVar[str] = "gaussdis"

    def __init__(
        self,
        card: Card,
        grid: Grid,
        normaliser: Normaliser | None,
        *,
        scatter: NDArray[Any],
        scatter_growth: NDArray[Any] | None = None,
        misfit: NDArray[Any] | None = None,
        misfit_growth: NDArray[Any] | None = None,
        residual_variance: NDArray[Any] | None = None,
        mean_offset: NDArray[Any] | None = None,
        response_offset: NDArray[Any] | None = None,
        floor_growth: NDArray[Any] | None = None,
        observed_components: NDArray[Any] | None = None,
        population: NDArray[Any] | None = None,
        continuum: NDArray[Any] | None = None,
        residue: NDArray[Any],
        metric: NDArray[Any],
        twins: NDArray[Any],
        shared: NDArray[Any] | None = None,
        response_mean: NDArray[Any],
        response_linear: NDArray[Any],
        response_products: NDArray[Any],
        **basis: NDArray[Any],
    ) -> None:
        super().__init__(card, grid, normaliser, twins)
        self.basis = Basis(self.ranges, **basis)
        self.response = Response(self.ranges, response_mean, response_linear, response_products)
        self.scatter, self.residue, self.metric = (
            values.astype(np.float64) for values in (scatter, residue, metric)
        )
        self.continuum_fit: ContinuumFit | None = None
        if continuum is not None:
            self.continuum = continuum.astype(np.float64)
        elif normaliser is None:
            self.continuum = np.zeros_like(self.scatter)
        else:
            self.continuum_fit = ContinuumFit(normaliser, self.basis)
            self.continuum = self.continuum_fit.excess
        self.shared, self.misfit = (
            np.zeros_like(self.scatter) if values is None else values.astype(np.float64)
            for values in (shared, misfit)
        )
        self.scatter_growth, self.misfit_growth, self.floor_growth, self.residual_variance = (
            np.zeros(0) if values is None else values.astype(np.float64)
            for values in (scatter_growth, misfit_growth, floor_growth, residual_variance)
        )
        mean = np.zeros(len(grid)), np.zeros_like(self.response.mean)
        self.mean_offset, self.response_offset = (
            usual if values is None else values.astype(np.float64)
            for usual, values in zip(mean, (mean_offset, response_offset), strict=True)
        )
        self.observed_components = np.zeros(1) if observed_components is None else observed_components
        unit = np.eye(card.latent_dim)
        self.population = unit if population is None else population.astype(np.float64)
        self.scattered = Scatter(self.basis, self.scatter, self.scatter_growth, self.misfit, self.misfit_growth)
        if not self.metric.shape == self.population.shape == unit.shape or self.response.latents != len(unit):
            raise ValueError(f"tensors of another size than the card's {card.latent_dim} latents")
        if np.triu(self.population, 1).any():
            raise ValueError("population is not lower triangular")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors for the model file."""
        own = ["scatter", "residue", "metric", "twins"]
        if self.continuum_fit is None:
            own.append("continuum")
        if not np.array_equal(self.population, np.eye(len(self.population))):
            own.append("population")
        return {
            **self.basis.arrays(),
            **self.response.arrays(),
            **{name: getattr(self, name).astype(np.float32) for name in own},
            **{name: values.astype(np.float32) for name in OPTIONAL if (values := getattr(self, name)).any()},
        }

    def encode(self, flux: Array, parameters: Array, variance: Array | None = None) -> Array:
        """Posterior means (N, D) of flux (N, P) at parameters (N, U); `variance` as for `posterior`."""
        return self.posterior(flux, parameters, variance)[0]

    def posterior(
        self,
        flux: Array,
        parameters: Array,
        variance: Array | None = None,
        errors: Array | None = None,
    ) -> tuple[Array, Array]:
        """Posteriors of the latents.

        Parameters
        ----------
        flux : array (N, P)
            Normalised flux.
        parameters : array (N, U)
            The stars' parameters.
        variance : array (N, P), optional
            Variance of each pixel, infinite where masked; None for complete, noiseless spectra.
        errors : array (N, U), optional
            The parameters' standard deviations; None for exact ones.

        Returns
        -------
        means : array (N, D)
            Posterior means.
        covariances : array (N, D, D)
            Posterior covariances.
        """
        parameters = self.nearest(parameters)
        if variance is None:
            variance = np.broadcast_to(np.float64(0.0), flux.shape)
        residual = flux - self.basis.expected(parameters)
        coefficients, noise = self._measured(residual, np.maximum(variance, NOISELESS_SNR**-2))
        fitted = self._fit_latents(coefficients, noise, parameters, errors)
        return (
            self._posterior_means(fitted.latents, fitted.information),
            self._posterior_covariances(fitted.information),
        )

    def measure(self, spectra: Sequence[Spectrum]) -> Measured:
        """Measure the spectral coefficients of prepared spectra.

        The residual variance from the best combination of the basis is added to each spectrum's own noise. If
        the model knows what is usual in a survey, that is added; of a spectrum's own only what is unusual.
        """
        parameters = self.nearest(np.stack([s.parameters.values(self.parameter_names) for s in spectra]))
        errors = np.stack([s.parameters.errors(self.parameter_names) for s in spectra])
        residual = np.stack([s.flux for s in spectra])
        residual -= self.basis.expected(parameters)
        good = np.stack([s.ivar > 0 for s in spectra])
        variance = np.zeros_like(residual)
        for own, s in zip(variance, spectra, strict=True):
            if s.has_errors:
                np.divide(1.0, np.maximum(s.ivar, LEAST_IVAR), out=own, where=s.ivar > 0)
        np.copyto(residual, 0.0, where=~good)
        unexplained = self._unexplained(residual, variance, good)
        extra = unexplained.copy()
        if self.residual_variance.any():
            constant, of_noise, counted = self.residual_variance
            noise = np.array([np.median(own[pixels]) for own, pixels in zip(variance, good, strict=True)])
            unusual = np.maximum(unexplained - UNUSUAL * (constant + of_noise * noise), 0.0)
            known = np.array([s.has_errors for s in spectra])
            extra[known] = (counted * noise + unusual)[known]
        variance += extra[:, None]
        np.maximum(variance, NOISELESS_SNR**-2, out=variance)
        np.copyto(variance, np.inf, where=~good)
        coefficients, covariances = self._measured(residual, variance)
        covariances = np.broadcast_to(covariances, (len(residual), *self.scatter.shape))
        return Measured(coefficients, covariances, parameters, errors, unexplained)

    def infer(self, spectra: Sequence[Spectrum]) -> list[Inferred]:
        """Posterior mean of each spectrum's latent, and its covariance if the spectrum came with errors."""
        fitted = self.fit(self.measure(spectra))
        means = self._posterior_means(fitted.latents, fitted.information)
        covariances = self._posterior_covariances(fitted.information)
        chi2 = self._chi_squares(fitted)
        return [
            Inferred(
                mean,
                covariance if spectrum.has_errors else None,
                (*(() if sure else (UNCONVERGED,)), *self._foreign(float(found)) * spectrum.has_errors),
                parameters,
            )
            for spectrum, mean, covariance, sure, found, parameters in zip(
                spectra, means, covariances, fitted.converged, chi2, fitted.parameters, strict=True
            )
        ]

    def fit(self, stars: Measured, start: Array | None = None, offset: Array | None = None) -> FittedLatents:
        """The most probable latents of measured stars.

        Parameters
        ----------
        stars : Measured
            N stars.
        start : array (N, D), optional
            As for `LatentFit`.
        offset : array (T, K), optional
            What to add to the mean of the response.

        Returns
        -------
        FittedLatents
            The latents, in the frame where the population is the unit Gaussian.
        """
        fit, coefficients = self._fit_latents, stars.coefficients
        if offset is not None:
            monomials = design(stars.parameters, self.ranges, self.response.degrees[0])
            coefficients = coefficients - monomials[:, : len(offset)] @ offset
            fit = fit.with_offset(offset)
        return fit(coefficients, stars.covariances, stars.parameters, stars.errors, start)

    def _chi_squares(self, fitted: FittedLatents) -> Array:
        """Squares (N,) of residuals and latents, each in units of its errors."""
        residual = fitted.coefficients - self._of_population(fitted.latents, fitted.parameters)
        covariances = fitted.covariances + fitted.by_errors + self.shared
        white = np.matmul(inverse_root(covariances), residual[:, :, None])[:, :, 0]
        return np.asarray(np.square(white).sum(axis=1) + np.square(fitted.latents).sum(axis=1))

    def _foreign(self, chi2: float) -> tuple[str, ...]:
        """A sentence about a spectrum that is none of the model's survey, by the chi-square of its K numbers.

        Under the model the least sum of squares of residuals and latents is a chi-square of K degrees.
        """
        if chdtrc(len(self.scatter), chi2) >= FOREIGN:
            return ()
        return (
            "at these parameters the spectrum is unlike those that the model was made for (chi-square "
            f"{chi2:.0f} of {len(self.scatter)} numbers): check them, and do not compare it with others",
        )

    def embed(self, spectra: Sequence[Spectrum]) -> list[Embedding]:
        """Embed prepared spectra, in order. Those without errors and gaps take a faster path."""
        errorless = [row for row, spectrum in enumerate(spectra) if self._is_errorless(spectrum)]
        found: dict[int, Embedding] = {}
        for start in range(0, len(errorless), ERRORLESS_AT_ONCE):
            rows = errorless[start : start + ERRORLESS_AT_ONCE]
            found.update(zip(rows, self._embed_errorless([spectra[row] for row in rows]), strict=True))
        rest = [row for row in range(len(spectra)) if row not in found]
        if rest:
            found.update(zip(rest, super().embed([spectra[row] for row in rest]), strict=True))
        return [found[row] for row in range(len(spectra))]

    def _is_errorless(self, spectrum: Spectrum) -> bool:
        exact = not spectrum.parameters.errors(self.parameter_names).any()
        plain = exact and not spectrum.has_errors and not spectrum.masked_fraction
        return plain and not self.scattered.differs and self.continuum_fit is None

    def _embed_errorless(self, spectra: Sequence[Spectrum]) -> list[Embedding]:
        """Embed complete spectra without errors: `infer` and `decode` in the coefficients alone."""
        parameters = np.stack([s.parameters.values(self.parameter_names) for s in spectra])
        nearest = self.nearest(parameters)
        measured = self._errorless.measure([s.flux for s in spectra], nearest)
        size, pixels = self.basis.components.shape
        unexplained = measured.squared_residual(measured.coefficients) / max(pixels - size, 1)
        fit = self._errorless.fit(measured, nearest, np.maximum(unexplained, NOISELESS_SNR**-2))
        means = self._posterior_means(fit.latents, fit.information)
        inferred = [
            Inferred(mean, None, () if sure else (UNCONVERGED,))
            for mean, sure in zip(means, fit.converged, strict=True)
        ]
        residual = measured.squared_residual(self.coefficients(means, parameters))
        floor = self.card.error_floor**2
        scaled = residual / floor / max(1, pixels - means.shape[1]) if floor else np.zeros(len(spectra))
        return [
            self._embedding(spectrum, one, None, float(misfit), float(square))
            for spectrum, one, misfit, square in zip(spectra, inferred, scaled, residual / pixels, strict=True)
        ]

    @cached_property
    def _errorless(self) -> ErrorlessFits:
        return ErrorlessFits(self.basis, self._of_population, self.scatter, self.continuum)

    def decode(self, latents: Array, parameters: Array) -> Array:
        """Flux (N, P) of latents (N, D) at parameters (N, U)."""
        return self.basis.rebuild(self.coefficients(latents, parameters), self.nearest(parameters))

    def decode_sd(self, latent: Array, parameters: Array, covariance: Array) -> Array:
        """Standard deviation (P,) of the decoded flux for a latent (D,) of this covariance, to first order."""
        slope = self.response.by_latents(self._in_response(latent[None]), self.nearest(parameters[None]))[0]
        slope = self.population.T @ slope
        sizes, axes = np.linalg.eigh(self.unit_covariance(covariance))
        deviation = (np.sqrt(np.maximum(sizes, 0.0)) * axes).T @ slope
        deviation = (
            deviation.astype(np.float32) @ self.basis.single
        )  # a standard deviation needs no more digits
        return np.asarray(np.sqrt(np.einsum("dp,dp->p", deviation, deviation)), dtype=np.float64)

    def missed_sd(self, latent: Array, parameters: Parameters) -> Array:
        """Of the misfit in the basis, by pixel, and of all that lies outside it, the same for all pixels."""
        values = parameters.values(self.parameter_names)[None]
        covariance = self.scattered(self._in_response(latent[None]), self.nearest(values))
        covariance = covariance.reshape(-1, *covariance.shape[-2:])[0]
        variance = np.einsum("kp,kp->p", self.basis.components, covariance @ self.basis.components)
        return np.asarray(np.sqrt(variance + self.error_floor(parameters) ** 2))

    def coefficients(self, latents: Array, parameters: Array) -> Array:
        """Coefficients (N, K) in the spectral basis of the flux that `decode` gives."""
        return self.response(self._in_response(latents), self.nearest(parameters))

    def covariance(self, spectrum: Spectrum) -> Array:
        """Posterior covariance (D, D), from the spectrum's ivar and its parameters' errors."""
        return np.asarray(self.infer([dataclasses.replace(spectrum, has_errors=True)])[0].covariance)

    def unit(self, latents: Array) -> Array:
        """Latents (N, D) in the frame where the prior is the unit Gaussian."""
        return np.asarray(latents @ self._unmetric)

    def _in_response(self, latents: Array) -> Array:
        """Latents (N, D) in the frame of the response."""
        return self.unit(latents) @ self.population.T

    def error_floor(self, parameters: Parameters) -> float:
        """Rms by which a spectrum may differ from the model's: more where there are more lines."""
        if not self.floor_growth.any():
            return self.card.error_floor
        within = scaled_within(self.ranges, parameters.values(self.parameter_names)[None])
        return self.card.error_floor * float(np.sqrt(factors(within, self.floor_growth)[0]))

    def prior_offset(self, latent: Array) -> float:
        """How many standard deviations of the prior a latent (D,) lies from its mean."""
        return float(np.linalg.norm(self.unit(latent)))

    def unit_covariance(self, covariances: Array) -> Array:
        """Covariances (N, D, D) in the frame of `unit`."""
        return np.asarray(self._unmetric.T @ covariances @ self._unmetric)

    @cached_property
    def _of_population(self) -> Response:
        """The response of latents in the frame where the population is the unit Gaussian."""
        if np.array_equal(self.population, np.eye(len(self.population))):
            return self.response
        return self.response.turned(self.population)

    @cached_property
    def _fit_latents(self) -> LatentFit:
        fit = self.continuum_fit
        components = self.basis.components if fit is None else fit.components
        return LatentFit(
            self._of_population, self.scattered, self.population, self.basis, components, self.nearest
        )

    @cached_property
    def _unmetric(self) -> Array:
        """The inverse (D, D) of the metric."""
        return np.asarray(np.linalg.inv(self.metric))

    @cached_property
    def _prior_precision(self) -> Array:
        """Inverse covariance (D, D) of the prior of latents."""
        return np.asarray(self._unmetric @ self._unmetric.T)

    def pair_covariance(self, first: Array, second: Array) -> Array:
        """Covariance (N, D, D) of the difference of twins' posterior means, from their covariances (N, D, D).

        Posterior means shrink towards the prior's, each by its own noise: with unit prior and posterior
        covariances A and B the difference has covariance A + B - A B - B A. In the frame of latents, where the
        prior has covariance P, that is A + B - A P^-1 B - B P^-1 A.
        """
        mixed = np.matmul(first @ self._prior_precision, second)
        return np.asarray(first + second - mixed - np.swapaxes(mixed, -1, -2))

    def likelihood_ratios(self, latent: Array, covariance: Array, latents: Array, covariances: Array) -> Array:
        """Log ratios (N,) of same against different chemistry of one star, (D,) and (D, D), with N stars."""
        return likelihood_ratio(
            self.unit(latents),
            self.unit_covariance(covariances),
            self.unit(latent[None])[0],
            self.unit_covariance(covariance),
        )

    def nearest(self, parameters: Array) -> Array:
        """Parameters (N, U), those far outside the training range at its `MARGIN`."""
        low, high = self.ranges.T
        nearest = np.clip(parameters, low - MARGIN * (high - low), high + MARGIN * (high - low))
        if self.card.logg_limits:
            teff, logg = (self.parameter_names.index(name) for name in ("teff", "logg"))
            least, greatest = self.logg_range(nearest[:, teff])
            margin = MARGIN * (greatest - least)
            nearest[:, logg] = np.clip(nearest[:, logg], least - margin, greatest + margin)
        return np.asarray(nearest)

    def _unexplained(self, residual: Array, noise: Array, good: NDArray[np.bool_]) -> Array:
        """Mean variance per pixel (N,) of residuals from the polynomial that the basis does not explain.

        Beyond `noise` (N, P). Residuals and noise are 0 where pixels (N, P) are not `good`.
        """
        projected = residual @ self.basis.components.T
        squares = np.einsum("np,np->n", residual, residual) - noise.sum(axis=1)
        squares = squares_outside(projected, squares, self.basis.by_pixel, good)
        freedom = np.maximum(good.sum(axis=1) - len(self.basis.components), 1)
        return np.asarray(np.maximum(squares / freedom, 0.0))

    def _measured(self, residual: Array, variance: Array) -> tuple[Array, Array]:
        """Coefficients (N, K) by weighted least squares; their covariance (N, K, K), or (K, K) for all.

        Of residuals (N, P) from the polynomial with a variance (N, P), infinite where a pixel is masked. The
        scatter about the response is not in it.
        """
        level = float(variance.flat[0])
        fit = self.continuum_fit
        if np.all(variance == level):
            components = self.basis.components if fit is None else fit.components
            return residual @ components.T, level * (np.eye(len(self.scatter)) + self.continuum)
        ivar = 1 / variance
        information, weighted = self.basis.information(residual, ivar)
        if fit is not None:
            fit.forget(information, weighted, residual, ivar)
        root = inverse_root(information)
        measured = np.matmul(root.transpose(0, 2, 1), np.matmul(root, weighted[:, :, None]))[:, :, 0]
        covered = root if fit is not None else (np.eye(len(self.scatter)) + self.continuum) @ root
        return measured, root.transpose(0, 2, 1) @ covered

    def _posterior_means(self, latents: Array, information: Array) -> Array:
        """Posterior means (N, D), from the most probable latents (N, D) and the information (N, D, D) on them.

        Both as `LatentFit` returns them. Half of the residue is added to each twin's noise.
        """
        pulled = np.matmul(information + np.eye(len(self.residue)), latents[:, :, None])
        means = np.linalg.solve(self._residue_term(information) + information, pulled)
        return np.asarray(means[:, :, 0] @ self.metric)

    def _posterior_covariances(self, information: Array) -> Array:
        """Posterior covariances (N, D, D), as `_posterior_means`."""
        residue = self._residue_term(information)
        covariances = np.linalg.solve(residue + information, residue)
        covariances = 0.5 * (covariances + covariances.transpose(0, 2, 1))
        return np.asarray(self.metric.T @ covariances @ self.metric)

    def _residue_term(self, information: Array) -> Array:
        """I + F R / 2 (N, D, D) of information F and residue R, in the frame of the population."""
        root = np.linalg.inv(self.population)
        return np.eye(len(self.residue)) + information @ (0.5 * (root @ self.residue @ root.T))

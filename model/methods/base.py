"""The interface of every method: spectra are embedded, latents recast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.methods.abundance_readout import AbundanceReadout
from model.methods.basis import Basis
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from model.spectra.parameters import PARAMETER_UNITS, Parameters
from model.spectra.pixel_loops import squared_residuals
from model.spectra.spectrum import Spectrum

UNTESTED = 0.3
"""How far (dex) from the siblings that a model was tested on the [Fe/H] of a star may be without a warning."""

EXPLAINED = 4.0
"""A reduced chi-square (with the model's error floor) above this puts a star outside the model's domain."""


EDGE = 1e-3
"""How far beyond the training range, in units of its width, a parameter still counts as inside."""

TYPICAL = "the model's typical errors are used where none were given"
"""How the warning of `Model.with_typical_errors` begins."""


@dataclass(frozen=True)
class Card:
    """A model's description, the JSON header of its file.

    Attributes
    ----------
    name, version : str
        Latents compare only under the same two.
    method : str
        The method's name.
    parameters : dict of str to (float, float)
        The conditioned parameters u and their training ranges.
    latent_dim : int
        Number D of latents.
    metric : str
        The meaning of latent distances, in words.
    error_floor : float
        The rms, in units of the continuum, by which observed giants differ from the training survey's spectra.
    training, quality : dict
        The record of the training, and what was measured.
    units : dict of str to str
        Units of the parameters beyond teff, logg and fe_h.
    typical_errors : dict of str to float
        The median errors of parameters in the model's own survey; empty where none are known.
    logg_limits : tuple of (float, float, float)
        Teff (K), least and greatest log g of the training survey, linear between them; empty for a box.
    """

    name: str
    version: str
    method: str
    parameters: dict[str, tuple[float, float]]
    latent_dim: int
    metric: str
    error_floor: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    typical_errors: dict[str, float] = field(default_factory=dict)
    logg_limits: tuple[tuple[float, float, float], ...] = ()

    @property
    def tested_fe_h(self) -> tuple[float, float] | None:
        """Least and greatest [Fe/H] of the siblings that an adapted model was tested on."""
        least, greatest = self.quality.get("siblings_left_out", {}).get("fe_h", (None, None))
        return None if least is None else (least, greatest)

    @property
    def identity(self) -> str:
        """Name and version in one string: latents compare only under the same one."""
        return f"{self.name}@{self.version}"

    def errors_text(self, errors: Mapping[str, float]) -> str:
        """Errors of parameters in words, with their units."""
        units = PARAMETER_UNITS | self.units
        return ", ".join(
            f"{name}_err = {error:g} {units.get(name, '')}".rstrip() for name, error in errors.items()
        )


@dataclass(frozen=True)
class Embedding:
    """A star's latent.

    Attributes
    ----------
    latent : array of float32 (D,)
        The latent.
    covariance : array of float32 (D, D) or None
        Its covariance; None without errors.
    chi2 : float or None
        Reduced chi-square of the reconstruction; None without errors.
    in_domain : bool
        Whether the model was trained on such stars.
    warnings : tuple of str
        Warnings of the spectrum and of the fit.
    """

    latent: NDArray[np.float32]
    covariance: NDArray[np.float32] | None
    chi2: float | None
    in_domain: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Inferred:
    """What a spectrum says of a star.

    Attributes
    ----------
    latent : array (D,)
        The latent.
    covariance : array (D, D) or None
        Its covariance; None without errors.
    problems : tuple of str
        Problems of the fit.
    parameters : array (U,) or None
        The most probable parameters; None for the known ones.
    """

    latent: Array
    covariance: Array | None
    problems: tuple[str, ...] = ()
    parameters: Array | None = None


class Model(ABC):
    """A method with its grid, its normaliser and its card; subclasses bring the mathematics.

    `twins` is the covariance (D, D) of two noiseless twins' latent difference, empty where never measured;
    `basis` the spectral basis that every method carries; `readout` gives abundances, where it was fitted.
    """

    method: ClassVar[str]
    basis: Basis
    readout: AbundanceReadout | None = None

    def __init__(self, card: Card, grid: Grid, normaliser: Normaliser | None, twins: NDArray[Any]) -> None:
        self.card = card
        self.grid = grid
        self.normaliser = normaliser
        self.twins = twins.astype(np.float64)
        self.ranges = np.array(list(card.parameters.values()), dtype=np.float64)

    @abstractmethod
    def encode(self, flux: Array, parameters: Array, variance: Array | None = None) -> Array:
        """Encode spectra.

        Parameters
        ----------
        flux : array (N, P)
            Normalised flux.
        parameters : array (N, U)
            The stars' parameters.
        variance : array (N, P), optional
            Variance of each pixel, infinite where masked; None for complete, noiseless spectra.

        Returns
        -------
        array (N, D)
            Latents.
        """

    @abstractmethod
    def decode(self, latents: Array, parameters: Array) -> Array:
        """Flux (N, P) of latents (N, D) at parameters (N, U)."""

    def nearest(self, parameters: Array) -> Array:
        """Parameters (N, U) at which `decode` computes the flux: the given ones, or the nearest that it can."""
        return parameters

    def coefficients(self, latents: Array, parameters: Array) -> Array:
        """Coefficients (N, K) in the spectral basis of the flux that `decode` gives."""
        return self.basis.project(self.decode(latents, parameters), parameters)

    @abstractmethod
    def covariance(self, spectrum: Spectrum) -> Array:
        """Covariance (D, D) of a spectrum's latent, from its ivar and its parameters' errors."""

    def decode_sd(self, latent: Array, parameters: Array, covariance: Array) -> Array:
        """Standard deviation of the decoded flux, to first order.

        Parameters
        ----------
        latent : array (D,)
            A latent.
        parameters : array (U,)
            The parameters to decode it at.
        covariance : array (D, D)
            The latent's covariance.

        Returns
        -------
        array (P,)
            Standard deviations.
        """
        steps = np.sqrt(np.diag(covariance)) + 1e-6
        known = np.tile(parameters, (2 * len(latent), 1))
        around = self.decode(latent + np.concatenate([np.diag(steps), -np.diag(steps)]), known)
        slope = (around[: len(latent)] - around[len(latent) :]) / (2 * steps[:, None])
        return np.asarray(np.sqrt(np.maximum(np.sum(slope * (covariance @ slope), axis=0), 0)))

    def missed_sd(self, latent: Array, parameters: Parameters) -> Array:
        """Standard deviation (P,) beyond noise by which observed flux differs from that of a latent (D,)."""
        return np.full(len(self.grid), self.error_floor(parameters))

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors for the model file."""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The parameters u that the method removes from the latent, in order."""
        return tuple(self.card.parameters)

    def example(self) -> Spectrum:
        """The model's own spectrum of latent 0 in the middle of its parameters' ranges, at S/N 100."""
        middle = self.ranges.mean(axis=1)
        flux = self.decode(np.zeros((1, self.card.latent_dim)), middle[None])[0]
        known = dict(zip(self.parameter_names, middle.tolist(), strict=True))
        usual = {"teff": 4500.0, "logg": 2.0, "fe_h": 0.0}
        parameters = Parameters(**{name: known.pop(name, value) for name, value in usual.items()}, extra=known)
        return Spectrum(flux, np.full(len(flux), 1e4), parameters, has_errors=True)

    def with_typical_errors(self, spectrum: Spectrum) -> Spectrum:
        """A spectrum with the card's typical errors where those of its parameters are not known, and a warning.

        Without errors of the flux there is nothing to widen, and the spectrum stays as it is.
        """
        used = {
            name: error
            for name, error in self.card.typical_errors.items()
            if spectrum.has_errors and spectrum.parameters.error(name) is None
        }
        if not used:
            return spectrum
        return replace(
            spectrum,
            parameters=spectrum.parameters.with_errors(used),
            warnings=(*spectrum.warnings, f"{TYPICAL}: {self.card.errors_text(used)}"),
        )

    def in_range(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Whether each star (N,) lies in the training ranges, by its parameters in `columns`."""
        inside = []
        for name in columns.keys() & self.card.parameters:
            low, high = self.card.parameters[name]
            scaled = (columns[name] - low) / (high - low)
            inside.append((scaled >= -EDGE) & (scaled <= 1 + EDGE))
        if self.card.logg_limits and {"teff", "logg"} <= columns.keys():
            low, high = self.logg_range(columns["teff"])
            inside.append((columns["logg"] >= low - EDGE) & (columns["logg"] <= high + EDGE))
        return np.asarray(np.all(inside, axis=0))

    def outside(self, parameters: Parameters) -> list[str]:
        """One sentence for each parameter that lies outside the training range."""
        sentences = [
            f"{name} = {parameters.value(name):.5g} is outside the model's training range "
            f"{low:.4g} to {high:.4g} {(PARAMETER_UNITS | self.card.units).get(name, '')}".rstrip()
            for name, (low, high) in self.card.parameters.items()
            if not -EDGE <= (parameters.value(name) - low) / (high - low) <= 1 + EDGE
        ]
        if self.card.logg_limits and not sentences:
            low, high = self.logg_range(np.array([parameters.teff]))[:, 0]
            if not low - EDGE <= parameters.logg <= high + EDGE:
                sentences.append(
                    f"logg = {parameters.logg:.5g} is outside the model's training range {low:.4g} to "
                    f"{high:.4g} {PARAMETER_UNITS['logg']} at teff = {parameters.teff:.5g} K"
                )
        return sentences

    def tested(self, fe_h: Array) -> NDArray[np.bool_]:
        """Whether [Fe/H] (N,) are near those of the siblings that the model was tested on, if it was."""
        if self.card.tested_fe_h is None:
            return np.ones(len(fe_h), np.bool_)
        least, greatest = self.card.tested_fe_h
        return np.asarray((fe_h >= least - UNTESTED) & (fe_h <= greatest + UNTESTED))

    def _untested(self, parameters: Parameters) -> list[str]:
        """A sentence for a [Fe/H] far from those that the model was tested on."""
        if self.tested(np.array([parameters.fe_h]))[0]:
            return []
        least, greatest = self.card.tested_fe_h or (np.nan, np.nan)
        return [
            f"fe_h = {parameters.fe_h:.2f} is far from {least:.2f} to {greatest:.2f} dex, where the model was "
            "tested on siblings: its errors may be wrong, and many stars the same within noise"
        ]

    def logg_range(self, teff: Array) -> Array:
        """Least and greatest log g, (2, N), of the card's `logg_limits` at Teff (N,) in K."""
        vertices, *sides = np.array(self.card.logg_limits).T
        return np.stack([np.interp(teff, vertices, side) for side in sides])

    def variance(self, spectrum: Spectrum) -> Array:
        """Variance (P,) about the model: noise, where known, and the error floor; infinite where masked."""
        good = spectrum.ivar > 0
        noise = np.divide(1.0, spectrum.ivar, out=np.full(len(good), np.inf), where=good)
        return np.where(good, 0.0 if not spectrum.has_errors else noise, np.inf) + self.card.error_floor**2

    def embed(self, spectra: Sequence[Spectrum]) -> list[Embedding]:
        """Embed prepared spectra, in order."""
        inferred = self.infer(spectra)
        parameters = np.stack(
            [
                s.parameters.values(self.parameter_names) if one.parameters is None else one.parameters
                for s, one in zip(spectra, inferred, strict=True)
            ]
        )
        rebuilt = self.decode(np.stack([one.latent for one in inferred]), parameters)
        return [self._compared(*found) for found in zip(spectra, inferred, rebuilt, strict=True)]

    def infer(self, spectra: Sequence[Spectrum]) -> list[Inferred]:
        """The latent of each spectrum, and its covariance if the spectrum came with errors."""
        flux = np.stack([s.flux for s in spectra])
        variance = np.stack([self.variance(s) for s in spectra])
        parameters = np.stack([s.parameters.values(self.parameter_names) for s in spectra])
        latents = self.encode(flux, parameters, variance)
        return [
            Inferred(latent, self.covariance(spectrum) if spectrum.has_errors else None)
            for spectrum, latent in zip(spectra, latents, strict=True)
        ]

    def pair_covariance(self, first: Array, second: Array) -> Array | None:
        """Covariance of twins' latent difference.

        Parameters
        ----------
        first, second : array (N, D, D), or (1, D, D) of one star with each of N
            Covariances of the two stars' latents.

        Returns
        -------
        array (N, D, D) or None
            Covariances; None where they were never measured.
        """
        return self.twins + first + second if self.twins.size else None

    def error_floor(self, parameters: Parameters) -> float:
        """Rms by which a spectrum at `parameters` may differ from the model's, in units of the continuum."""
        return self.card.error_floor

    def prior_offset(self, latent: Array) -> float | None:
        """How many standard deviations of the prior a latent (D,) lies from its mean.

        None for a method whose latents have no prior.
        """
        return None

    def likelihood_ratios(
        self, latent: Array, covariance: Array, latents: Array, covariances: Array
    ) -> Array | None:
        """Log likelihood ratios of same against different chemistry of one star with N stars.

        Parameters
        ----------
        latent, covariance : array (D,) and (D, D)
            One star.
        latents, covariances : array (N, D) and (N, D, D)
            The N stars.

        Returns
        -------
        array (N,) or None
            Natural logarithms; None for a method whose latents are no posteriors.
        """
        return None

    def _compared(self, spectrum: Spectrum, inferred: Inferred, model_flux: Array) -> Embedding:
        good, square, weighted, scaled = squared_residuals(
            spectrum.flux,
            spectrum.ivar,
            model_flux.astype(np.float64, order="C", copy=False),
            self.error_floor(spectrum.parameters) ** 2,
            spectrum.has_errors,
        )
        freedom = max(1, good - len(inferred.latent))
        chi2 = weighted / freedom if spectrum.has_errors else None
        return self._embedding(spectrum, inferred, chi2, scaled / freedom, square / max(1, good))

    def _embedding(
        self, spectrum: Spectrum, inferred: Inferred, chi2: float | None, scaled: float, square: float
    ) -> Embedding:
        """The embedding of an inferred latent, with the warnings.

        `scaled` is the reduced chi-square with the model's error floor, `square` the mean squared residual.
        """
        outside = self.outside(spectrum.parameters)
        if scaled > EXPLAINED:
            outside.append(
                f"the reconstruction is off by {np.sqrt(square):.3f} rms of the continuum: "
                "more than noise and the model's error floor explain"
            )
        outside += inferred.problems
        untested = [] if outside else self._untested(spectrum.parameters)
        latent, covariance = inferred.latent.astype(np.float32), inferred.covariance
        single = None if covariance is None else covariance.astype(np.float32)
        return Embedding(latent, single, chi2, not outside, (*spectrum.warnings, *outside, *untested))

"""An observation as it was sent, and its preparation as a spectrum on a model's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from model.errors import ChemtwinError, SpectrumError
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from model.spectra.parameters import Parameters
from model.spectra.pixel_loops import mask_unphysical
from model.spectra.pixels import MAX_FLUX, mask_unusable, mask_warnings, median

BAD_BITS = 0b1_0000_1111_1111
"""APOGEE pixel mask bits that make a pixel unusable by default: 0 to 7 and 12, SIG_SKYLINE."""

MEDIAN = 0.5, 1.2
"""Limits of the median flux of a normalised spectrum."""

POSSIBLE_SNR = 1.0, 3000.0
"""Outside of these a warning asks whether errors and inverse variances were mixed up."""

LOW_SNR = 20.0
"""Below this hardly any twin is found: at 20 the limit is 0.066 of them (docs/explanation/limit.md)."""

SPECTRA_AT_ONCE = 32
"""Spectra that are normalised together: they fit in a processor's cache."""

UNPHYSICAL = 1.3
"""Normalised flux above this (and 5 sigma from it) or 5 sigma below 0 is sky or a cosmic ray, not a star."""


@dataclass(frozen=True)
class Observation:
    """A star's spectrum as it was sent, on any grid.

    Attributes
    ----------
    flux : array (n,)
        Flux in any unit.
    parameters : Parameters
        The star's parameters.
    ivar : array (n,) or None
        Inverse variance; None when no errors are known.
    bad : array of bool (n,) or None
        Pixels to mask.
    wavelength : array (n,) or None
        Angstrom, vacuum, rest frame; None for the model's or APOGEE's grid.
    normalized : bool
        Whether the flux was divided by a continuum.

    Raises
    ------
    SpectrumError
        When lengths disagree.
    """

    flux: Array
    parameters: Parameters
    ivar: Array | None = None
    bad: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None
    wavelength: Array | None = None
    normalized: bool = True

    def __post_init__(self) -> None:
        if self.flux.ndim != 1 or not self.flux.size:
            raise SpectrumError("bad_shape", "flux must be one-dimensional, with at least one pixel")
        for name in ("ivar", "bad", "wavelength"):
            array = getattr(self, name)
            if array is not None and array.shape != self.flux.shape:
                raise SpectrumError(
                    "lengths_disagree", f"{name} has {array.size} values but flux has {self.flux.size}"
                )


@dataclass(frozen=True)
class Spectrum:
    """A spectrum on a model's grid, normalised as the model was trained.

    Attributes
    ----------
    flux, ivar : array (P,)
        Normalised flux and its inverse variance, both 0 in masked pixels. Without errors ivar is 1 elsewhere.
    parameters : Parameters
        The star's parameters.
    has_errors : bool
        Whether the observation came with errors.
    history : tuple of str
        What was done to it.
    warnings : tuple of str
        Reasons to doubt it.
    """

    flux: Array
    ivar: Array
    parameters: Parameters
    has_errors: bool
    history: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @cached_property
    def masked_fraction(self) -> float:
        """Fraction of the grid's pixels that carry no information."""
        return float(np.count_nonzero(self.ivar == 0) / len(self.ivar))

    @cached_property
    def snr(self) -> float | None:
        """Median of flux * sqrt(ivar) over good pixels, None without errors."""
        if not self.has_errors:
            return None
        return median((self.flux * np.sqrt(self.ivar))[self.ivar > 0])


def prepare(observation: Observation, grid: Grid, normaliser: Normaliser | None) -> Spectrum:
    """Mask, resample and normalise an observation.

    Parameters
    ----------
    observation : Observation
        The spectrum as it was sent.
    grid : Grid
        The model's grid.
    normaliser : Normaliser or None
        The model's normaliser. A model trained on the true continuum has none, and takes normalised spectra
        only.

    Returns
    -------
    Spectrum
        The spectrum on the grid, with its history and warnings.

    Raises
    ------
    SpectrumError
        When more than half of the grid's pixels are masked in the end, a good pixel is not finite, a spectrum
        said to be normalised is not, or no continuum can be fitted.
    """
    flux, ivar = mask_unusable(observation.flux, observation.ivar, observation.bad)
    flux, ivar, resampling = grid.resample(observation.wavelength, flux, ivar)
    history, stages = [resampling], {"nothing usable was sent": ivar}
    try:
        mask_warnings(grid, stages)
    except SpectrumError as error:
        raise SpectrumError(error.code, f"{error.message}{_weightless(observation)}") from None
    if observation.normalized:
        _check_normalised(flux, ivar)
    elif normaliser is None:
        raise SpectrumError(
            "needs_normalization", "this model has no normaliser: send continuum-normalised flux"
        )
    if normaliser is not None:
        flux, ivar = normaliser(flux, ivar)
        history.append(normaliser.describe())
        stages["no continuum could be fitted there"] = ivar
    ivar = ivar.copy()
    warnings = []
    if strange := mask_unphysical(flux, ivar, UNPHYSICAL, observation.ivar is not None):
        stages["its flux is unphysical"] = ivar
        warnings.append(f"{strange} pixels with unphysical flux were masked")
    warnings += mask_warnings(grid, stages)
    spectrum = Spectrum(
        flux=flux,
        ivar=ivar,
        parameters=observation.parameters,
        has_errors=observation.ivar is not None,
        history=tuple(history),
        warnings=tuple(warnings),
    )
    odd = _odd_snr(spectrum.snr)
    return spectrum if odd is None else replace(spectrum, warnings=(*spectrum.warnings, odd))


def _odd_snr(snr: float | None) -> str | None:
    """A warning of an S/N that is impossible or too low for twins; None for any other."""
    if snr is None or LOW_SNR <= snr <= POSSIBLE_SNR[1]:
        return None
    if POSSIBLE_SNR[0] <= snr < LOW_SNR:
        return f"S/N {snr:.3g} per pixel is below {LOW_SNR:g}: hardly any twin stands out from other stars"
    return f"S/N {snr:.3g} per pixel: is ivar an error, or error an inverse variance?"


def _weightless(observation: Observation) -> str:
    """A hint where most pixels are unusable only because a few have so much more weight."""
    if observation.ivar is None:
        return ""
    given = np.isfinite(observation.ivar) & (observation.ivar > 0)
    _, used = mask_unusable(observation.flux, observation.ivar, None)
    if np.count_nonzero(given & (used > 0)) >= 0.5 * np.count_nonzero(given):
        return ""
    return "; a few pixels have nearly all weight: were errors and inverse variances mixed up?"


def _check_normalised(flux: Array, ivar: Array) -> None:
    """Raise SpectrumError unless the median flux (P,) of good pixels is near 1."""
    good = ivar > 0
    below, above = np.count_nonzero(good & (flux < MEDIAN[0])), np.count_nonzero(good & (flux > MEDIAN[1]))
    if 2 * max(below, above) < np.count_nonzero(good):  # sooner known than the median
        return
    middle = median(flux[good])
    if not MEDIAN[0] <= middle <= MEDIAN[1]:
        raise SpectrumError(
            "not_normalized",
            f"the spectrum is said to be normalised but its median flux is {middle:.4g}, not within "
            f"{MEDIAN[0]} to {MEDIAN[1]}. Divide by the continuum, or send normalized=false (in JSON, not "
            "in npz) and the service fits it.",
        )


def prepare_all(
    observations: Sequence[Observation], grid: Grid, normaliser: Normaliser | None
) -> list[Spectrum | ChemtwinError]:
    """Prepare many observations.

    Parameters
    ----------
    observations : sequence of Observation
        The spectra as they were sent.
    grid : Grid
        The model's grid.
    normaliser : Normaliser or None
        The model's normaliser.

    Returns
    -------
    list of Spectrum or ChemtwinError
        What `prepare` returns or raises for each, in order. Spectra without errors and masks are normalised
        together.
    """
    found: dict[int, Spectrum] = {}
    if normaliser is not None:
        for start in range(0, len(observations), SPECTRA_AT_ONCE):
            part = range(start, min(start + SPECTRA_AT_ONCE, len(observations)))
            found.update(_simple(observations, part, grid, normaliser))
    results: list[Spectrum | ChemtwinError] = []
    for index, observation in enumerate(observations):
        try:
            results.append(found.get(index) or prepare(observation, grid, normaliser))
        except ChemtwinError as error:
            results.append(error)
    return results


def _simple(
    observations: Sequence[Observation], indices: Sequence[int], grid: Grid, normaliser: Normaliser
) -> dict[int, Spectrum]:
    """Spectra, as by `prepare`, of the observations at `indices` that need neither masks nor resampling."""
    own: dict[tuple[int, int], bool] = {}  # spectra of one file share their wavelengths
    bare = []
    for index in indices:
        given = observations[index]
        key = id(given.wavelength), given.flux.size
        if key not in own:
            own[key] = grid.is_own(given.wavelength, given.flux.size)
        if own[key] and given.ivar is None and given.bad is None:
            bare.append(index)
    if not bare:
        return {}
    flux = np.stack([observations[index].flux for index in bare])
    normal = np.abs(flux.sum(axis=1)) <= MAX_FLUX
    low, high = np.count_nonzero(flux < MEDIAN[0], axis=1), np.count_nonzero(flux > MEDIAN[1], axis=1)
    surely = np.maximum(low, high) < len(grid) // 2 - 1
    normalized = np.array([observations[index].normalized for index in bare])
    with np.errstate(all="ignore"):
        flux, same = normaliser.complete(flux)
    usable = normal & same & (surely | ~normalized) & (flux.min(axis=1) > 0) & (flux.max(axis=1) <= UNPHYSICAL)
    ivar = np.ones(len(grid))
    history = ("model grid", normaliser.describe())
    return {
        bare[row]: Spectrum(flux[row], ivar, observations[bare[row]].parameters, False, history)
        for row in np.flatnonzero(usable)
    }

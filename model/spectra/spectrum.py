"""An observation as it was sent, and its preparation as a spectrum on a model's grid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from model.errors import ChemtwinError, ParameterError, SpectrumError
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from model.spectra.pixels import MAX_FLUX, mask_unusable, mask_warnings

PARAMETER_UNITS = {"teff": "K", "logg": "dex (cgs)", "fe_h": "dex"}
POSSIBLE = {"teff": (1000.0, 100_000.0), "logg": (-3.0, 10.0), "fe_h": (-8.0, 3.0)}
"""Outside of these a parameter is a mistake (another unit, a -9999 sentinel), not a star."""

MAX_EXTRA = 1e9
"""Largest absolute value of an extra parameter, in whatever unit."""

EXTRA_NAME = re.compile(r"(?!.*_err\Z)[A-Za-z][A-Za-z0-9_]{0,31}\Z")
RESERVED = {"star_id", "flux", "wavelength", "ivar", "error", "bitmask", "normalized", "ra", "dec", "meta"}
RESERVED |= {"in_domain"}
RESERVED |= {"parameters", "snr", "group", "twin_of", "abundances", "k", "rank", "format", "max_distance"}
RESERVED |= {"teff_min", "teff_max", "logg_min", "logg_max", "fe_h_min", "fe_h_max", "fe_h_within", "snr_min"}
"""Names that already have a meaning in requests and survey files."""

BAD_BITS = 0b1111_1111
"""APOGEE pixel mask bits that make a pixel unusable by default: 0 to 7 (BADPIX ... NOSKY)."""

MEDIAN = 0.5, 1.2
"""Limits of the median flux of a normalised spectrum."""

POSSIBLE_SNR = 1.0, 3000.0
"""Outside of these a warning asks whether errors and inverse variances were mixed up."""

SPECTRA_AT_ONCE = 32
"""Spectra that are normalised together: they fit in a processor's cache."""

UNPHYSICAL = 1.3
"""Normalised flux above this (and 5 sigma from it) or 5 sigma below 0 is sky or a cosmic ray, not a star."""


def may_name_parameter(name: str) -> bool:
    """Whether a parameter of u may have this name: letters, digits and _, at most 32, not one in use."""
    return EXTRA_NAME.match(name) is not None and name not in RESERVED


@dataclass(frozen=True)
class Parameters:
    """Stellar parameters u and their 1-sigma errors.

    Attributes
    ----------
    teff, logg, fe_h : float
        Effective temperature in K, surface gravity in dex (cgs), [Fe/H] in dex.
    teff_err, logg_err, fe_h_err : float
        Their errors; 0 for an exact value.
    extra : mapping of str to float
        The extra parameters of u by name (line broadening, say), in the model's units.
    extra_err : mapping of str to float
        The errors of those that have one.

    Raises
    ------
    ParameterError
        For impossible values.
    """

    teff: float
    logg: float
    fe_h: float
    teff_err: float = 0.0
    logg_err: float = 0.0
    fe_h_err: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)
    extra_err: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        for name, (low, high) in POSSIBLE.items():
            value, error = getattr(self, name), getattr(self, name + "_err")
            if not low <= value <= high:
                problems.append(
                    f"{name} = {value:g} is not between {low:g} and {high:g} {PARAMETER_UNITS[name]}"
                )
            if not 0 <= error <= high - low:
                problems.append(f"{name}_err is not between 0 and {high - low:g} {PARAMETER_UNITS[name]}")
        problems += [
            f"{name[:40]} is not between -{MAX_EXTRA:g} and {MAX_EXTRA:g}"
            for name, value in self.extra.items()
            if not abs(value) <= MAX_EXTRA
        ]
        for name, error in self.extra_err.items():
            if name not in self.extra:
                problems.append(f"{name[:40]} has an error and no value")
            elif not 0 <= error <= MAX_EXTRA:
                problems.append(f"the error of {name[:40]} is not between 0 and {MAX_EXTRA:g}")
        if problems:
            raise ParameterError(
                "bad_parameters", "impossible stellar parameters: " + "; ".join(problems[:10]), problems
            )

    def check(self, names: Sequence[str]) -> None:
        """Raise ParameterError unless `extra` is a model's parameters `names` but teff, logg and fe_h."""
        wanted = [name for name in names if name not in PARAMETER_UNITS]
        if missing := [name for name in wanted if name not in self.extra]:
            raise ParameterError(
                "missing_parameters",
                f"this model is conditioned on {', '.join(missing)} as well: give it among the parameters",
            )
        if unknown := sorted(name[:40] for name in self.extra if name not in wanted):
            raise ParameterError(
                "unknown_parameters",
                f"this model does not know {', '.join(unknown[:10])}: it has {', '.join(names)}",
            )

    def value(self, name: str) -> float:
        """One parameter by its name."""
        return float(getattr(self, name) if name in PARAMETER_UNITS else self.extra[name])

    def values(self, names: Sequence[str]) -> Array:
        """The named parameters as an array (len(names),)."""
        return np.array([self.value(name) for name in names], dtype=np.float64)

    def errors(self, names: Sequence[str]) -> Array:
        """Their 1-sigma errors (len(names),)."""
        return np.array(
            [
                getattr(self, name + "_err") if name in PARAMETER_UNITS else self.extra_err.get(name, 0.0)
                for name in names
            ],
            dtype=np.float64,
        )


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

    @property
    def snr(self) -> float | None:
        """Median of flux * sqrt(ivar) over good pixels, None without errors."""
        if not self.has_errors:
            return None
        good = self.ivar > 0
        return float(np.median(self.flux[good] * np.sqrt(self.ivar[good])))


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
    mask_warnings(grid, stages)
    if observation.normalized:
        median = float(np.median(flux[ivar > 0]))
        if not MEDIAN[0] <= median <= MEDIAN[1]:
            raise SpectrumError(
                "not_normalized",
                f"the spectrum is said to be normalised but its median flux is {median:.4g}, not within "
                f"{MEDIAN[0]} to {MEDIAN[1]}. Divide by the continuum, or send normalized=false and the "
                "service fits it.",
            )
    elif normaliser is None:
        raise SpectrumError(
            "needs_normalization", "this model has no normaliser: send continuum-normalised flux"
        )
    if normaliser is not None:
        flux, ivar = normaliser(flux, ivar)
        history.append(normaliser.describe())
        stages["no continuum could be fitted there"] = ivar
    sigma = 1 / np.sqrt(np.where(ivar > 0, ivar, 1.0)) if observation.ivar is not None else np.zeros_like(flux)
    strange = (ivar > 0) & ((flux > UNPHYSICAL + 5 * sigma) | (flux < -5 * sigma))
    warnings = []
    if strange.any():
        stages["its flux is unphysical"] = ivar = np.where(strange, 0.0, ivar)
        warnings.append(f"{int(strange.sum())} pixels with unphysical flux were masked")
    warnings += mask_warnings(grid, stages)
    spectrum = Spectrum(
        flux=np.where(ivar > 0, flux, 0.0),
        ivar=ivar,
        parameters=observation.parameters,
        has_errors=observation.ivar is not None,
        history=tuple(history),
        warnings=tuple(warnings),
    )
    if spectrum.snr is not None and not POSSIBLE_SNR[0] <= spectrum.snr <= POSSIBLE_SNR[1]:
        odd = f"S/N {spectrum.snr:.3g} per pixel: is ivar an error, or error an inverse variance?"
        return replace(spectrum, warnings=(*spectrum.warnings, odd))
    return spectrum


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

"""Request bodies for a star's spectrum from a file, a specutils Spectrum or arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import numpy as np
import orjson
from astropy import units as u
from astropy.nddata import InverseVariance, NDData
from numpy.typing import ArrayLike, NDArray

from chemtwin_client import labels
from chemtwin_client.arrays import BAD, Parts, aligned, bits, floats, parts
from chemtwin_client.labels import number as number

Number: TypeAlias = float | u.Quantity
Source: TypeAlias = os.PathLike[str] | NDData | ArrayLike | u.Quantity
"""A FITS file, a specutils Spectrum, or the flux (P,) as an array."""


class Observed(TypedDict, total=False):
    """The labels and arrays of a star whose spectrum is sent; None stands for "not given".

    `star_id`: its id, as text or an integer. `teff` (K), `logg` (dex, cgs), `fe_h` (dex), `ra`, `dec`
    (degrees): numbers, or Quantities, which are converted; `teff_err`, `logg_err`, `fe_h_err`: their 1-sigma
    errors, 0 for exact; without them the model's typical ones are used, if it has any. `parameters`,
    `parameters_err`: what else the model is conditioned on. `meta`: anything to store with the star, 4 kB at
    most; not with a FITS file.

    Of arrays: `wavelength` (P,) in vacuum and at rest, in Angstrom or a Quantity; without it flux is on the
    model's or APOGEE's grid. `ivar` or `error` (P,), in flux's unit; `bitmask` (P,), APOGEE's pixel mask, or
    booleans (True: bad). Masked pixels of any of them are not used. `normalized`: whether flux is divided by
    a continuum; by default it is so unless flux has a unit.
    """

    star_id: str | bytes | int | None
    teff: Number | None
    logg: Number | None
    fe_h: Number | None
    teff_err: Number | None
    logg_err: Number | None
    fe_h_err: Number | None
    parameters: Mapping[str, Number] | None
    parameters_err: Mapping[str, Number] | None
    ra: Number | None
    dec: Number | None
    meta: Mapping[str, Any] | None
    wavelength: ArrayLike | u.Quantity | None
    ivar: ArrayLike | u.Quantity | None
    error: ArrayLike | u.Quantity | None
    bitmask: ArrayLike | None
    normalized: bool | None


ARRAYS = ("wavelength", "ivar", "error", "bitmask")
FILE_HAS = (*ARRAYS, "normalized", *labels.POSITION)


@dataclass(frozen=True)
class Body:
    """A request's body, and the query string that goes with it."""

    kind: str
    content: bytes
    query: dict[str, Any]


FITS, JSON = "application/fits", "application/json"


def is_file(source: object) -> bool:
    """Whether a source of spectra is a file's path."""
    return isinstance(source, (str, os.PathLike))


def body(source: Source | str, known: Mapping[str, object], units: Mapping[str, str] | None = None) -> Body:
    """The body of one star for POST /embed or /twins; `units` are those of the model's extra parameters.

    Raises TypeError for keywords that do not belong to such a source, ValueError or UnitsError for labels or
    arrays that cannot be sent, OSError for a file that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _file(Path(source), known, units)
    return Body(JSON, orjson.dumps(star(source, known, units), option=orjson.OPT_SERIALIZE_NUMPY), {})


def _file(path: Path, known: Mapping[str, object], units: Mapping[str, str] | None) -> Body:
    _check(known)
    if unfit := [name for name in FILE_HAS if known.get(name) is not None]:
        raise TypeError(f"a FITS file brings its own {', '.join(unfit)}: leave that out")
    if known.get("meta"):
        raise TypeError("meta cannot go with a FITS file: leave it out")
    query = labels.given(known, units)
    query |= query.pop("parameters", {})
    query |= {f"{name}_err": value for name, value in query.pop("parameters_err", {}).items()}
    return Body(FITS, path.read_bytes(), query)


def star(source: Source, known: Mapping[str, object], units: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A star of a JSON body; raises what `body` does."""
    _check(known)
    if isinstance(source, os.PathLike) or (not isinstance(source, NDData) and np.ndim(source) == 0):
        raise ValueError(f"{source!s:.40} ({type(source).__name__}) is neither a spectrum nor a star's id")
    fields: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    made = labels.given(fields, units)
    made.update((name, fields[name]) for name in ("meta", "normalized") if name in fields)
    arrays = {name: fields[name] for name in ARRAYS if name in fields}
    hidden = None
    if isinstance(source, NDData):
        if arrays:
            raise TypeError(f"a Spectrum brings its own {', '.join(arrays)}: leave that out")
        source, hidden, arrays = _of_spectrum(source)
    aligned({"flux": source, **arrays})
    part = parts("flux", source)
    flux, unit = _flux(part)
    made.setdefault("normalized", unit == u.one)
    return made | _pixels(flux, [part.mask, hidden], arrays, (part.unit or u.one, unit))


def _check(known: Mapping[str, object]) -> None:
    if unknown := sorted(set(known) - set(Observed.__annotations__)):
        raise TypeError(f"unexpected keyword {', '.join(map(repr, unknown))}")


def _flux(part: Parts) -> tuple[NDArray[Any], u.UnitBase]:
    """Flux (P,) and its unit: dimensionless where it has none, or no more than a scale (percent)."""
    own = u.one if part.unit is None else part.unit
    if isinstance(own, u.function.FunctionUnitBase) or own.is_equivalent(u.mag):
        raise u.UnitsError(f"flux must be linear, not in {own}")
    unit = u.one if own.is_equivalent(u.one) else own
    return np.asarray(own.to(unit, floats("flux", part.values))), unit


def wavelength(values: Any) -> NDArray[Any]:
    """Wavelengths (P,) in Angstrom; at rest, where the axis of a Spectrum says how it moves.

    Raises UnitsError for what is no wavelength, frequency or photon energy, ValueError for masked ones.
    """
    if hasattr(values, "to_rest"):
        values = values.to_rest()
    part = parts("wavelength", values)
    if part.mask is not None and part.mask.any():
        raise ValueError("wavelength has masked values")
    found = floats("wavelength", part.values)
    return found if part.unit is None else np.asarray(part.unit.to(u.AA, found, u.spectral()))


def _pixels(
    flux: NDArray[Any], masks: list[Any], arrays: Mapping[str, Any], units: tuple[u.UnitBase, u.UnitBase]
) -> dict[str, NDArray[Any]]:
    """The arrays (P,) of a JSON body; `units` are those in which flux came, and in which it is now.

    A pixel masked in any of them is null in flux and has ivar 0 or error null, or without these the bits
    `BAD`: the service accepts null flux in masked pixels only.
    """
    made = {"flux": flux}
    for name, values in arrays.items():
        if name == "bitmask":
            made[name] = bits(name, values)
        elif name == "wavelength":
            made[name] = wavelength(values)
        else:
            part, power = parts(name, values), -2 if name == "ivar" else 1
            came = units[0] ** power if part.unit is None else part.unit
            made[name] = np.asarray(came.to(units[1] ** power, floats(name, part.values)))
            masks.append(part.mask)
    if flux.ndim != 1:
        raise ValueError(f"flux of one star must be one-dimensional, not of shape {flux.shape}")
    for name, found in made.items():
        if found.shape != flux.shape:
            length = len(found) if found.ndim == 1 else f"of shape {found.shape}"
            raise ValueError(
                f"lengths disagree: flux {len(flux)}, {name} {length}; give a value for each pixel"
            )
    bad = np.zeros(len(flux), dtype=bool)
    for mask in masks:
        bad |= False if mask is None else mask
    if not bad.any():
        return made
    made["flux"] = np.where(bad, np.nan, flux)
    if "ivar" in made:
        made["ivar"] = np.where(bad, 0, made["ivar"])
    elif "error" in made:
        made["error"] = np.where(bad, np.nan, made["error"])
    else:
        made["bitmask"] = np.where(bad, BAD, made.get("bitmask", np.int64(0)))
    return made


def _of_spectrum(source: NDData) -> tuple[u.Quantity, NDArray[np.bool_] | None, dict[str, Any]]:
    """Flux, mask and arrays of a specutils Spectrum, in the order of wavelength and at rest."""
    if not hasattr(source, "spectral_axis"):
        raise TypeError("of the NDData classes only specutils' Spectrum is taken")
    flux = source.flux
    if flux.ndim != 1:
        raise ValueError(f"a Spectrum must hold one spectrum, not flux of shape {flux.shape}")
    rest = wavelength(source.spectral_axis)
    order = np.argsort(rest)
    arrays: dict[str, Any] = {"wavelength": rest[order]}
    if source.uncertainty is not None:
        with np.errstate(divide="ignore"):  # no error is an infinite ivar, which the service takes for none
            uncertainty = source.uncertainty.represent_as(InverseVariance)
        unit = uncertainty.unit if uncertainty.unit is not None else flux.unit**-2
        arrays["ivar"] = (np.asarray(uncertainty.array) * unit)[order]
    mask = None if source.mask is None else np.broadcast_to(source.mask, flux.shape).astype(bool)[order]
    return flux[order], mask, arrays

"""What goes to the service: a star's spectrum, from a file, a specutils Spectrum or arrays."""

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

Number: TypeAlias = float | u.Quantity
Source: TypeAlias = os.PathLike[str] | NDData | ArrayLike | u.Quantity
"""A FITS file, a specutils Spectrum, or the flux (P,) as an array."""

UNITS = {"teff": u.K, "teff_err": u.K, "ra": u.deg, "dec": u.deg}
LABELS = ("teff", "logg", "fe_h", "teff_err", "logg_err", "fe_h_err")


class Observed(TypedDict, total=False):
    """What is known of a star whose spectrum is sent.

    `star_id`: its id. `teff` (K), `logg` (dex, cgs), `fe_h` (dex), `ra`, `dec` (degrees): numbers or
    Quantities; `teff_err`, `logg_err`, `fe_h_err`: their 1-sigma errors. `parameters`, `parameters_err`: what
    else the model is conditioned on. `meta`: anything to keep with the star, 4 kB at most.

    Of arrays: `wavelength` (P,) in vacuum and at rest, in Angstrom or a Quantity; without it flux is on the
    model's or APOGEE's grid. `ivar` or `error` (P,), in flux's unit; `bitmask` (P,), APOGEE's pixel mask.
    `normalized`: whether flux is divided by a continuum; by default it is so unless flux has a unit.
    """

    star_id: str | None
    teff: Number | None
    logg: Number | None
    fe_h: Number | None
    teff_err: Number | None
    logg_err: Number | None
    fe_h_err: Number | None
    parameters: Mapping[str, float] | None
    parameters_err: Mapping[str, float] | None
    ra: Number | None
    dec: Number | None
    meta: Mapping[str, Any] | None
    wavelength: ArrayLike | u.Quantity | None
    ivar: ArrayLike | u.Quantity | None
    error: ArrayLike | u.Quantity | None
    bitmask: ArrayLike | None
    normalized: bool | None


ARRAYS = ("wavelength", "ivar", "error", "bitmask")


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


def body(source: Source | str, known: Mapping[str, object]) -> Body:
    """The body of one star for POST /embed or /twins.

    Raises TypeError for keywords that do not belong to such a source, ValueError or UnitsError for arrays that
    are no spectrum, OSError for a file that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _file(Path(source), known)
    return Body(JSON, orjson.dumps(star(source, known), option=orjson.OPT_SERIALIZE_NUMPY), {})


def _file(path: Path, known: Mapping[str, object]) -> Body:
    told: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    query = {name: number(name, told.pop(name)) for name in LABELS if name in told}
    query |= {name: float(value) for name, value in told.pop("parameters", {}).items()}
    query |= {f"{name}_err": float(value) for name, value in told.pop("parameters_err", {}).items()}
    if "star_id" in told:
        query["star_id"] = told.pop("star_id")
    if told:
        raise TypeError(f"a FITS file brings its own {', '.join(sorted(told))}: leave that out")
    return Body(FITS, path.read_bytes(), query)


def star(source: Source, known: Mapping[str, object]) -> dict[str, Any]:
    """A star of a JSON body; raises what `body` does."""
    if unknown := sorted(set(known) - set(Observed.__annotations__)):
        raise TypeError(f"unexpected keyword {', '.join(map(repr, unknown))}")
    told: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    told = labels(told)
    arrays = {name: told.pop(name) for name in ARRAYS if name in told}
    if isinstance(source, NDData):
        if arrays:
            raise TypeError(f"a Spectrum brings its own {', '.join(arrays)}: leave that out")
        flux, arrays = _of_spectrum(source)
    else:
        flux = source if isinstance(source, u.Quantity) else np.asarray(source)
    unit = flux.unit if isinstance(flux, u.Quantity) else u.dimensionless_unscaled
    told.setdefault("normalized", unit.is_equivalent(u.dimensionless_unscaled))
    if unit.is_equivalent(u.dimensionless_unscaled):
        unit = u.dimensionless_unscaled
    wanted = {"flux": unit, "wavelength": u.AA, "ivar": unit**-2, "error": unit}
    for name, values in {"flux": flux, **arrays}.items():
        told[name] = array(name, values, wanted.get(name))
    return told


def labels(told: Mapping[str, Any]) -> dict[str, Any]:
    """`told` with its labels in the contract's units, whatever else is in it. Raises UnitsError."""
    plain = {name: number(name, told[name]) for name in (*LABELS, "ra", "dec") if name in told}
    further = {
        name: {key: float(value) for key, value in told[name].items()}
        for name in ("parameters", "parameters_err")
        if name in told
    }
    return {**told, **plain, **further}


def number(name: str, value: Any) -> float | None:
    """A label in the contract's unit; None for a masked one. Raises UnitsError for another dimension."""
    if value is np.ma.masked:
        return None
    if not isinstance(value, u.Quantity):
        return float(value)
    if name not in UNITS and str(value.unit).startswith("dex"):
        return float(value.value)
    return float(value.to_value(UNITS.get(name, u.dimensionless_unscaled)))


def array(name: str, values: Any, unit: u.UnitBase | None) -> NDArray[Any]:
    """An array (P,) that JSON can carry, a Quantity in `unit`. Raises ValueError for another shape."""
    if isinstance(values, u.Quantity):
        values = values.to_value(unit)
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(float), np.nan)
    made = np.asarray(values)
    if made.ndim != 1:
        raise ValueError(f"{name} of one star must be one-dimensional, not of shape {made.shape}")
    if made.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers")
    kind = np.int64 if name == "bitmask" else np.float32 if made.dtype.itemsize <= 4 else np.float64
    return np.ascontiguousarray(made, dtype=kind)


def _of_spectrum(source: NDData) -> tuple[u.Quantity, dict[str, Any]]:
    """Flux and arrays of a specutils Spectrum, in the order of wavelength and at rest."""
    if not hasattr(source, "spectral_axis"):
        raise TypeError("of the NDData classes only specutils' Spectrum is taken")
    flux = source.flux
    if flux.ndim != 1:
        raise ValueError(f"a Spectrum must hold one spectrum, not flux of shape {flux.shape}")
    wavelength = source.spectral_axis.to_rest().to_value(u.AA, u.spectral())
    order = np.argsort(wavelength)
    arrays: dict[str, Any] = {"wavelength": wavelength[order]}
    if source.uncertainty is not None:
        with np.errstate(divide="ignore"):  # no error is an infinite ivar, which the service takes for none
            uncertainty = source.uncertainty.represent_as(InverseVariance)
        unit = uncertainty.unit if uncertainty.unit is not None else flux.unit**-2
        arrays["ivar"] = (np.asarray(uncertainty.array) * unit)[order]
    if source.mask is not None:
        arrays["bitmask"] = np.broadcast_to(source.mask, flux.shape).astype(bool)[order].astype(np.int64)
    return flux[order], arrays

"""Identifiers, numbers and extra columns of a star: checked and converted to the service's types and units."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from astropy import units as u
from astropy.utils.masked import Masked

from chemtwin_client.arrays import known_unit, missing

NEEDED = ("teff", "logg", "fe_h")
ERRORS = tuple(f"{name}_err" for name in NEEDED)
POSITION = ("ra", "dec")
UNITS = {"teff": u.K, "teff_err": u.K, "ra": u.deg, "dec": u.deg}
GRAVITY = u.dex(u.cm / u.s**2)
IN_DEX = {"logg", "fe_h", "logg_err", "fe_h_err", "fe_h_within"}

SENTINEL = -9990.0
"""Surveys write -9999, or a number near it, for an unknown value."""

EXACT = 2**53
"""Readers of JSON that take numbers for doubles lose digits of larger integers."""


WAS_FLOAT = re.compile(r"[+-]?\d+\.\d*(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
WAS_NOTHING = {"nan", "none", "null", "nat", "<na>", "masked", "--"}
"""What floating-point numbers and missing values become as text, in lower case."""

Plain = str | int | float | bool


class InputError(ValueError):
    """An input of one star that cannot be sent. `code`: a stable word for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def is_id(value: Any) -> bool:
    """Whether a value is a star's id rather than a spectrum."""
    return isinstance(value, (str, bytes, int, np.integer)) and not isinstance(value, (bool, np.timedelta64))


def star_id(value: Any) -> str:
    """An identifier as text, digit for digit, without the blanks and zeros that pad it in FITS files.

    Raises InputError for an unknown one, and for a floating-point number: it has lost digits of a long id.
    """
    if missing(value):
        raise InputError("bad_star_id", "star_id is unknown")
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not is_id(value):
        hint = ""
        if isinstance(value, (bool, np.bool_)):
            hint = f": {value} is a truth value"
        elif isinstance(value, (float, np.floating)):
            hint = ": a floating-point number loses digits"
        raise InputError("bad_star_id", f"star_id must be text or an integer, not {type(value).__name__}{hint}")
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    if not (text := text.strip(" \0")):
        raise InputError("bad_star_id", "star_id is empty")
    return text


def new_star_id(value: Any) -> str:
    """What `star_id` makes of it, for a star that is to be stored.

    Raises InputError as that does; and for a text that was a floating-point number or a missing value.
    """
    text = star_id(value)
    if text.lower() in WAS_NOTHING:
        raise InputError("bad_star_id", f"star_id {text!r} is what a missing value becomes as text")
    if WAS_FLOAT.fullmatch(text):
        raise InputError(
            "bad_star_id",
            f"star_id {text!r} has been a floating-point number, which loses digits: read the column as text",
        )
    return text


def mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping, or a row of pandas, as a dictionary. Raises TypeError for anything else."""
    if not hasattr(value, "keys"):
        raise TypeError(f"{name} must be a mapping such as {{'teff': 4300}}, not {type(value).__name__}")
    return {key: value[key] for key in value.keys()}  # noqa: SIM118, pandas iterates over values


def number(name: str, value: Any, unit: u.UnitBase | None = None, target: u.UnitBase | None = None) -> float:
    """A number in the unit of the HTTP contract; `unit` is that of its column, `target` of an extra parameter.

    Raises ValueError for what is no single number, UnitsError for a unit that cannot be converted.
    """
    if not missing(value):
        if isinstance(value, Masked):
            value = value.unmasked
        if isinstance(value, u.Quantity):
            value, unit = value.value, value.unit
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
    if not isinstance(value, (numbers.Real, Decimal)) or isinstance(value, (bool, np.timedelta64)):
        raise ValueError(f"{name} must be a number, not {value!s:.40} ({type(value).__name__})")
    return convert(name, float(value), unit, target)


def known(
    name: str, value: Any, unit: u.UnitBase | None = None, target: u.UnitBase | None = None
) -> float | None:
    """What `number` makes of it; None where it is unknown: masked, None, NaN, infinite or a survey's -9999.

    Raises what `number` does.
    """
    if missing(value):
        return None
    bare = value.value if isinstance(value, u.Quantity) else value
    found = number(name, value, unit, target)
    return found if np.isfinite(found) and float(bare) > SENTINEL else None


def needed(name: str, value: Any, unit: u.UnitBase | None = None, target: u.UnitBase | None = None) -> float:
    """What `known` makes of it. Raises InputError where it is unknown, and what `number` does."""
    found = known(name, value, unit, target)
    if found is None:
        raise InputError("unknown_label", f"{name} is unknown ({'masked' if value is None else value})")
    return found


def convert(name: str, value: float, unit: u.UnitBase | None, target: u.UnitBase | None = None) -> float:
    """A value in the contract's unit, or in `target`. Raises UnitsError where `unit` cannot be converted.

    A number without a unit is in the contract's unit. [Fe/H] and errors of log g are in dex.
    """
    unit = known_unit(name, unit)
    if unit is None:
        return value
    if name in IN_DEX:
        if unit in (u.one, u.dex) or (name.endswith("_err") and isinstance(unit, u.DexUnit)):
            return value
        if name == "logg":
            target = GRAVITY
        else:
            raise u.UnitConversionError(f"{name} must be in dex, not in '{unit}'")
    try:
        return float(unit.to(target or UNITS.get(name, u.one), value))
    except u.UnitsError as error:
        raise u.UnitConversionError(f"{name}: {error}") from None


def given(values: Mapping[str, Any], units: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The labels among keywords of one star, as the contract wants them; without those that are None.

    `units` are those of the model's extra parameters. Raises InputError, ValueError or UnitsError.
    """
    found: dict[str, Any] = {}
    if values.get("star_id") is not None:
        found["star_id"] = new_star_id(values["star_id"])
    for name in NEEDED:
        if values.get(name) is not None:
            found[name] = needed(name, values[name])
    for name in (*ERRORS, *POSITION):
        if (value := known(name, values.get(name))) is not None:
            found[name] = value
    targets = {name: u.Unit(unit) for name, unit in (units or {}).items()}
    if parameters := values.get("parameters"):
        found["parameters"] = {
            name: needed(name, value, target=targets.get(name)) for name, value in parameters.items()
        }
    if errors := values.get("parameters_err"):
        each = {name: known(name, value, target=targets.get(name)) for name, value in errors.items()}
        found["parameters_err"] = {name: value for name, value in each.items() if value is not None}
    return found


def for_meta(value: Any) -> Plain | None:
    """A cell of an extra column as JSON: text, a number or a truth value; None where it is unknown.

    Dates and durations become text; so do integers beyond 2**53. Raises TypeError for anything else.
    """
    if missing(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip(" \0")
    if isinstance(value, (str, np.datetime64, np.timedelta64)):
        return str(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value) if abs(int(value)) <= EXACT else str(int(value))
    if isinstance(value, (numbers.Real, Decimal)):
        return float(value) if np.isfinite(float(value)) else None
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise TypeError(f"{type(value).__name__} is neither text nor a number")

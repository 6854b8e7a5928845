"""Columns as users have them, made into what the service stores: identifiers, numbers, units.

One rule for every column that enters in bulk. An identifier is text, digit for digit. A number that is masked,
blank, NaN, infinite or one of the surveys' sentinels (-9999 and the like) is unknown, and NaN here. Text that
is no number is an error of its row. A unit is converted where it can be, and is an error where it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.spectra.units import UNITS, is_stored_unit

Values: TypeAlias = "NDArray[Any] | np.ma.MaskedArray[Any, Any] | Sequence[Any]"
Row: TypeAlias = int

SENTINEL = -9990.0
"""Numbers up to this one are the surveys' signs for unknown: -9999, -9999.99."""

UNKNOWN = frozenset(
    {
        "",
        "-",
        "--",
        "...",
        "nan",
        "na",
        "n/a",
        "null",
        "none",
        "nil",
        "masked",
        "nat",
        "<na>",
        "inf",
        "-inf",
        "+inf",
    }
)
"""Texts, in lower case, that stand for an unknown number."""

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)
ROUNDED = re.compile(r"[+-]?\d+\.\d*(?:[eE][+-]?\d+)?\Z", re.ASCII)
"""What becomes of a long identifier in a spreadsheet or a column of floating-point numbers."""

EXACT = 2**53
"""Integers beyond this one lose digits where numbers are floating point."""

LOGARITHMS = ("logg", "fe_h")


class ColumnError(InputError):
    """A column that cannot be used, whichever the row."""


@dataclass(frozen=True)
class Numbers:
    """Numbers `values` (N,) with NaN where they are unknown, and by row what is no number at all."""

    values: NDArray[np.float64]
    wrong: Mapping[Row, str] = field(default_factory=dict)


def identifiers(name: str, values: Values) -> list[str | None]:
    """Identifiers (N,) as text, digit for digit; None where there is none.

    Raises ColumnError for floating-point numbers, which do not have the digits any more.
    """
    masked = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    if isinstance(values, np.ndarray) and values.dtype.kind not in "SUOiu":
        raise ColumnError(
            f"{name} holds {values.dtype}: identifiers are text or integers. "
            "Floating-point numbers have lost digits; write the column as text."
        )
    plain = np.ma.getdata(values).tolist() if isinstance(values, np.ndarray) else values
    found = [_identifier(name, value) for value in plain]
    return found if masked is None else [None if no else one for one, no in zip(found, masked, strict=True)]


def _identifier(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return None
    if isinstance(value, (float, np.floating)):
        raise ColumnError(f"{name} holds floating-point numbers, which have lost digits: write it as text")
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = text.strip("\0 \t\r\n")
    return None if text.lower() in UNKNOWN else text


def lost_digits(identifier: str) -> bool:
    """Whether a text is an identifier that was a floating-point number on its way, as in a spreadsheet."""
    return ROUNDED.match(identifier) is not None


def numbers(values: Values) -> Numbers:
    """A column (N,) of numbers, or of texts that are numbers. Raises ColumnError for another type."""
    masked = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    array = np.ma.getdata(values) if isinstance(values, np.ndarray) else np.array(values, dtype=object)
    wrong: dict[Row, str] = {}
    if array.dtype.kind in "iuf":
        found = array.astype(np.float64)
    elif array.dtype.kind in "SUO":
        found = np.array([_number(value, row, wrong) for row, value in enumerate(array.tolist())], np.float64)
    else:
        raise ColumnError(f"holds {array.dtype}, not numbers")
    if masked is not None:
        found = np.where(masked, np.nan, found)
        wrong = {row: why for row, why in wrong.items() if not masked[row]}
    return Numbers(known(found), wrong)


def known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers (N,) with NaN in the place of what is infinite or a sentinel."""
    return np.where(np.isfinite(values) & (values > SENTINEL), values, np.nan)


def _number(value: Any, row: Row, wrong: dict[Row, str]) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip("\0 \t\r\n")
    if text.lower() in UNKNOWN:
        return float("nan")
    if NUMBER.match(text) is None:
        wrong[row] = f"{text[:40]!r} is no number"
        return float("nan")
    return float(text)


def converted(
    name: str, values: NDArray[np.float64], unit: str, wanted: str | None = None
) -> NDArray[np.float64]:
    """The values (N,) of a column in the service's unit: K, dex, degrees, or `wanted` by a model's card.

    `name` is the column's, `<label>_err` for a label's errors; `unit` is what the file gives, "" for none.
    Raises ColumnError for a unit that is not understood or measures something else.
    """
    label = name.removesuffix("_err")
    target = wanted if wanted is not None else UNITS.get(label, "")
    if is_stored_unit(label, unit, wanted):
        return values
    if label in LOGARITHMS or not target:
        raise ColumnError(f"{name} is in {unit!r}, not in {target or 'a unit that the model knows'}")
    from astropy import units as u  # half a second, where a unit is another one only

    parsed = u.Unit(unit, parse_strict="silent")
    try:
        scales = u.temperature() if name == "teff" else []
        return np.asarray((values * parsed).to_value(target, equivalencies=scales), np.float64)
    except (u.UnitsError, TypeError, ValueError):
        raise ColumnError(f"{name} is in {unit!r}, which cannot be converted to {target}") from None


def vacuum_angstrom(values: NDArray[np.float64], unit: str) -> NDArray[np.float64]:
    """Wavelengths (P,) in Angstrom. Raises ColumnError for a unit of no length, and for wavelengths in air."""
    if re.search(r"\bair\b", unit, re.IGNORECASE):
        raise ColumnError(f"wavelength is in {unit!r}: convert it to vacuum")
    text = re.sub(r"[(,]?\s*(in\s+)?vacuum\s*\)?", "", unit, flags=re.IGNORECASE).strip()
    if text.lower() in ("", "a", "aa", "angstrom", "angstroms", "0.1nm"):
        return values
    return converted("wavelength", values, text, "Angstrom")


def meta_value(value: Any) -> Any:
    """A cell as JSON has it: text, a number or a boolean; None where it is unknown.

    Integers that floating point cannot hold become text, digit for digit.
    """
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return None if value <= SENTINEL else value if abs(value) <= EXACT else str(value)
    if isinstance(value, float):
        return value if np.isfinite(value) and value > SENTINEL else None
    text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip("\0 \t\r\n")
    return None if text.lower() in UNKNOWN else text

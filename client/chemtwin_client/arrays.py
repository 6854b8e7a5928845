"""Tables, columns and arrays of any library as values by position, with their masks and units."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io.fits import FITS_rec
from astropy.nddata import NDData
from astropy.table import Table
from astropy.table.column import BaseColumn
from astropy.utils.masked import Masked
from astropy.utils.shapes import ShapedLikeNDArray
from numpy.typing import NDArray

BAD = 0b1111_1111
"""Bits 0 to 7 of APOGEE's pixel mask: a pixel that must not be used."""

VACUUM = re.compile(r"[(,]?\s*(in\s+)?vacuum\s*\)?", re.IGNORECASE)
"""The words that surveys add to the unit of a wavelength."""


@dataclass(frozen=True)
class Parts:
    """An array's values, its mask (True: masked; None without one) and its unit (None without one)."""

    values: NDArray[Any]
    mask: NDArray[np.bool_] | None
    unit: u.UnitBase | None


@dataclass(frozen=True)
class Column:
    """A column of a table of labels: its values by position, None where masked, and its unit.

    `scalars` is False for a column whose cells are arrays or objects (a flux, a SkyCoord): it has no values.
    """

    values: Sequence[Any]
    unit: u.UnitBase | None
    length: int
    scalars: bool = True


@dataclass(frozen=True)
class Rows:
    """Rows of an array in a file (h5py, zarr) whose attributes give a unit; slicing reads them."""

    array: Any
    unit: u.UnitBase

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> u.Quantity:
        return u.Quantity(self.array[rows], self.unit)


def parts(name: str, values: Any) -> Parts:
    """An array's values, mask and unit; the order is that of position, whatever index pandas has.

    Raises UnitsError for a unit that astropy does not know.
    """
    unit = known_unit(name, unit_of(values))
    found, mask = _bare(values)
    return Parts(found, mask, unit)


def _bare(values: Any) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """An array's values and mask."""
    mask = None
    if isinstance(values, Masked):
        mask, values = np.asarray(values.mask), values.unmasked
    elif isinstance(values, np.ma.MaskedArray):
        mask, values = np.ma.getmaskarray(values), np.ma.getdata(values)
    if isinstance(values, u.Quantity):
        values = values.value
    elif hasattr(values, "to_pylist"):  # pyarrow
        values = values.to_pylist()
    return np.asarray(values), mask


def unit_of(values: Any) -> u.UnitBase | None:
    """The unit of a Quantity, of a table's column, or in the attribute `unit` or `units` of an array in a file.

    It is an UnrecognizedUnit where astropy does not know it; see `known_unit`.
    """
    if isinstance(values, (u.Quantity, BaseColumn)):
        return values.unit
    if not hasattr(values, "attrs") or hasattr(values, "iloc"):  # pandas: attributes are not of one column
        return None
    given = values.attrs.get("unit", values.attrs.get("units", ""))
    text = given.decode() if isinstance(given, bytes) else str(given)
    text = VACUUM.sub("", text).strip()
    return u.Unit(text, parse_strict="silent") if text else None


def known_unit(name: str, unit: u.UnitBase | None) -> u.UnitBase | None:
    """The unit itself. Raises UnitsError for one that astropy does not know."""
    if isinstance(unit, u.UnrecognizedUnit):
        raise u.UnitsError(f"{name}: astropy does not know the unit {str(unit)!r}; set one that it knows")
    return unit


def aligned(given: Mapping[str, Any], star_ids: Sequence[str] = ()) -> None:
    """Check that no two pandas objects of `given` have the same labels in another order.

    Values go by position. Default indexes (0, 1, 2...) say nothing, and neither do different labels.

    Raises
    ------
    ValueError
        An index, or the columns of a frame, are those of another in another order; or an index is `star_ids`.
    """
    for axis in ("index", "columns"):
        found = {
            f"the {axis} of {name}": list(map(str, getattr(values, axis)))
            for name, values in given.items()
            if hasattr(values, "iloc") and hasattr(values, axis)
        }
        if axis == "index":
            found["star_id"] = list(star_ids)
        found = {name: ones for name, ones in found.items() if ones != [str(n) for n in range(len(ones))]}
        for (one, first), (other, second) in combinations(found.items(), 2):
            if first != second and sorted(first) == sorted(second):
                raise ValueError(
                    f"{one} and {other} have the same labels in another order, but values go by position: "
                    "reindex one like the other, or give .to_numpy() where the positions are right"
                )


def floats(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as float32 or float64; None and NA of an array of objects become NaN.

    Raises ValueError for text, booleans and complex numbers.
    """
    if values.dtype.kind == "O":
        values = np.array([_float(name, value) for value in values.ravel()]).reshape(values.shape)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers, not {values.dtype}")
    return np.ascontiguousarray(values, dtype=np.float32 if values.dtype.itemsize <= 4 else np.float64)


def _float(name: str, value: Any) -> float:
    if missing(value):
        return np.nan
    if np.ndim(value) or np.asarray(value).dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers, not {type(value).__name__}")
    return float(value)


def bits(name: str, values: Any) -> NDArray[np.int64]:
    """APOGEE's pixel mask as integers: True and masked become `BAD`.

    Raises ValueError for what is no whole number, UnitsError for a unit.
    """
    part = parts(name, values)
    if part.unit not in (None, u.one):
        raise u.UnitsError(f"{name} is a mask of bits and has no unit, not {part.unit}")
    kind = part.values.dtype.kind
    if kind == "b":
        found = np.where(part.values, BAD, 0).astype(np.int64)
    elif kind in "iu" or (kind == "f" and _whole(part.values)):
        found = part.values.astype(np.int64)
    else:
        raise ValueError(f"{name} must hold booleans or whole numbers, not {part.values.dtype}")
    return found if part.mask is None else np.where(part.mask, BAD, found)


def _whole(values: NDArray[Any]) -> bool:
    return bool(np.all(np.isfinite(values) & (np.abs(values) < 2**63)) and np.all(values == np.floor(values)))


def missing(value: Any) -> bool:
    """Whether a value is masked, None, NaN, NaT or pandas' NA."""
    if value is None or value is np.ma.masked:
        return True
    if isinstance(value, (np.ma.MaskedArray, Masked)) and np.ndim(value) == 0:
        return bool(value.mask)
    if np.ndim(value):
        return False
    try:
        return bool(value != value)
    except TypeError:  # pandas' NA is neither equal nor unequal to itself
        return True


def columns(labels: Any) -> dict[str, Column]:
    """The columns of a table by name: of astropy, pandas, pyarrow, a structured array or a mapping.

    Raises TypeError for what is no table, ValueError for names that occur twice.
    """
    if isinstance(labels, FITS_rec):
        raise TypeError("labels: read the file by Table.read(path); its raw data lack units and masks")
    if isinstance(labels, np.ndarray):
        names = list(labels.dtype.names or ())
    elif isinstance(labels, Mapping):
        names = list(labels)
    else:
        names = list(getattr(labels, "column_names", getattr(labels, "columns", ())))
    if not names:
        raise TypeError(f"labels must be a table or a mapping of columns, not {type(labels).__name__}")
    if twice := [name for name, count in Counter(map(str, names)).items() if count > 1]:
        raise ValueError(f"labels have several columns {', '.join(twice)}")
    return {str(name): column(str(name), labels[name]) for name in names}


def column(name: str, values: Any) -> Column:
    """One value per star, by position. Raises TypeError for what has no order or is a single value."""
    scalar = not hasattr(values, "__len__") or getattr(values, "shape", None) == ()
    if scalar or isinstance(values, (str, bytes, Mapping, Set)):
        raise TypeError(f"{name} must hold one value per star, in order; {type(values).__name__} does not")
    unit, length = unit_of(values), len(values)
    if getattr(values, "ndim", 1) != 1 or isinstance(values, ShapedLikeNDArray):
        return Column((), unit, length, scalars=False)  # cells are arrays, or a mixin of astropy
    if hasattr(values, "chunks") and not hasattr(values, "to_pylist"):
        values = values[:]  # h5py or zarr: read once, not row by row
    if not isinstance(
        values, (np.ndarray, Masked)
    ):  # a Series is iterated by position, where NA leaves integers as they are
        return Column(values.to_pylist() if hasattr(values, "to_pylist") else list(values), unit, length)
    bare, mask = _bare(values)
    cells = list(bare)
    if mask is not None:
        cells = [None if hidden else cell for cell, hidden in zip(cells, mask.tolist(), strict=True)]
    return Column(cells, unit, length)


def by_row(name: str, values: Any) -> Any:
    """N spectra, or arrays of them, such that `values[a:b]` are rows by position. An h5py dataset stays unread.

    Raises TypeError for what has no order, UnitsError for a unit that astropy does not know.
    """
    unordered = isinstance(values, (str, bytes, Mapping, Set, Table)) or not hasattr(values, "__getitem__")
    if unordered or getattr(values, "shape", None) == ():
        raise TypeError(f"{name} must hold one per star, in order; {type(values).__name__} does not")
    if isinstance(values, NDData):
        spectra = getattr(values, "flux", values).shape
        return [values[row] for row in range(spectra[0])] if len(spectra) == 2 else [values]
    if hasattr(values, "to_pylist"):
        return values.to_pylist()
    if hasattr(values, "iloc"):
        return list(values) if values.ndim == 1 else values.to_numpy()
    if isinstance(values, BaseColumn):
        part = parts(name, values)
        found = part.values if part.unit is None else u.Quantity(part.values, part.unit, copy=False)
        return found if part.mask is None else Masked(found, mask=part.mask)
    if not isinstance(values, u.Quantity) and (unit := known_unit(name, unit_of(values))) is not None:
        return Rows(values, unit)
    return values

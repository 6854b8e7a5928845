"""The stars of `Chemtwin.embed_many`: their spectra and labels by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from astropy import units as u

from chemtwin_client import labels, spectra
from chemtwin_client.arrays import Column, aligned, by_row, columns
from chemtwin_client.labels import InputError

META_BYTES = 4096
"""Most bytes of JSON that the service stores with a star."""

UNUSED = {
    *(*spectra.ARRAYS, "flux", "snr", "normalized", "raj2000", "dej2000"),
    *(f"e_{name}" for name in labels.NEEDED),
}
"""Names, in lower case, of extra columns that look as if they were used."""


class Stars:
    """Spectra and labels, by position; indexes of pandas must not contradict it.

    Parameters
    ----------
    sources : array (N, P) or sequence of N sources
        As `Chemtwin.embed_many` takes them.
    table : table or mapping of columns
        The labels.
    wavelength : array (P,) or None
        Common to all stars.
    arrays : mapping of str to array (N, P)
        Those of `ivar`, `error` and `bitmask`, None where they are not given.
    normalized : bool or None
        Whether the fluxes are divided by a continuum.
    units : mapping of str to str
        The units of the model's extra parameters, by name.

    Attributes
    ----------
    ids : list of str
        The star of each row, "" where it is unknown.
    faults : dict of int to InputError
        The errors of identifiers by row; one is a star of the same id in an earlier row.
    notes : list of str
        Warnings of labels that are not used or not stored.

    Raises
    ------
    ValueError
        Lengths disagree, two indexes of pandas have another order, or there is no column `star_id`.
    TypeError
        The labels are no table, or a column or array has no order.
    UnitsError
        A label is in a unit that cannot be converted.
    """

    def __init__(
        self,
        sources: Any,
        table: Any,
        wavelength: Any,
        arrays: Mapping[str, Any],
        normalized: bool | None,
        units: Mapping[str, str],
    ) -> None:
        arrays = {name: values for name, values in arrays.items() if values is not None}
        self.sources = by_row("sources", sources)
        self.arrays = {name: by_row(name, values) for name, values in arrays.items()}
        self.common = {
            "wavelength": None if wavelength is None else spectra.wavelength(wavelength),
            "normalized": normalized,
        }
        self.targets = {name: u.Unit(unit) for name, unit in units.items()}
        self.labels, extra = _split_columns(columns(table), units)
        self._check({**self.labels, **extra})
        self.ids: list[str] = []
        self.faults: dict[int, InputError] = {}
        self._identify(self.labels.pop("star_id"))
        by_position = {"sources": sources, **arrays}
        named = table.items() if isinstance(table, Mapping) else [("", table)]
        aligned(by_position | {f"labels {name}".strip(): values for name, values in named})
        aligned(by_position, self.ids)
        self.notes: list[str] = []
        if unused := [name for name in extra if name.lower() in UNUSED]:
            self.notes.append(
                f"columns of labels that are not used, but stored in meta at most: {', '.join(unused)}; "
                "arrays of pixels and normalized are arguments, a position is ra and dec"
            )
        self.meta = self._for_meta(extra)

    def __len__(self) -> int:
        return len(self.sources)

    def _check(self, table: Mapping[str, Column]) -> None:
        if "star_id" not in self.labels:
            raise ValueError("labels need a column star_id")
        count = table["star_id"].length
        lengths = {name: len(values) for name, values in {"sources": self.sources, **self.arrays}.items()}
        lengths |= {"labels": count} | {name: one.length for name, one in table.items() if one.length != count}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"lengths disagree: {', '.join(f'{name} {length}' for name, length in lengths.items())}"
            )
        for name, one in self.labels.items():
            if not one.scalars:
                raise TypeError(f"column {name} must hold one value per star")
            if name != "star_id":
                labels.convert(name, 1.0, one.unit, self._target(name))

    def _target(self, name: str) -> u.UnitBase | None:
        return self.targets.get(name.removesuffix("_err"))

    def _identify(self, column: Column) -> None:
        first: dict[str, int] = {}
        for row, value in enumerate(column.values):
            star_id = ""
            try:
                star_id = labels.new_star_id(value)
                if first.setdefault(star_id, row) != row:
                    raise InputError(
                        "duplicate_id", f"star {star_id} is in row {first[star_id]} already, which counts"
                    )
            except InputError as error:
                self.faults[row] = InputError(error.code, f"{error} (row {row})")
            self.ids.append(star_id)

    def read(self, rows: range) -> tuple[Any, dict[str, Any]]:
        """The sources and arrays of some rows."""
        part = slice(rows.start, rows.stop)
        return self.sources[part], {name: values[part] for name, values in self.arrays.items()}

    def known(self, row: int, of_file: bool) -> dict[str, Any]:
        """The labels and settings of a row for `spectra.body`. Raises InputError, ValueError or UnitsError."""
        fields: dict[str, Any] = {"star_id": self.ids[row], "parameters": {}, "parameters_err": {}}
        for name, column in self.labels.items():
            if of_file and name in labels.POSITION:
                continue
            optional = name.endswith("_err") or name in labels.POSITION
            value = (labels.known if optional else labels.needed)(
                name, column.values[row], column.unit, self._target(name)
            )
            if self._target(name) is None:
                fields[name] = value
            elif value is not None:
                fields["parameters_err" if optional else "parameters"][name.removesuffix("_err")] = value
        return fields | self.common | ({} if of_file else {"meta": self._meta(row)})

    def _meta(self, row: int) -> dict[str, Any]:
        return {name: values[row] for name, values in self.meta.items() if values[row] is not None}

    def _for_meta(self, table: Mapping[str, Column]) -> dict[str, list[labels.Plain | None]]:
        """The extra columns as JSON values. Raises ValueError for a row of more than the service stores."""
        found, unfit = {}, []
        for name, one in table.items():
            try:
                if not one.scalars:
                    raise TypeError
                found[name] = [labels.for_meta(value) for value in one.values]
            except TypeError:
                unfit.append(name)
        if unfit:
            self.notes.append(f"not stored, as it is neither text nor numbers: {', '.join(unfit)}")
        are_files = self._are_files()
        if any(are_files):
            self._note_files(list(found))
        for row, of_file in enumerate(are_files):
            size = 0 if of_file else len(orjson.dumps({name: values[row] for name, values in found.items()}))
            if size > META_BYTES:
                raise ValueError(
                    f"the {len(found)} extra columns of labels are {size} bytes of JSON in row {row}; "
                    f"at most {META_BYTES} are stored with a star: leave out those that you do not need"
                )
        return found

    def _are_files(self) -> list[bool]:
        if (
            isinstance(self.sources, (list, tuple))
            or getattr(self.sources, "dtype", np.dtype(float)).kind in "OU"
        ):
            return [spectra.is_file(source) for source in self.sources]
        return [False] * len(self)

    def _note_files(self, extra: list[str]) -> None:
        if extra:
            self.notes.append(f"not stored with stars from FITS files, which carry no meta: {', '.join(extra)}")
        if position := [name for name in labels.POSITION if name in self.labels]:
            self.notes.append(f"stars from FITS files have the files' own {' and '.join(position)}")


def _split_columns(
    table: Mapping[str, Column], units: Mapping[str, str]
) -> tuple[dict[str, Column], dict[str, Column]]:
    """Labels by their standard names, and the extra columns by their own.

    Capitals do not matter for labels (a survey's TEFF), and `e_teff` is `teff_err` where that is absent.
    Raises ValueError for two columns of one label.
    """
    parameters = (*units, *(f"{name}_err" for name in units))
    usual_names = ("star_id", *labels.NEEDED, *labels.ERRORS, *labels.POSITION)
    names = {name.lower(): name for name in (*usual_names, *parameters)}
    usual: dict[str, Column] = {}
    extra: dict[str, Column] = {}
    for title, column in table.items():
        name = names.get(title.lower())
        if name is None:
            extra[title] = column
        elif name in usual:
            raise ValueError(f"labels have several columns {name}, which differ in capitals only")
        else:
            usual[name] = column
    for label in (*labels.NEEDED, *units):
        titles = [title for title in extra if title.lower() == f"e_{label}".lower()]
        if titles and f"{label}_err" not in usual:
            usual[f"{label}_err"] = extra.pop(titles[0])
    return usual, extra

"""Labels of stars in an archive's table: which row is a star's, and what it says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from app.bulk.readers.label_tables import LabelTable, read_label_table
from app.bulk.readers.star_files import without_ending
from app.bulk.readers.star_reader import LABELS, parameters_of
from app.bulk.survey_build.flags import ChosenFlags, Flags, flag_columns
from app.bulk.survey_build.refused import RefusedSpectrum
from app.inference.embedder import cluster_of
from app.values.identifiers_and_numbers import Numbers, meta_value
from model.errors import InputError, ParameterError
from model.spectra.parameters import Parameters
from model.spectra.star_file import COORDINATES, same_star

METALS = ("fe_h", "m_h", "param_m_h", "m_h_atm")
"""Columns of the metallicity in archives' tables; the first that is there is used for all stars."""

IDS = ("star_id", "apogee_id", "sdss_id", "sdss4_apogee_id")
"""Columns of ids by which a star is found."""

NUMBERS = (*LABELS, *(f"{name}_err" for name in LABELS), "ra", "dec", "snr")


def key(star_id: str) -> str:
    """What all ids of one star have in common: its 2MASS coordinates, if the id states them.

    2M00004994+1621552 and AP00004994+1621552 are one star.
    """
    found = COORDINATES.search(star_id)
    return star_id if found is None else found[1]


class StarLabels:
    """A table of labels, whose rows are found by a star's id or by its file's name.

    Attributes
    ----------
    metals
        The column that [Fe/H] is read from.
    flags
        The stars' flags.
    """

    def __init__(self, path: Path, chosen: ChosenFlags) -> None:
        """Raises InputError for a table that cannot be used."""
        self.metals = ""

        def choose(names: Sequence[str]) -> set[str]:
            self.metals = next((name for name in METALS if name in names), "")
            of_metals = {self.metals, f"{self.metals}_err", f"e_{self.metals}"}
            return {*NUMBERS, *IDS, "file", "cluster", *flag_columns(chosen), *of_metals}

        self._table = self._renamed(read_label_table(path, choose))
        names = self._table.columns
        if missing := {*LABELS} - set(names):
            there = ", ".join(self._table.names[:40])
            raise InputError(f"{path} lacks columns {', '.join(sorted(missing))}: it has {there}")
        self._ids = {name: ids for name in IDS if (ids := self._table.identifiers(name)) is not None}
        files = self._table.identifiers("file")
        if not self._ids and files is None:
            raise InputError(f"{path} has no column of ids ({', '.join(IDS)}), nor a column file")
        self._numbers: dict[str, Numbers] = {
            name: self._table.numbers(name) for name in NUMBERS if name in names
        }
        self.flags = Flags(self._table, chosen)
        self._by_key = self._rows_by_key()
        self._by_file = _unique({_bare(name): row for row, name in _known(files)}, _known(files))

    def _renamed(self, table: LabelTable) -> LabelTable:
        """The table with the column of metals, and its errors, under the names fe_h and fe_h_err."""
        columns = dict(table.columns)
        for name, others in (
            ("fe_h", (self.metals,)),
            ("fe_h_err", (f"{self.metals}_err", f"e_{self.metals}")),
        ):
            found = next((other for other in others if other in columns), None)
            if found is not None and self.metals != "fe_h":
                columns[name] = columns[found]
        return replace(table, columns=columns)

    def _rows_by_key(self) -> dict[str, int]:
        """The row of each star: of several the one of the highest S/N in the table, else the first."""
        found: dict[str, int] = {}
        for column in self._ids.values():
            for row, star_id in _known(column):
                before = found.setdefault(key(star_id), row)
                if before != row and self._snr(row) > self._snr(before):
                    found[key(star_id)] = row
        return found

    def __len__(self) -> int:
        return len(self._table)

    def _number(self, name: str, row: int) -> float:
        return float(self._numbers[name].values[row]) if name in self._numbers else math.nan

    def _snr(self, row: int) -> float:
        snr = self._number("snr", row)
        return snr if snr > 0 else 0.0

    def row_name(self, row: int) -> str:
        """How a message names a row."""
        return self._table.row_name(row)

    def row_of(self, path: str, star_ids: tuple[str | None, ...]) -> int:
        """The row of a file, by its name or by the first id that the table has. Raises RefusedSpectrum."""
        bare = _bare(path)
        if (row := self._by_file.get(bare, self._by_file.get(PurePosixPath(bare).name))) is not None:
            return row
        for star_id in star_ids:
            if star_id is not None and (row := self._by_key.get(key(star_id))) is not None:
                return row
        ids = ", ".join(dict.fromkeys(star_id for star_id in star_ids if star_id)) or "a star without id"
        raise RefusedSpectrum("no_row", f"no row of {ids}", next((one for one in star_ids if one), ""))

    def star_id(self, row: int) -> str:
        """The id of a row's star, "" where it has none."""
        return next((star_id for column in self._ids.values() if (star_id := column[row])), "")

    def is_first(self, row: int) -> bool:
        """Whether a row is the one by which its star is found."""
        star_id = self.star_id(row)
        return not star_id or self._by_key[key(star_id)] == row

    def check_star(self, row: int, star_id: str | None, path: str) -> None:
        """Raise RefusedSpectrum where a row and a file of `star_id` are of different stars."""
        for column in self._ids.values():
            own = column[row]
            if own is not None and star_id is not None and not same_star(own, star_id):
                raise RefusedSpectrum("another_star", f"{path} is of {star_id}, {self.row_name(row)} of {own}")

    def cluster(self, row: int) -> str:
        """The cluster that the table's column of that name gives a row's star, "" for none."""
        column = self._table.columns.get("cluster")
        return "" if column is None else cluster_of({"cluster": meta_value(column.values[row])}) or ""

    def position(self, row: int) -> tuple[float, float]:
        """Right ascension and declination of a row, NaN where they are not known."""
        return self._number("ra", row), self._number("dec", row)

    def parameters(self, row: int, min_snr: float) -> Parameters:
        """The labels of a row with their errors.

        Raises RefusedSpectrum where a label is unknown or impossible, a flag is set, or the S/N too low.
        """
        name = self.row_name(row)
        wrong = [
            f"{label} {column.wrong[row]}" for label, column in self._numbers.items() if row in column.wrong
        ]
        if problem := self._table.damaged.get(row, "; ".join(wrong)):
            raise RefusedSpectrum("labels", f"{name}: {problem}")
        if flagged := self.flags.of(row):
            raise RefusedSpectrum("flags", f"{name}: {flagged}")
        if self._number("snr", row) < min_snr:
            raise RefusedSpectrum("snr", f"{name}: S/N {self._number('snr', row):.3g} in the table")
        try:
            return parameters_of({label: self._number(label, row) for label in NUMBERS}, ())
        except ParameterError as error:
            raise RefusedSpectrum("labels", f"{name}: {error}") from None


def _known(column: list[str | None] | None) -> list[tuple[int, str]]:
    """The rows that have a text, with it."""
    return [(row, text) for row, text in enumerate(column or ()) if text is not None]


def _bare(path: str) -> str:
    """A path without .fits or .fits.gz."""
    return without_ending(path) or path


def _unique(rows: dict[str, int], names: list[tuple[int, str]]) -> dict[str, int]:
    """The rows of names that one row only has: a name that is in several says nothing."""
    count = Counter(_bare(name) for _, name in names)
    return {name: row for name, row in rows.items() if count[name] == 1}

"""The one reader of tables of labels: CSV, ECSV, FITS, VOTable and Parquet, each of them also gzipped.

Column names are read without regard to case, so the survey's own allStar table is understood.
`app.values.identifiers_and_numbers` has the rules for what the cells mean.
"""

from __future__ import annotations

import csv
import gzip
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias, cast

import numpy as np

from app.values.identifiers_and_numbers import (
    ColumnError,
    Numbers,
    Row,
    Values,
    converted,
    identifiers,
    numbers,
)
from model.errors import InputError

ALIASES = {
    "star_id": ("apogee_id", "sdss_id"),
    **{f"{name}_err": (f"e_{name}",) for name in ("teff", "logg", "fe_h")},
}
"""Columns by the names that the survey's own tables give them."""

DELIMITERS = (",", ";", "\t", "|")
CELL_KINDS = "SUOiufb"
"""Of numpy's types, for columns of one value a row."""


class TableError(InputError):
    """A table that cannot be used, or a column of it."""


@dataclass(frozen=True)
class TableColumn:
    """A column's values (N,) as its file has them, and its unit, "" where none is given."""

    values: Values
    unit: str = ""


@dataclass(frozen=True)
class LabelTable:
    """Columns by their names in lower case; `damaged` says what is wrong with rows that cannot be read.

    `names` are all columns of the file, also those that were not read. `numbering` turns a row's index into
    what its file's editor shows: a line, or a row counted from 1.
    """

    path: Path
    names: tuple[str, ...]
    columns: Mapping[str, TableColumn]
    size: int
    damaged: Mapping[Row, str] = field(default_factory=dict)
    numbering: Sequence[str] | None = None

    def __len__(self) -> int:
        return self.size

    def row_name(self, row: Row) -> str:
        """How a message names a row."""
        return f"row {row + 1}" if self.numbering is None else self.numbering[row]

    def identifiers(self, name: str) -> list[str | None] | None:
        """A column of identifiers (N,), None where one is missing; None without the column.

        Raises TableError for floating-point numbers.
        """
        try:
            return identifiers(name, self.columns[name].values) if name in self.columns else None
        except ColumnError as error:
            raise TableError(f"{self.path}: {error}") from None

    def numbers(self, name: str, unit: str | None = None) -> Numbers:
        """A column of numbers (N,) in the service's unit, or in `unit`. Raises TableError."""
        column = self.columns[name]
        try:
            found = numbers(column.values)
            return Numbers(converted(name, found.values, column.unit, unit), found.wrong)
        except ColumnError as error:
            raise TableError(f"{self.path}: column {name}: {error}") from None


Choice: TypeAlias = Callable[[Sequence[str]], Collection[str]]
"""Given a table's column names, those that are to be read."""

Reader: TypeAlias = "Callable[[Path, Choice], LabelTable]"


def read_label_table(path: Path, choose: Choice) -> LabelTable:
    """Read the columns that `choose` picks. Raises TableError for a table that is damaged or ambiguous."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""
    if kind not in READERS:
        endings = ", ".join(READERS)
        raise TableError(f"{path} is no table of labels: its name must end in {endings}, or .gz after it")
    try:
        return READERS[kind](path, choose)
    except InputError:
        raise
    except Exception as error:  # astropy and pyarrow raise nearly anything on damaged tables
        raise TableError(f"the table {path} cannot be read: {error}") from error


def _names(path: Path, written: Sequence[str]) -> list[str]:
    """The columns' names in lower case, the survey's replaced by the service's own."""
    names = [name.strip().lower() for name in written]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise TableError(
            f"{path} has more than one column {', '.join(twice)}: upper and lower case are the same here"
        )
    for name, aliases in ALIASES.items():
        alias = next((alias for alias in aliases if alias in names), None)
        if name not in names and alias is not None:
            names[names.index(alias)] = name
    return names


def _csv(path: Path, choose: Choice) -> LabelTable:
    """Text with a header line; a byte order mark, blank lines and lines that begin with # are passed over."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return _csv_rows(path, cast(IO[str], file), choose)
    except UnicodeDecodeError:
        raise TableError(f"{path} is not UTF-8 text: save it as CSV UTF-8") from None


def _csv_rows(path: Path, file: IO[str], choose: Choice) -> LabelTable:
    first, before = file.readline(), 1
    while first and (not first.strip() or first.startswith("#")):
        first, before = file.readline(), before + 1
    delimiter = next((one for one in DELIMITERS if one in first), ",")
    names = _names(path, next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), []))
    chosen = set(choose(names))
    indices = {name: index for index, name in enumerate(names) if name in chosen}
    cells: dict[str, list[str]] = {name: [] for name in indices}
    lines: list[str] = []
    damaged: dict[Row, str] = {}
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    for row in reader:
        if not any(cell.strip() for cell in row) or row[0].startswith("#"):
            continue
        if len(row) != len(names):
            damaged[len(lines)] = f"has {len(row)} values, the header {len(names)}"
            row = [""] * len(names)
        lines.append(f"line {before + reader.line_num}")
        for name, index in indices.items():
            cells[name].append(row[index])
    columns = {name: TableColumn(values) for name, values in cells.items()}
    return LabelTable(path, tuple(names), columns, len(lines), damaged, lines)


def _astropy(kind: str) -> Reader:
    def read(path: Path, choose: Choice) -> LabelTable:
        from astropy.table import Table  # half a second, where it is needed only
        from astropy.utils.exceptions import AstropyWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            table = Table.read(path, format=kind)
        names = _names(path, table.colnames)
        chosen = set(choose(names))
        columns = {
            name: TableColumn(np.ma.asarray(column), "" if column.unit is None else str(column.unit))
            for name, column in zip(names, table.itercols(), strict=True)
            if name in chosen and getattr(column, "ndim", 0) == 1 and _kind(column) in CELL_KINDS
        }
        return LabelTable(path, tuple(names), columns, len(table))

    return read


def _kind(column: object) -> str:
    """Numpy's kind of a column's type, "?" for those of coordinates and times."""
    return str(getattr(getattr(column, "dtype", None), "kind", "?"))


def _fits(path: Path, choose: Choice) -> LabelTable:
    """The table of labels of a FITS file; columns of vectors, which a survey's table has, are not read."""
    from astropy.io import fits

    with fits.open(path, memmap=path.suffix.lower() != ".gz") as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))]
        of_labels = [hdu for hdu in tables if "teff" in {name.lower() for name in hdu.columns.names}]
        if len(of_labels) > 1:
            several = ", ".join(hdu.name or "without a name" for hdu in of_labels)
            raise TableError(f"{path} has several tables of labels ({several}): keep one")
        if not tables:
            raise TableError(f"{path} has no table")
        hdu = (of_labels or tables)[0]
        names = _names(path, hdu.columns.names)
        chosen, found = set(choose(names)), {}
        for name, column in zip(names, hdu.columns, strict=True):
            if name not in chosen:
                continue
            values = hdu.data[column.name]
            if values.ndim != 1 or values.dtype.kind not in CELL_KINDS:
                continue
            plain = np.array(values)  # a copy: the file is closed
            plain = plain.astype(plain.dtype.newbyteorder("="))
            if column.null not in (None, "") and plain.dtype.kind in "iu":
                plain = np.ma.masked_equal(plain, int(column.null))
            found[name] = TableColumn(plain, column.unit or "")
        return LabelTable(path, tuple(names), found, len(hdu.data))


def _parquet(path: Path, choose: Choice) -> LabelTable:
    try:
        from pyarrow import parquet
    except ImportError:
        raise TableError("a Parquet table needs pip install 'chemtwin[bulk]'") from None
    written = parquet.read_schema(path).names
    names = _names(path, written)
    chosen = set(choose(names))
    table = parquet.read_table(
        path, columns=[one for one, name in zip(written, names, strict=True) if name in chosen]
    )
    renamed, units = dict(zip(written, names, strict=True)), _astropy_units(table.schema.metadata or {})
    columns = {}
    for field_, column in zip(table.schema, table.columns, strict=True):
        unit = (field_.metadata or {}).get(b"unit", b"").decode() or units.get(field_.name, "")
        if str(field_.type).startswith(("int", "uint", "float", "double", "halffloat")):
            plain = np.ma.array(column.fill_null(0).to_numpy(), mask=column.is_null().to_numpy())
            columns[renamed[field_.name]] = TableColumn(plain, unit)
        elif field_.type.num_fields == 0:
            columns[renamed[field_.name]] = TableColumn(column.to_pylist(), unit)
    return LabelTable(path, tuple(names), columns, table.num_rows)


def _astropy_units(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """The units by column that astropy writes into the metadata of a Parquet file."""
    if b"table_meta_yaml" not in metadata:
        return {}
    from astropy.table.meta import get_header_from_yaml

    header = get_header_from_yaml(metadata[b"table_meta_yaml"].decode().split("\n"))
    return {column["name"]: str(column.get("unit", "")) for column in header["datatype"]}


READERS: dict[str, Reader] = {
    ".csv": _csv,
    ".ecsv": _astropy("ascii.ecsv"),
    ".fits": _fits,
    ".fit": _fits,
    ".vot": _astropy("votable"),
    ".xml": _astropy("votable"),
    ".parquet": _parquet,
}

"""A backup: a store file that is read and never written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from index.errors import StoreError
from index.stores.sqlite import SCHEMA_VERSION
from index.stores.star import STAR_TABLE, Star

FORMER_NAMES = {"extra": "others"}
"""The names of columns in files of versions 2 to 4."""


def read_backup(path: Path) -> Iterator[tuple[Star, bytes | None]]:
    """Every row of a store file with its star's spectrum, in the order of ids and models.

    SQLite opens the file as immutable: it takes no lock and makes no file beside it. So the file and its folder
    may be read-only, and a store of an earlier version stays of that version.

    Parameters
    ----------
    path
        A store file, of this version or an earlier one.

    Yields
    ------
    star, spectrum
        A row, and the bytes of the spectrum or None.

    Raises
    ------
    StoreError
        The file cannot be read, is not a store, or has a write-ahead log, whose rows would be missed.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{path} is a store in use, or one that was not closed: {log.name} is beside it. "
            f"Make a backup of it first: chemtwin catalogue backup FILE --store {path}"
        )
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if not 1 <= version <= SCHEMA_VERSION:
                raise StoreError(f"{path} is not a store of version 1 to {SCHEMA_VERSION}")
            for *row, spectrum in connection.execute(_rows_query(connection)):
                yield STAR_TABLE.unpack(row), spectrum
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def _rows_query(connection: sqlite3.Connection) -> str:
    """The query for all rows, each with its spectrum; what the file's version does not have yet is NULL."""
    known = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('stars')")}
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    stored = [name if name in known else FORMER_NAMES.get(name) for name in STAR_TABLE.names]
    columns = ", ".join(f"stars.{name}" if name in known else "NULL" for name in stored)
    spectra = "LEFT JOIN spectra ON spectra.star_id = stars.star_id"
    spectrum, joined = ("spectrum", spectra) if "spectra" in tables else ("NULL", "")
    order = "ORDER BY stars.star_id, stars.model"
    return f"SELECT {columns}, {spectrum} FROM stars {joined} WHERE NOT deleted {order}"

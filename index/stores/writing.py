"""A write transaction of a store, in the SQL that SQLite and PostgreSQL share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol, TypeVar

from index.errors import StoreError
from index.stores.star import Star, Table

Row = tuple[Any, ...]

Item = TypeVar("Item")

BLOCK = 500
"""Ids in one statement, and rows fetched at once."""

LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM stars"


class Connection(Protocol):
    """A connection to the database; a statement has `?` where its values go."""

    def execute(self, query: str, values: Sequence[Any] = ..., /) -> Any:
        """Run a statement. Returns a cursor as of Python's database interface (PEP 249)."""

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run a statement with the values of each row."""


class Writing:
    """A write transaction under way."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self.connection, self._table = connection, table
        ((self._seq,),) = connection.execute(LAST_SEQ).fetchall()

    def live(self, star_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """By star id, those of these that are there: the seq of each model's row."""
        found: dict[str, dict[str, int]] = {}
        for part in blocks(star_ids):
            query = f"SELECT star_id, model, seq FROM stars WHERE star_id IN ({marks(part)}) AND NOT deleted"
            for star_id, model, seq in self.connection.execute(query, part).fetchall():
                found.setdefault(star_id, {})[model] = seq
        return found

    def latest(self, star_ids: Sequence[str]) -> dict[str, Star]:
        """By star id, the row that was written last of each of these that are there and not damaged."""
        found: dict[str, Star] = {}
        for part in blocks(star_ids):
            query = (
                f"SELECT {', '.join(self._table.names)} FROM stars "
                f"WHERE star_id IN ({marks(part)}) AND NOT deleted ORDER BY seq"
            )
            for row in self.connection.execute(query, part).fetchall():
                with suppress(StoreError):  # a damaged row can still be replaced
                    found[row[0]] = self._table.unpack(row)
        return found

    def with_spectrum(self, star_ids: Sequence[str]) -> set[str]:
        """Those of these stars that have a stored spectrum."""
        found: set[str] = set()
        for part in blocks(star_ids):
            query = f"SELECT star_id FROM spectra WHERE star_id IN ({marks(part)})"
            found.update(star_id for (star_id,) in self.connection.execute(query, part).fetchall())
        return found

    def insert(self, stars: Iterable[Star]) -> None:
        """Write rows; one of the same star and model is replaced."""
        names = self._table.names
        rows = [(seq, *self._table.pack(star)) for seq, star in enumerate(stars, self._seq + 1)]
        self.connection.executemany(
            f"INSERT INTO stars (seq, deleted, {', '.join(names)}) VALUES (?, false, {marks(names)}) "
            "ON CONFLICT (star_id, model) DO UPDATE SET seq = EXCLUDED.seq, deleted = false, "
            + ", ".join(f"{name} = EXCLUDED.{name}" for name in names),
            rows,
        )
        self._seq += len(rows)

    def delete(self, condition: str, values: Sequence[Any]) -> int:
        """Mark the rows that meet a condition as deleted. Returns how many."""
        found: int = self.connection.execute(
            f"UPDATE stars SET deleted = true, seq = ? + old.number, "
            f"{', '.join(f'{name} = NULL' for name in self._table.cleared)} "
            "FROM (SELECT star_id, model, row_number() OVER (ORDER BY star_id, model) AS number "
            f"FROM stars WHERE NOT deleted AND {condition}) AS old "
            "WHERE stars.star_id = old.star_id AND stars.model = old.model",
            (self._seq, *values),
        ).rowcount
        self._seq += found
        return found

    def store_spectra(self, spectra: Mapping[str, bytes | None]) -> None:
        """Store these spectra, and delete those of the stars without."""
        for part in blocks(spectra):
            self.connection.execute(f"DELETE FROM spectra WHERE star_id IN ({marks(part)})", part)
        given = [(star_id, spectrum) for star_id, spectrum in spectra.items() if spectrum is not None]
        self.connection.executemany("INSERT INTO spectra VALUES (?, ?)", given)


def blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of at most `BLOCK` items."""
    remaining = iter(items)
    while block := list(islice(remaining, BLOCK)):
        yield block


def marks(values: Sequence[Any]) -> str:
    """As many question marks as there are values."""
    return ", ".join("?" * len(values))

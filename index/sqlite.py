"""The store in one SQLite file.

Write-ahead log with synchronous=FULL: a transaction that has returned is on disk.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.rows import BRIEF, COLUMNS, Content, pack, unpack
from index.sky import Box
from index.store import PAST_IDS, Brief, Change, Kept, Rows, Star, Store, StoreError

SCHEMA_VERSION = 3
STARS = """
CREATE TABLE stars (
    star_id TEXT NOT NULL,
    model TEXT NOT NULL,
    seq INTEGER NOT NULL UNIQUE,
    deleted INTEGER NOT NULL DEFAULT 0,
    latent BLOB, covariance BLOB,
    teff REAL, logg REAL, fe_h REAL,
    snr REAL, chi2 REAL, masked_fraction REAL, in_domain INTEGER, warnings TEXT,
    ra REAL, dec REAL, meta TEXT, others TEXT,
    PRIMARY KEY (star_id, model)
) WITHOUT ROWID
"""
SPECTRA = "CREATE TABLE spectra (star_id TEXT PRIMARY KEY, spectrum BLOB NOT NULL)"
OPENINGS = "CREATE TABLE openings (number INTEGER PRIMARY KEY, token TEXT NOT NULL, seq INTEGER NOT NULL)"
POSITIONS = "CREATE INDEX IF NOT EXISTS stars_by_position ON stars (dec, ra) WHERE dec IS NOT NULL"
MARKS = ", ".join("?" * len(COLUMNS.split(",")))
DELETE = (
    "UPDATE stars SET deleted = 1, seq = ?, latent = NULL, covariance = NULL, meta = NULL, others = NULL, "
    "warnings = NULL, ra = NULL, dec = NULL WHERE star_id = ? AND model = ?"
)
BLOCK = 500


class SqliteStore(Store):
    """Stars in one SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open or create the store; one of an earlier version becomes one of this.

        Raises StoreError for a file that is damaged or not a store.
        """
        self.path, self.name = path, str(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open the store {path}: {error}. It was left as it is.") from error
        self._write_lock = threading.Lock()
        self._idle: deque[sqlite3.Connection] = deque()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if tables and not 1 <= version <= SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} is not a store of version 1 to {SCHEMA_VERSION}. It was left as it is."
            )
        if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
            raise StoreError(f"{self.path} is on a file system that allows no write-ahead log")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _prepare(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            if version < SCHEMA_VERSION:
                if version:
                    self._writer.execute("ALTER TABLE stars RENAME TO old")
                self._writer.execute(STARS)
                self._writer.execute(SPECTRA)
                self._writer.execute(OPENINGS)
                if version:
                    self._writer.execute(
                        f"INSERT INTO stars ({COLUMNS}, seq, deleted) "
                        f"SELECT {_columns_of(version)}, seq, deleted FROM old"
                    )
                    self._writer.execute("DROP TABLE old")
                self._writer.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._writer.execute(POSITIONS)  # stores of version 3 were written before there was one
            self._writer.execute(
                "INSERT INTO openings (token, seq) SELECT ?, coalesce(max(seq), 0) FROM stars",
                (secrets.token_hex(16),),
            )
            self._writer.execute("COMMIT")
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()
        self._writer.close()

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, Iterator[int]]]:
        """A write transaction and the seqs to take; on disk when the block ends, undone if it raises."""
        with self._write_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    (last,) = self._writer.execute("SELECT coalesce(max(seq), 0) FROM stars").fetchone()
                    yield self._writer, iter(range(last + 1, 2**62))
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"cannot write to the store {self.path}: {error}", str(error)) from error

    def _read(self, query: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Rows, by a connection that no other thread is using: readers do not wait for each other."""
        try:
            reader = self._idle_reader()
            try:
                return reader.execute(query, values).fetchall()
            finally:
                self._idle.append(reader)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _cursor(self, query: str, values: Sequence[Any] | dict[str, Any]) -> Iterator[sqlite3.Cursor]:
        try:
            reader = self._idle_reader()
            try:
                with closing(reader.execute(query, values)) as cursor:
                    yield cursor
            finally:
                self._idle.append(reader)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _idle_reader(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _unreadable(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"cannot read the store {self.path}: {error}", str(error))

    def upsert(self, stars: Sequence[Star], spectra: Sequence[bytes | None] | None = None) -> list[bool]:
        replaced = []
        with self._transaction() as (connection, seqs):
            for star, spectrum in zip(stars, spectra or [None] * len(stars), strict=True):
                there = _live_models(connection, star.star_id)
                replaced.append(bool(there))
                for model in there - {star.model}:
                    connection.execute(DELETE, (next(seqs), star.star_id, model))
                _insert(connection, next(seqs), star)
                _keep(connection, star.star_id, spectrum)
        return replaced

    def delete(self, star_id: str) -> bool:
        with self._transaction() as (connection, seqs):
            models = _live_models(connection, star_id)
            for model in models:
                connection.execute(DELETE, (next(seqs), star_id, model))
            _keep(connection, star_id, None)
        return bool(models)

    def get(self, star_ids: Sequence[str], model: str) -> dict[str, Star]:
        rows = self._of_ids(COLUMNS, star_ids, "")
        return {row[0]: unpack(row) for row in sorted(rows, key=lambda row: (row[1] == model, row[1]))}

    def briefs(self, star_ids: Sequence[str], model: str) -> dict[str, Brief]:
        rows = self._of_ids(BRIEF, star_ids, "AND model = ?", model)
        briefs = map(Brief._make, rows)
        return {brief.star_id: brief._replace(in_domain=bool(brief.in_domain)) for brief in briefs}

    def _of_ids(self, columns: str, star_ids: Sequence[str], more: str, *values: str) -> list[tuple[Any, ...]]:
        """Columns of the rows of these stars that are there, and meet `more`."""
        rows = []
        for start in range(0, len(star_ids), BLOCK):
            part = star_ids[start : start + BLOCK]
            marks = ", ".join("?" * len(part))
            query = f"SELECT {columns} FROM stars WHERE star_id IN ({marks}) AND deleted = 0 {more}"
            rows += self._read(query, (*part, *values))
        return rows

    def page(self, after: str, limit: int, model: str, prefix: str = "") -> list[Star]:
        ids = [
            star_id
            for (star_id,) in self._read(
                "SELECT DISTINCT star_id FROM stars WHERE deleted = 0 "
                # one lower bound: of two, SQLite would look for the rows by the first alone
                "AND star_id >= ? AND star_id < ? AND star_id != ? ORDER BY star_id LIMIT ?",
                (max(after, prefix), prefix + PAST_IDS, after, limit),
            )
        ]
        found = self.get(ids, model)
        return [found[star_id] for star_id in ids if star_id in found]

    def positions(self, box: Box) -> Generator[list[tuple[str, float, float]]]:
        query = (
            "SELECT star_id, ra, dec FROM stars WHERE dec BETWEEN ? AND ? "
            "AND (ra BETWEEN ? AND ? OR ra BETWEEN ? AND ?)"
        )
        with self._cursor(query, box) as cursor:
            while block := cursor.fetchmany(BLOCK):
                yield block

    def spectrum(self, star_id: str) -> bytes | None:
        rows = self._read("SELECT spectrum FROM spectra WHERE star_id = ?", (star_id,))
        return rows[0][0] if rows else None

    def last_seq(self) -> int:
        return int(self._read("SELECT coalesce(max(seq), 0) FROM stars")[0][0])

    def stars_by_model(self) -> dict[str, int]:
        return dict(self._read("SELECT model, count(*) FROM stars WHERE deleted = 0 GROUP BY model"))

    def damage(self) -> str | None:
        ((first, *_),) = self._read("PRAGMA quick_check(1)")
        return None if first == "ok" else str(first).splitlines()[-1]

    def moment(self) -> tuple[str, int]:
        """This moment of the store's history: the token of its latest opening, and the last seq."""
        query = (
            "SELECT token, (SELECT coalesce(max(seq), 0) FROM stars) FROM openings ORDER BY number DESC LIMIT 1"
        )
        ((token, seq),) = self._read(query)
        return token, seq

    def remembers(self, token: str, seq: int) -> bool:
        """Whether a moment belongs to this store's history; not so if an older copy was put in its place."""
        query = (
            "SELECT (SELECT coalesce(max(seq), 0) FROM stars) >= :seq AND NOT EXISTS "
            "(SELECT 1 FROM openings later WHERE later.number > openings.number AND later.seq < :seq) "
            "FROM openings WHERE token = :token"
        )
        return self._read(query, {"seq": seq, "token": token}) == [(1,)]

    def changes(self, model: str, after: int, limit: int = 50_000) -> list[Change]:
        query = (
            "SELECT seq, star_id, latent, teff, logg, fe_h, snr, in_domain FROM stars "
            "WHERE seq > ? AND model = ? ORDER BY seq LIMIT ?"
        )
        return [
            Change(
                seq, star_id, _floats(latent), teff, logg, fe_h, np.nan if snr is None else snr, bool(in_domain)
            )
            for seq, star_id, latent, teff, logg, fe_h, snr, in_domain in self._read(
                query, (after, model, limit)
            )
        ]

    def waiting(self, model: str, after: str, limit: int) -> list[Kept]:
        query = (
            f"SELECT stars.{COLUMNS.replace(', ', ', stars.')}, stars.seq, spectrum, max(stars.seq) "
            "FROM spectra JOIN stars USING (star_id) "
            "WHERE deleted = 0 AND star_id > ? AND NOT EXISTS (SELECT 1 FROM stars own "
            "WHERE own.star_id = spectra.star_id AND own.model = ? AND own.deleted = 0) "
            "GROUP BY star_id ORDER BY star_id LIMIT ?"
        )
        rows = self._read(query, (after, model, limit))
        return [Kept(unpack(row[:-3]), row[-3], row[-2]) for row in rows]

    def add_beside(self, stars: Sequence[Star], seqs: Sequence[int]) -> int:
        written = 0
        with self._transaction() as (connection, free):
            for star, seq in zip(stars, seqs, strict=True):
                source = "SELECT 1 FROM stars WHERE star_id = ? AND seq = ? AND deleted = 0"
                if connection.execute(source, (star.star_id, seq)).fetchone():
                    _insert(connection, next(free), star)
                    written += 1
        return written

    def drop_other_models(self, model: str) -> int:
        with self._transaction() as (connection, seqs):
            rows = connection.execute(
                "SELECT star_id, model FROM stars old WHERE deleted = 0 AND model != ? AND EXISTS (SELECT 1 "
                "FROM stars own WHERE own.star_id = old.star_id AND own.model = ? AND own.deleted = 0)",
                (model, model),
            ).fetchall()
            connection.executemany(DELETE, ((next(seqs), *row) for row in rows))
        return len(rows)

    def dump(self) -> Iterator[tuple[Star, bytes | None]]:
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN")
                yield from _dump(connection)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    @contextmanager
    def snapshot(self) -> Iterator[Rows]:
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN")
                yield partial(_rows, connection)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def restore(
        self, rows: Iterable[tuple[Star, bytes | None]], before: Callable[[], None] = lambda: None
    ) -> int:
        written = Content()
        with self._transaction() as (connection, seqs):
            before()
            there = connection.execute("SELECT star_id, model FROM stars WHERE deleted = 0").fetchall()
            connection.executemany(DELETE, ((next(seqs), *row) for row in there))
            connection.execute("DELETE FROM spectra")
            for star, spectrum in written.counting(rows):
                _insert(connection, next(seqs), star)
                _keep(connection, star.star_id, spectrum)
            written.check(_dump(connection), self.name)
        return written.rows


def _columns_of(version: int) -> str:
    """COLUMNS as a table `stars` of this version of the store has them."""
    columns = COLUMNS if version > 1 else COLUMNS.replace("others", "'{}'")
    return columns if version > 2 else columns.replace("model", "coalesce(model, '')")


def rows_query(version: int) -> str:
    """The query for all rows, each COLUMNS and the spectrum or NULL, of a store of this version."""
    if version < 3:
        return f"SELECT {_columns_of(version)}, NULL FROM stars WHERE deleted = 0 ORDER BY star_id"
    return (
        f"SELECT stars.{COLUMNS.replace(', ', ', stars.')}, spectrum FROM stars "
        "LEFT JOIN spectra USING (star_id) WHERE deleted = 0 ORDER BY star_id, model"
    )


def _dump(connection: sqlite3.Connection) -> Iterator[tuple[Star, bytes | None]]:
    for *values, spectrum in connection.execute(rows_query(SCHEMA_VERSION)):
        yield unpack(values), spectrum


def _rows(connection: sqlite3.Connection, model: str | None) -> Iterator[Star]:
    query = (
        f"SELECT {COLUMNS} FROM stars WHERE deleted = 0 AND model = coalesce(?, model) ORDER BY star_id, model"
    )
    for row in connection.execute(query, (model,)):
        yield unpack(row)


def _live_models(connection: sqlite3.Connection, star_id: str) -> set[str]:
    rows = connection.execute("SELECT model FROM stars WHERE star_id = ? AND deleted = 0", (star_id,))
    return {model for (model,) in rows}


def _insert(connection: sqlite3.Connection, seq: int, star: Star) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO stars (seq, deleted, {COLUMNS}) VALUES (?, 0, {MARKS})", (seq, *pack(star))
    )


def _keep(connection: sqlite3.Connection, star_id: str, spectrum: bytes | None) -> None:
    if spectrum is None:
        connection.execute("DELETE FROM spectra WHERE star_id = ?", (star_id,))
    else:
        connection.execute("INSERT OR REPLACE INTO spectra VALUES (?, ?)", (star_id, spectrum))


def _floats(blob: bytes | None) -> NDArray[np.float32] | None:
    return None if blob is None else np.frombuffer(blob, dtype="<f4")

"""The rows: embedded stars in SQLite, the truth that every search index is rebuilt from.

Write-ahead log with synchronous=FULL: a transaction that has returned is on disk. Each write takes the next
`seq`, in the order in which transactions commit, so that a reader of this or another process catches up by
asking for everything after the last `seq` it has seen. A deleted star leaves its id and seq behind.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE stars (
    star_id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL UNIQUE,
    deleted INTEGER NOT NULL DEFAULT 0,
    model TEXT, latent BLOB, covariance BLOB,
    teff REAL, logg REAL, fe_h REAL,
    snr REAL, chi2 REAL, masked_fraction REAL, in_domain INTEGER, warnings TEXT,
    ra REAL, dec REAL, meta TEXT, others TEXT
) WITHOUT ROWID;
"""
FROM_1 = "ALTER TABLE stars ADD COLUMN others TEXT"
"""What a store of version 1, whose stars had no further parameters, lacks."""

COLUMNS = (
    "star_id, model, latent, covariance, teff, logg, fe_h, snr, chi2, masked_fraction, in_domain, warnings, "
    "ra, dec, meta, others"
)


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which file and why."""


@dataclass(frozen=True)
class Star:
    """An embedded star: `latent` (D,) float32, `covariance` (D, D) float32 or None, and what came with it.

    `others` are its parameters beyond teff, logg and fe_h.
    """

    star_id: str
    model: str
    latent: NDArray[np.float32]
    covariance: NDArray[np.float32] | None
    teff: float
    logg: float
    fe_h: float
    snr: float | None = None
    chi2: float | None = None
    masked_fraction: float = 0.0
    in_domain: bool = True
    warnings: tuple[str, ...] = ()
    ra: float | None = None
    dec: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What an index needs to know of one write: a star that is now there, or (latent None) no longer."""

    seq: int
    star_id: str
    model: str | None
    latent: NDArray[np.float32] | None
    teff: float
    logg: float
    fe_h: float
    snr: float


class Store:
    """Stars by id in one SQLite file. Safe to use from several threads and several processes."""

    def __init__(self, path: Path) -> None:
        """Open or create the store; one of version 1 becomes one of version 2.

        Raises StoreError for a file that is damaged or not a store.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer, self._reader = self._connect(), self._connect()
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open the store {path}: {error}. It was left as it is.") from error
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and connection.execute("PRAGMA user_version").fetchone() not in ((1,), (SCHEMA_VERSION,)):
            raise StoreError(
                f"{self.path} is not a store of version 1 or {SCHEMA_VERSION}. It was left as it is."
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
                self._writer.execute(SCHEMA if version == 0 else FROM_1)
                self._writer.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        finally:
            self._writer.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._writer.close()

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A write transaction and the last seq taken; on disk when the block ends, undone if it raises."""
        with self._write_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    (last,) = self._writer.execute("SELECT coalesce(max(seq), 0) FROM stars").fetchone()
                    yield self._writer, last
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"cannot write to the store {self.path}: {error}") from error

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._read_lock:
            try:
                return self._reader.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"cannot read the store {self.path}: {error}") from error

    def upsert(self, stars: Sequence[Star]) -> list[bool]:
        """Write stars in one transaction, on disk on return. Says of each whether it replaced another."""
        replaced = []
        with self._transaction() as (connection, last):
            for seq, star in enumerate(stars, start=last + 1):
                old = connection.execute(
                    "SELECT deleted FROM stars WHERE star_id = ?", (star.star_id,)
                ).fetchone()
                replaced.append(old == (0,))
                connection.execute(
                    f"INSERT OR REPLACE INTO stars (seq, deleted, {COLUMNS}) VALUES (?, 0{', ?' * 16})",
                    (seq, *_row(star)),
                )
        return replaced

    def delete(self, star_id: str) -> bool:
        """Delete a star, on disk on return. False if there was none."""
        with self._transaction() as (connection, last):
            cursor = connection.execute(
                "UPDATE stars SET deleted = 1, seq = ?, model = NULL, latent = NULL, covariance = NULL, "
                "meta = NULL, others = NULL, warnings = NULL, ra = NULL, dec = NULL "
                "WHERE star_id = ? AND deleted = 0",
                (last + 1, star_id),
            )
            return cursor.rowcount == 1

    def get(self, star_ids: Sequence[str]) -> dict[str, Star]:
        """The stars of these ids that exist."""
        found = {}
        for start in range(0, len(star_ids), 500):
            part = star_ids[start : start + 500]
            marks = ", ".join("?" * len(part))
            query = f"SELECT {COLUMNS} FROM stars WHERE deleted = 0 AND star_id IN ({marks})"
            found.update({row[0]: _star(row) for row in self._read(query, part)})
        return found

    def page(self, after: str, limit: int) -> list[Star]:
        """At most `limit` stars whose id comes after `after`, in the order of their ids."""
        query = f"SELECT {COLUMNS} FROM stars WHERE deleted = 0 AND star_id > ? ORDER BY star_id LIMIT ?"
        return [_star(row) for row in self._read(query, (after, limit))]

    def last_seq(self) -> int:
        """The seq of the latest write by any process."""
        return int(self._read("SELECT coalesce(max(seq), 0) FROM stars")[0][0])

    def changes(self, after: int, limit: int = 50_000) -> list[Change]:
        """At most `limit` writes after seq `after`, oldest first; a star written twice appears once, last."""
        columns = "seq, star_id, model, latent, teff, logg, fe_h, snr"
        query = f"SELECT {columns} FROM stars WHERE seq > ? ORDER BY seq LIMIT ?"
        return [
            Change(seq, star_id, model, _floats(latent), teff, logg, fe_h, np.nan if snr is None else snr)
            for seq, star_id, model, latent, teff, logg, fe_h, snr in self._read(query, (after, limit))
        ]


def _floats(blob: bytes | None) -> NDArray[np.float32] | None:
    return None if blob is None else np.frombuffer(blob, dtype="<f4")


def _row(star: Star) -> tuple[Any, ...]:
    covariance = None
    if star.covariance is not None:
        upper = np.triu_indices(len(star.latent))
        covariance = star.covariance[upper].astype("<f4").tobytes()
    return (
        star.star_id,
        star.model,
        star.latent.astype("<f4").tobytes(),
        covariance,
        star.teff,
        star.logg,
        star.fe_h,
        star.snr,
        star.chi2,
        star.masked_fraction,
        int(star.in_domain),
        json.dumps(star.warnings),
        star.ra,
        star.dec,
        json.dumps(star.meta),
        json.dumps(star.others),
    )


def _star(row: tuple[Any, ...]) -> Star:
    star_id, model, latent, packed, teff, logg, fe_h, snr, chi2, masked, in_domain, warnings, *rest = row
    ra, dec, meta, others = rest
    vector = np.frombuffer(latent, dtype="<f4")
    covariance = None
    if packed is not None:
        covariance = np.zeros((len(vector), len(vector)), dtype=np.float32)
        covariance[np.triu_indices(len(vector))] = np.frombuffer(packed, dtype="<f4")
        covariance = covariance + np.triu(covariance, 1).T
    return Star(
        star_id=star_id,
        model=model,
        latent=vector,
        covariance=covariance,
        teff=teff,
        logg=logg,
        fe_h=fe_h,
        snr=snr,
        chi2=chi2,
        masked_fraction=masked,
        in_domain=bool(in_domain),
        warnings=tuple(json.loads(warnings)),
        ra=ra,
        dec=dec,
        meta=json.loads(meta),
        others={} if others is None else json.loads(others),
    )

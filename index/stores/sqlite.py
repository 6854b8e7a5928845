"""The store in one SQLite file.

Write-ahead log with synchronous=FULL: a transaction that has returned is on disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from index.errors import StoreError
from index.stores.schema import migrations, new_tables, version
from index.stores.sql_store import Store

SCHEMA_VERSION = version("sqlite")


class SqliteStore(Store):
    """Stars in one SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open or create the store; one of an earlier version becomes one of this.

        Raises StoreError for a file that is damaged or not a store.
        """
        self.path, self.name, self.file_name = path, str(path), path.name
        self._write_lock = threading.Lock()
        self._idle: deque[sqlite3.Connection] = deque()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            with self._committing():
                self._prepare()
        except (sqlite3.Error, OSError) as error:
            message = f"cannot open the store {path}: {error}. It was left as it is."
            raise StoreError(message, str(error), _is_damage(error)) from error
        self._file = _file_of(path)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if tables and not 1 <= found <= SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} is not a store of version 1 to {SCHEMA_VERSION}. It was left as it is."
            )
        if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
            raise StoreError(f"{self.path} is on a file system that allows no write-ahead log")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _prepare(self) -> None:
        (found,) = self._writer.execute("PRAGMA user_version").fetchone()
        later = [text for number, text in migrations("sqlite").items() if number > found]
        for statement in _statements("".join(later)) if found else new_tables(self.table, "sqlite"):
            self._writer.execute(statement)
        self._writer.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._record_opening(self._writer)

    def close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()
        self._writer.close()

    def damage(self) -> str | None:
        ((first, *_),) = self._read("PRAGMA quick_check(1)")
        return None if first == "ok" else str(first).splitlines()[-1]

    @contextmanager
    def _committing(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._write_lock, self._committing():
                if _file_of(self.path) != self._file:  # what is written to the old one would be lost
                    raise StoreError(
                        f"{self.path} was moved or replaced while it was open: start again",
                        "its file was moved or replaced: the service must be started again",
                    )
                yield self._writer
        except sqlite3.Error as error:
            raise StoreError(f"cannot write to the store {self.path}: {error}", str(error)) from error

    @contextmanager
    def _reading(self, streaming: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection that no other thread is using: readers do not wait for each other."""
        try:
            try:
                reader = self._idle.pop()
            except IndexError:
                reader = self._connect()
            try:
                yield reader
            finally:
                self._idle.append(reader)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN")
                yield connection
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: sqlite3.Error) -> StoreError:
        message = f"cannot read the store {self.path}: {error}"
        return StoreError(message, str(error), _is_damage(error))


def _is_damage(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _file_of(path: Path) -> tuple[int, int] | None:
    """What tells the file at `path` from any other; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _statements(text: str) -> Iterator[str]:
    """The statements of a file, one by one: `executescript` would commit before the first."""
    statement = ""
    for line in text.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

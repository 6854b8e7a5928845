"""The store in a PostgreSQL database, for several instances on several hosts.

Writers take turns by locking the one row of `chemtwin`. The next writer gets the lock once the commit of the
one before is visible, so seqs follow the order of commits. With synchronous_commit on, a transaction that has
returned is on the server's disk.
"""

from __future__ import annotations

import queue
import re
import select
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from index.errors import StoreError
from index.stores.schema import migrations, new_tables, version
from index.stores.sql_store import Store
from index.stores.writing import BLOCK, Connection, Row

SCHEMA_VERSION = version("postgres")
TABLES = ("stars", "spectra", "openings", "chemtwin")
URL = re.compile(r"postgres(ql)?://([^/?#@]*@)?[^@]*")
ADVISORY = 0x6368656D7477696E
CONNECTIONS = 10
SESSION = """
SET synchronous_commit = on; SET default_transaction_isolation = 'read committed';
SET lock_timeout = '30s'; SET jit = off
"""
"""Read committed: once a writer has the lock, its next statement sees what the writer before has committed."""


class PostgresConnection:
    """A connection that takes statements as a store writes them."""

    def __init__(self, conninfo: dict[str, Any]) -> None:
        self.raw = psycopg.connect(**conninfo, autocommit=True)
        self.raw.execute(SESSION)

    def execute(self, query: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        """Run a statement; values come back from it in binary."""
        return self.raw.execute(_format(query), values, binary=True)

    def executemany(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement with the values of each row, sent together."""
        self.raw.cursor().executemany(_format(query), rows)

    def usable(self) -> bool:
        """Whether an idle connection is open: the server sends nothing unasked but its end."""
        if self.raw.closed:
            return False
        poll = select.poll()
        poll.register(self.raw.fileno(), select.POLLIN)
        return not poll.poll(0)


class PostgresStore(Store):
    """Stars in one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        """Connect, and create the tables if the database has none; those of an earlier version become these.

        Raises StoreError for a server that cannot be reached, and for a database with tables of these names
        that are not a store.
        """
        self._conninfo = known = _conninfo(url)
        where = f"{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
        self.name, self.file_name = f"postgresql://{where}", quote(where, safe="")
        self._closed = threading.Event()
        self._slots: queue.LifoQueue[PostgresConnection | None] = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self._slots.put(None)
        try:
            with self._errors("open"), self._pooled() as connection, connection.raw.transaction():
                self._prepare(connection)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _pooled(self) -> Iterator[PostgresConnection]:
        """One of at most CONNECTIONS that are shared; a broken one is replaced. Raises psycopg.Error."""
        connection = self._slots.get()
        try:
            if self._closed.is_set():
                raise psycopg.InterfaceError("it was closed")
            if connection is not None and not connection.usable():
                connection.raw.close()
                connection = None
            if connection is None:
                connection = PostgresConnection(self._conninfo)
            yield connection
        finally:
            self._slots.put(connection)

    def _prepare(self, connection: PostgresConnection) -> None:
        connection.execute("SELECT pg_advisory_xact_lock(?)", (ADVISORY,))
        there = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
            "AND relname = ANY(?)",
            (list(TABLES),),
        ).fetchall()
        if not there:
            for statement in new_tables(self.table, "postgres"):
                connection.execute(statement)
            connection.execute("CREATE TABLE chemtwin (version integer NOT NULL)")
            connection.execute("INSERT INTO chemtwin VALUES (?)", (SCHEMA_VERSION,))
        elif ("chemtwin",) not in there:
            raise StoreError(
                f"{self.name} has a table {there[0][0]} that is not a store's. It was left as it is."
            )
        else:
            self._migrate(connection)
        self._record_opening(connection)

    def _migrate(self, connection: PostgresConnection) -> None:
        versions = connection.execute("SELECT version FROM chemtwin").fetchall()
        if len(versions) != 1 or not 1 <= versions[0][0] <= SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} is not a store of version 1 to {SCHEMA_VERSION}. It was left as it is."
            )
        for number, text in migrations("postgres").items():
            if number > versions[0][0]:
                connection.raw.execute(text.encode())
                connection.execute("UPDATE chemtwin SET version = ?", (number,))

    def close(self) -> None:
        self._closed.set()
        connections = [self._slots.get() for _ in range(CONNECTIONS)]
        for connection in connections:
            if connection is not None:
                connection.raw.close()
            self._slots.put(None)

    def damage(self) -> str | None:
        rows = self._read(
            "SELECT model FROM stars WHERE NOT deleted GROUP BY model HAVING count(latent) < count(*) "
            "OR min(octet_length(latent)) < max(octet_length(latent))"
        )
        return f"not every row by {rows[0][0]} has a latent of the same length" if rows else None

    @contextmanager
    def _stream(
        self, connection: Connection, query: str, values: Sequence[Any] = ()
    ) -> Iterator[Iterable[Row]]:
        assert isinstance(connection, PostgresConnection)
        with connection.raw.cursor("rows", binary=True) as cursor:
            cursor.itersize = BLOCK
            cursor.execute(_format(query), values)
            yield cursor

    @contextmanager
    def _transaction(self) -> Iterator[PostgresConnection]:
        with self._errors("write to"), self._pooled() as connection, connection.raw.transaction():
            connection.execute("SELECT 1 FROM chemtwin FOR UPDATE")
            yield connection

    @contextmanager
    def _reading(self, streaming: bool = False) -> Iterator[PostgresConnection]:
        with (
            self._errors("read"),
            self._pooled() as connection,
            connection.raw.transaction() if streaming else nullcontext(),
        ):
            yield connection

    @contextmanager
    def _snapshot(self) -> Iterator[PostgresConnection]:
        with self._errors("read"):
            connection = PostgresConnection(self._conninfo)
            with connection.raw, connection.raw.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield connection

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            text = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"cannot {action} the store {self.name}: {text}") from error


def _format(query: str) -> bytes:
    return query.replace("?", "%s").encode()


def _conninfo(url: str) -> dict[str, Any]:
    """What the URL says. Raises StoreError with no part of it, which may be of the password."""
    try:
        if URL.fullmatch(url) is None:
            raise psycopg.ProgrammingError
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise StoreError(
            "the store's postgresql:// URL cannot be read: write special characters in it, "
            "such as those of a password, as %XX"
        ) from None
    return {"connect_timeout": 10, "tcp_user_timeout": 30_000, **given}

"""The store in PostgreSQL with pgvector, for several instances on several hosts.

Writers take turns by locking the one row of `chemtwin`, which holds the last seq; so seqs follow the order of
commits. `models` counts each model's stars and writes. With synchronous_commit on, a transaction that has
returned is on the server's disk.
"""

from __future__ import annotations

import queue
import re
import select
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, LiteralString

import numpy as np
import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from index.pg_writing import Connection, Row, Writing, brief_of, floats, star_of
from index.rows import BRIEF, COLUMNS, Content
from index.sky import Box
from index.store import PAST_IDS, Brief, Change, Kept, Rows, Star, Store, StoreError

SCHEMA_VERSION = 1
TABLES = ("stars", "spectra", "models", "chemtwin")
SCHEMA: tuple[LiteralString, ...] = (
    # what a search reads of each row comes first: PostgreSQL unpacks a row from its start
    """
    CREATE TABLE stars (
        seq bigint NOT NULL,
        deleted boolean NOT NULL DEFAULT false,
        teff float8, logg float8, fe_h float8, snr float8,
        model text COLLATE "C" NOT NULL,
        latent vector,
        star_id text COLLATE "C" NOT NULL,
        covariance bytea, chi2 float8, masked_fraction float8, in_domain boolean, warnings text,
        ra float8, dec float8, meta text, others text,
        PRIMARY KEY (star_id, model)
    )
    """,
    "CREATE UNIQUE INDEX stars_by_seq ON stars (model, seq)",
    'CREATE TABLE spectra (star_id text COLLATE "C" PRIMARY KEY, spectrum bytea NOT NULL)',
    'CREATE TABLE models (model text COLLATE "C" PRIMARY KEY, stars bigint NOT NULL, written bigint NOT NULL)',
    "CREATE TABLE chemtwin (version integer NOT NULL, seq bigint NOT NULL)",
)
POSITIONS = "CREATE INDEX stars_by_position ON stars (dec, ra) WHERE dec IS NOT NULL"
URL = re.compile(r"postgres(ql)?://([^/?#@]*@)?[^@]*")
ADVISORY = 0x6368656D7477696E
CONNECTIONS = 10
BLOCK = 500


class PostgresStore(Store):
    """Stars in one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        """Connect, and create the tables when the database has none.

        Raises StoreError for a server that cannot be reached or lacks pgvector, and for a database with tables
        of these names that are not a store.
        """
        self._conninfo = _conninfo(url)
        known = self._conninfo
        self.name = f"postgresql://{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
        self.closed = threading.Event()
        self._slots: queue.LifoQueue[Connection | None] = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self._slots.put(None)
        try:
            with self.connection() as connection, connection.transaction():
                self._prepare(connection)
        except BaseException as error:
            self.close()
            if not isinstance(error, psycopg.Error):
                raise
            raise StoreError(f"cannot open the store {self.name}: {_told(error)}") from error

    def connect(self) -> Connection:
        """A connection of the caller's own. Raises psycopg.Error."""
        connection = psycopg.connect(**self._conninfo, autocommit=True)
        connection.execute("SET synchronous_commit = on; SET lock_timeout = '30s'; SET jit = off")
        return connection

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One of at most CONNECTIONS that are shared; a broken one is replaced. Raises psycopg.Error."""
        connection = self._slots.get()
        try:
            if self.closed.is_set():
                raise psycopg.InterfaceError("it was closed")
            if connection is not None and not _usable(connection):
                connection.close()
            if connection is None or connection.closed:
                connection = None
                connection = self.connect()
            yield connection
        finally:
            self._slots.put(None if connection is None or connection.closed else connection)

    def _prepare(self, connection: Connection) -> None:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY,))
        there = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
            "AND relname = ANY(%s)",
            (list(TABLES),),
        ).fetchall()
        if not there:
            self._create(connection)
        elif ("chemtwin",) not in there:
            raise StoreError(
                f"{self.name} has a table {there[0][0]} that is not a store's. It was left as it is."
            )
        versions = connection.execute("SELECT version FROM chemtwin").fetchall()
        if versions != [(SCHEMA_VERSION,)]:
            raise StoreError(f"{self.name} is not a store of version {SCHEMA_VERSION}. It was left as it is.")
        if connection.execute("SELECT to_regclass('stars_by_position')").fetchone() == (None,):
            try:
                connection.execute(POSITIONS)  # the first stores were made without
            except errors.InsufficientPrivilege as error:
                raise StoreError(
                    f"{self.name}: only the owner of the table may index it; have the owner run {POSITIONS}"
                ) from error

    def _create(self, connection: Connection) -> None:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except errors.InsufficientPrivilege as error:
            raise StoreError(
                f"{self.name}: only a superuser may add pgvector; have one run CREATE EXTENSION vector"
            ) from error
        except (errors.FeatureNotSupported, errors.UndefinedFile) as error:
            raise StoreError(f"{self.name}: the server has no pgvector; install it there") from error
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO chemtwin VALUES (%s, 0)", (SCHEMA_VERSION,))

    def close(self) -> None:
        self.closed.set()
        connections = [self._slots.get() for _ in range(CONNECTIONS)]
        for connection in connections:
            if connection is not None:
                connection.close()
            self._slots.put(None)

    def read(
        self,
        query: LiteralString | sql.Composed,
        values: Sequence[Any] = (),
        settings: Mapping[str, str] | None = None,
    ) -> list[Row]:
        """All rows of a query, under these settings of the server; a vector comes as bytes, see `floats`."""
        try:
            with self.connection() as connection:
                if settings is None:
                    return connection.execute(query, values, binary=True).fetchall()
                with connection.transaction():
                    for name, value in settings.items():
                        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
                    return connection.execute(query, values, binary=True).fetchall()
        except psycopg.Error as error:
            raise StoreError(f"cannot read the store {self.name}: {_told(error)}") from error

    @contextmanager
    def _transaction(self) -> Iterator[Writing]:
        """A write transaction, one at a time; on disk when the block ends, undone if it raises."""
        try:
            with self.connection() as connection, connection.transaction():
                row = connection.execute("SELECT seq FROM chemtwin FOR UPDATE").fetchone()
                assert row is not None
                writing = Writing(connection, row[0])
                yield writing
                writing.count()
        except psycopg.Error as error:
            raise StoreError(f"cannot write to the store {self.name}: {_told(error)}") from error

    def upsert(self, stars: Sequence[Star], spectra: Sequence[bytes | None] | None = None) -> list[bool]:
        with self._transaction() as writing:
            live = writing.live([star.star_id for star in stars])
            replaced = []
            latest: dict[str, Star] = {}
            kept: dict[str, bytes | None] = {}
            for star, spectrum in zip(stars, spectra or [None] * len(stars), strict=True):
                replaced.append(star.star_id in live or star.star_id in latest)
                latest[star.star_id], kept[star.star_id] = star, spectrum
            writing.delete_rows(
                [
                    (star_id, model)
                    for star_id, star in latest.items()
                    for model in live.get(star_id, ())
                    if model != star.model
                ]
            )
            writing.insert(latest.values(), live)
            writing.keep(kept)
        return replaced

    def delete(self, star_id: str) -> bool:
        with self._transaction() as writing:
            found = writing.delete("star_id = %s", (star_id,))
            writing.keep({star_id: None})
        return found > 0

    def get(self, star_ids: Sequence[str], model: str) -> dict[str, Star]:
        rows = self.read(
            f"SELECT {COLUMNS} FROM stars WHERE NOT deleted AND star_id = ANY(%s) ORDER BY model = %s, model",
            (list(star_ids), model),
        )
        return {row[0]: star_of(row) for row in rows}

    def briefs(self, star_ids: Sequence[str], model: str) -> dict[str, Brief]:
        rows = self.read(
            f"SELECT {BRIEF} FROM stars WHERE NOT deleted AND star_id = ANY(%s) AND model = %s",
            (list(star_ids), model),
        )
        return {row[0]: brief_of(row) for row in rows}

    def page(self, after: str, limit: int, model: str, prefix: str = "") -> list[Star]:
        ids = [
            star_id
            for (star_id,) in self.read(
                "SELECT DISTINCT star_id FROM stars WHERE NOT deleted AND star_id > %s AND star_id >= %s "
                "AND star_id < %s ORDER BY star_id LIMIT %s",
                # no id has a NUL, which PostgreSQL refuses
                (after.partition("\0")[0], prefix, prefix + PAST_IDS, limit),
            )
        ]
        found = self.get(ids, model)
        return [found[star_id] for star_id in ids if star_id in found]

    def positions(self, box: Box) -> Generator[list[tuple[str, float, float]]]:
        query = (
            "SELECT star_id, ra, dec FROM stars WHERE NOT deleted AND dec BETWEEN %s AND %s "
            "AND (ra BETWEEN %s AND %s OR ra BETWEEN %s AND %s)"
        )
        try:
            with (
                self.connection() as connection,
                connection.transaction(),
                connection.cursor("positions", binary=True) as cursor,
            ):
                cursor.execute(query, box)
                while block := cursor.fetchmany(BLOCK):
                    yield block
        except psycopg.Error as error:
            raise StoreError(f"cannot read the store {self.name}: {_told(error)}") from error

    def spectrum(self, star_id: str) -> bytes | None:
        rows = self.read("SELECT spectrum FROM spectra WHERE star_id = %s", (star_id,))
        return bytes(rows[0][0]) if rows else None

    def last_seq(self) -> int:
        return int(self.read("SELECT seq FROM chemtwin")[0][0])

    def stars_by_model(self) -> dict[str, int]:
        return dict(self.read("SELECT model, stars FROM models WHERE stars > 0"))

    def damage(self) -> str | None:
        rows = self.read(
            "SELECT model FROM models FULL JOIN (SELECT model, count(*) AS counted FROM stars "
            "WHERE NOT deleted GROUP BY model) AS own USING (model) "
            "WHERE coalesce(counted, 0) != coalesce(stars, 0)"
        )
        return f"the number of stars by {rows[0][0]} is not what was counted" if rows else None

    def changes(self, model: str, after: int, limit: int = 50_000) -> list[Change]:
        rows = self.read(
            "SELECT seq, star_id, latent, teff, logg, fe_h, snr, in_domain FROM stars "
            "WHERE model = %s AND seq > %s ORDER BY seq LIMIT %s",
            (model, after, limit),
        )
        return [
            Change(
                seq,
                star_id,
                None if latent is None else floats(latent),
                teff,
                logg,
                fe_h,
                np.nan if snr is None else snr,
                in_domain,
            )
            for seq, star_id, latent, teff, logg, fe_h, snr, in_domain in rows
        ]

    def waiting(self, model: str, after: str, limit: int) -> list[Kept]:
        rows = self.read(
            f"SELECT DISTINCT ON (star_id) {COLUMNS}, seq, spectrum FROM spectra JOIN stars USING (star_id) "
            "WHERE NOT deleted AND star_id > %s AND NOT EXISTS (SELECT FROM stars own "
            "WHERE own.star_id = spectra.star_id AND own.model = %s AND NOT own.deleted) "
            "ORDER BY star_id, seq DESC LIMIT %s",
            (after, model, limit),
        )
        return [Kept(star_of(row[:-2]), row[-2], row[-1]) for row in rows]

    def add_beside(self, stars: Sequence[Star], seqs: Sequence[int]) -> int:
        with self._transaction() as writing:
            live = writing.live([star.star_id for star in stars])
            beside = [
                star
                for star, seq in zip(stars, seqs, strict=True)
                if seq in live.get(star.star_id, {}).values()
            ]
            writing.insert(beside, live)
        return len(beside)

    def drop_other_models(self, model: str) -> int:
        with self._transaction() as writing:
            return writing.delete(
                "model <> %s AND EXISTS (SELECT FROM stars own "
                "WHERE own.star_id = stars.star_id AND own.model = %s AND NOT own.deleted)",
                (model, model),
            )

    def dump(self) -> Iterator[tuple[Star, bytes | None]]:
        try:
            with self.connect() as connection, connection.transaction():
                yield from _dump(connection)
        except psycopg.Error as error:
            raise StoreError(f"cannot read the store {self.name}: {_told(error)}") from error

    @contextmanager
    def snapshot(self) -> Iterator[Rows]:
        try:
            with self.connect() as connection, connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield partial(_rows, connection)
        except psycopg.Error as error:
            raise StoreError(f"cannot read the store {self.name}: {_told(error)}") from error

    def restore(
        self, rows: Iterable[tuple[Star, bytes | None]], before: Callable[[], None] = lambda: None
    ) -> int:
        written = Content()
        remaining = written.counting(rows)
        with self._transaction() as writing:
            before()
            writing.delete("true", ())
            writing.connection.execute("DELETE FROM spectra")
            while block := list(islice(remaining, BLOCK)):
                live = writing.live([star.star_id for star, _ in block])
                writing.insert([star for star, _ in block], live)
                writing.keep({star.star_id: spectrum for star, spectrum in block})
            written.check(_dump(writing.connection), self.name)
        return written.rows

    def counts(self, model: str) -> tuple[int, int]:
        """Stars of `model` there are, and writes of its rows there have been."""
        rows = self.read("SELECT stars, written FROM models WHERE model = %s", (model,))
        return (rows[0][0], rows[0][1]) if rows else (0, 0)


def _dump(connection: Connection) -> Iterator[tuple[Star, bytes | None]]:
    """Every row with its star's spectrum, in a transaction that is open."""
    with connection.cursor("dump", binary=True) as cursor:
        cursor.itersize = BLOCK
        cursor.execute(
            f"SELECT {COLUMNS}, spectrum FROM stars LEFT JOIN spectra USING (star_id) "
            "WHERE NOT deleted ORDER BY star_id, model"
        )
        for row in cursor:
            yield star_of(row[:-1]), row[-1]


def _rows(connection: Connection, model: str | None) -> Iterator[Star]:
    """The rows by a model, or by every one, in a transaction that is open."""
    with connection.cursor("rows", binary=True) as cursor:
        cursor.itersize = BLOCK
        cursor.execute(
            f"SELECT {COLUMNS} FROM stars WHERE NOT deleted AND model = coalesce(%s, model) "
            "ORDER BY star_id, model",
            (model,),
        )
        for row in cursor:
            yield star_of(row)


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


def _usable(connection: Connection) -> bool:
    """Whether an idle connection is as it was left: the server sends nothing unasked but its end."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def _told(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__

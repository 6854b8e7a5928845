"""What a store of embedded stars does, in the SQL that SQLite and PostgreSQL share.

The rows are the truth, from which every search is rebuilt. A star's row has its latent by one model; while a
catalogue is embedded again with another model, a star has a row for each. Each write of a row takes the next
`seq`. Writers take turns, so seqs follow the order in which transactions commit: a reader that sees a seq sees
every smaller one, and catches up by asking for everything after the last that it has. A deleted row leaves its
id, model and seq behind.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, ClassVar, NamedTuple

from index.stores.content import Content
from index.stores.sky import Box, Circle
from index.stores.star import STAR_TABLE, Brief, Change, Star, StoredSpectrum, Table
from index.stores.writing import LAST_SEQ, Connection, Row, Writing, blocks, marks

Stored = tuple[Star, bytes | None]
"""A row, and its star's spectrum."""

Combine = Callable[[Star, Star], Star]
"""Gives the star to store, of a new one and the stored one of its id that it replaces."""


class Written(NamedTuple):
    """A star as it was written; whether it replaced one, and whether that one's spectrum was deleted."""

    star: Star
    replaced: bool
    spectrum_deleted: bool


Rows = Callable[[str | None], Iterator[Star]]
"""Gives the rows by a model, or by every model for None, in the order of ids and models."""

PAST_IDS = "\U0010ffff"
"""Comes after every character: what begins with P lies from P up to P and this."""


class Store(ABC):
    """Stars by id. Safe to use from several threads and several processes. Methods raise StoreError."""

    table: ClassVar[Table] = STAR_TABLE

    name: str
    """What and where it is, for messages."""

    file_name: str
    """A name for the files that belong to it, such as a search's cache."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def damage(self) -> str | None:
        """What is wrong with the store's own structures, None if nothing is; reads all of it."""

    @abstractmethod
    def _reading(self, streaming: bool = False) -> AbstractContextManager[Connection]:
        """A connection for a read; `streaming`: for rows that are read one by one."""

    @abstractmethod
    def _snapshot(self) -> AbstractContextManager[Connection]:
        """A connection that shows one moment, while writes go on."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Connection]:
        """A write transaction, one at a time: on disk when the block ends, undone if it raises."""

    @contextmanager
    def _stream(
        self, connection: Connection, query: str, values: Sequence[Any] = ()
    ) -> Iterator[Iterable[Row]]:
        """Rows of a query, read one by one."""
        with closing(connection.execute(query, values)) as rows:
            yield rows

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._reading() as connection:
            return list(connection.execute(query, values))

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        with self._transaction() as connection:
            yield Writing(connection, self.table)

    def upsert(
        self,
        stars: Sequence[Star],
        spectra: Sequence[bytes | None] | None = None,
        combine: Combine = lambda star, _: star,
    ) -> list[Written]:
        """Write stars in one transaction, on disk on return, with their spectra where these are to be stored.

        A star that replaces another is first combined with it. All else that the store has of these stars goes,
        by whatever model: a stored spectrum too, so that none belongs to another latent than the stored one.
        """
        with self._writing() as writing:
            live = writing.live([star.star_id for star in stars])
            before, with_spectrum = writing.latest(list(live)), writing.with_spectrum(list(live))
            written: list[Written] = []
            stored: dict[str, bytes | None] = {}
            for given, spectrum in zip(stars, spectra or [None] * len(stars), strict=True):
                star_id, earlier = given.star_id, before.get(given.star_id)
                star = given if earlier is None else combine(given, earlier)
                had = star_id in with_spectrum if star_id not in stored else stored[star_id] is not None
                written.append(Written(star, star_id in live or star_id in stored, had and spectrum is None))
                before[star_id], stored[star_id] = star, spectrum
            latest = [before[star_id] for star_id in stored]
            for star in latest:
                for model in live.get(star.star_id, {}).keys() - {star.model}:
                    writing.delete("star_id = ? AND model = ?", (star.star_id, model))
            writing.insert(latest)
            writing.store_spectra(stored)
        return written

    def delete(self, star_id: str) -> bool:
        """Delete a star, on disk on return. False if there was none."""
        with self._writing() as writing:
            found = writing.delete("star_id = ?", (star_id,))
            writing.store_spectra({star_id: None})
        return found > 0

    def get(self, star_ids: Sequence[str], model: str) -> dict[str, Star]:
        """The stars of these ids that exist: as embedded by `model`, else by another."""
        rows = self._of_ids(self.table.names, star_ids, "ORDER BY model = ?, model", model)
        return {row[0]: self.table.unpack(row) for row in rows}

    def briefs(self, star_ids: Sequence[str], model: str) -> dict[str, Brief]:
        """What responses show of those stars of these ids that have a row by `model`."""
        rows = self._of_ids(self.table.brief, star_ids, "AND model = ?", model)
        return {row[0]: self.table.unpack_brief(row) for row in rows}

    def _of_ids(self, names: Sequence[str], star_ids: Sequence[str], more: str, model: str) -> Iterator[Row]:
        """Columns of the rows of these stars that are not deleted."""
        for part in blocks(star_ids):
            yield from self._read(
                f"SELECT {', '.join(names)} FROM stars WHERE star_id IN ({marks(part)}) AND NOT deleted {more}",
                (*part, model),
            )

    def page(
        self, after: str, limit: int, model: str, prefix: str = "", cluster: str | None = None
    ) -> list[Star]:
        """At most `limit` stars whose id comes after `after`, in the order of their ids' bytes; as `get`.

        Only ids that begin with `prefix`: a range of the index of ids, read from its start. Only stars of
        `cluster` unless it is None: a range of the index of clusters.
        """
        after = after.partition("\0")[0]  # no id has a NUL, which PostgreSQL takes in no text
        of_cluster = "" if cluster is None else "AND cluster = ? "
        rows = self._read(
            f"SELECT DISTINCT star_id FROM stars WHERE NOT deleted {of_cluster}"
            # one lower bound: of two, SQLite would look for the rows by the first alone
            "AND star_id >= ? AND star_id < ? AND star_id <> ? ORDER BY star_id LIMIT ?",
            (*([] if cluster is None else [cluster]), max(after, prefix), prefix + PAST_IDS, after, limit),
        )
        found = self.get([star_id for (star_id,) in rows], model)
        return [found[star_id] for (star_id,) in rows if star_id in found]

    def spectrum(self, star_id: str) -> bytes | None:
        """The stored spectrum of a star; None if there is no such star, or no spectrum of it."""
        rows = self._read("SELECT spectrum FROM spectra WHERE star_id = ?", (star_id,))
        return bytes(rows[0][0]) if rows else None

    def positions(self, box: Box) -> Generator[list[tuple[str, float, float]]]:
        """Blocks of the ids of stars in a box on the sky, with their ra and dec in degrees."""
        # a deleted row has no position
        query = (
            "SELECT star_id, ra, dec FROM stars WHERE dec BETWEEN ? AND ? "
            "AND (ra BETWEEN ? AND ? OR ra BETWEEN ? AND ?)"
        )
        with self._reading(streaming=True) as connection, self._stream(connection, query, box) as rows:
            yield from blocks(rows)

    def within(self, circle: Circle, most: int, model: str) -> list[tuple[Star, float]]:
        """Stars in a circle on the sky and how far each is from its centre in degrees, nearest first; as `get`.

        At most `most`: where there are more, any of them.
        """
        found: dict[str, float] = {}
        with closing(self.positions(circle.box())) as several:
            for block in several:
                star_ids, ra, dec = zip(*block, strict=True)
                separations = zip(star_ids, circle.separation(ra, dec).tolist(), strict=True)
                found.update(pair for pair in separations if pair[1] <= circle.radius)
                if len(found) >= most:
                    break
        nearest = sorted(found, key=lambda star_id: (found[star_id], star_id))[:most]
        stars = self.get(nearest, model)
        return [(stars[star_id], found[star_id]) for star_id in nearest if star_id in stars]

    def last_seq(self) -> int:
        """The seq of the latest write by any process."""
        return int(self._read(LAST_SEQ)[0][0])

    def stars_by_model(self) -> dict[str, int]:
        """How many stars there are by each model; reads all rows."""
        return dict(self._read("SELECT model, count(*) FROM stars WHERE NOT deleted GROUP BY model"))

    def changes(self, model: str, after: int, limit: int = 50_000) -> list[Change]:
        """At most `limit` writes of rows of `model` after seq `after`, oldest first.

        A row written twice appears once, last.
        """
        rows = self._read(
            f"SELECT seq, star_id, latent, {', '.join(self.table.searched)} FROM stars "
            "WHERE seq > ? AND model = ? ORDER BY seq LIMIT ?",
            (after, model, limit),
        )
        values = self.table.search_values
        return [Change(seq, star_id, latent, values(searched)) for seq, star_id, latent, *searched in rows]

    def _record_opening(self, connection: Connection) -> None:
        """Give this opening of the store a token."""
        token = secrets.token_hex(16)
        connection.execute(f"INSERT INTO openings (token, seq) SELECT ?, ({LAST_SEQ})", (token,))

    def moment(self) -> tuple[str, int]:
        """This moment of the store's history: the token of its latest opening, and the last seq."""
        query = f"SELECT token, ({LAST_SEQ}) FROM openings ORDER BY number DESC LIMIT 1"
        ((token, seq),) = self._read(query)
        return token, seq

    def remembers(self, token: str, seq: int) -> bool:
        """Whether a moment belongs to this store's history; not so after an older copy has replaced it."""
        rows = self._read(
            f"SELECT ({LAST_SEQ}) >= ? AND NOT EXISTS "
            "(SELECT 1 FROM openings later WHERE later.number > openings.number AND later.seq < ?) "
            "FROM openings WHERE token = ?",
            (seq, seq, token),
        )
        return bool(rows and rows[0][0])

    def waiting(self, model: str, after: str, limit: int) -> list[StoredSpectrum]:
        """At most `limit` stars with a stored spectrum but no row of `model`, ids after `after`, in order."""
        rows = self._read(
            f"SELECT {self._names_of_stars()}, seq, spectrum "
            "FROM spectra JOIN stars ON stars.star_id = spectra.star_id "
            "WHERE NOT deleted AND spectra.star_id > ? AND NOT EXISTS (SELECT 1 FROM stars own WHERE "
            "own.star_id = spectra.star_id AND NOT own.deleted AND (own.model = ? OR own.seq > stars.seq)) "
            "ORDER BY spectra.star_id LIMIT ?",
            (after, model, limit),
        )
        return [StoredSpectrum(self.table.unpack(row[:-2]), row[-2], row[-1]) for row in rows]

    def add_beside(self, stars: Sequence[Star], seqs: Sequence[int]) -> int:
        """Write rows of another model beside those with these `seqs`, in one transaction.

        A star replaced or deleted since is passed over. Returns how many were written.
        """
        with self._writing() as writing:
            live = writing.live([star.star_id for star in stars])
            beside = [
                star
                for star, seq in zip(stars, seqs, strict=True)
                if seq in live.get(star.star_id, {}).values()
            ]
            writing.insert(beside)
        return len(beside)

    def drop_other_models(self, model: str) -> int:
        """Delete the rows by other models of stars that have one of `model`. Returns how many."""
        with self._writing() as writing:
            return writing.delete(
                "model <> ? AND EXISTS (SELECT 1 FROM stars own "
                "WHERE own.star_id = stars.star_id AND own.model = ? AND NOT own.deleted)",
                (model, model),
            )

    def dump(self) -> Iterator[Stored]:
        """Every row with its star's stored spectrum, as of one moment; writes go on meanwhile."""
        with self._snapshot() as connection:
            yield from self._dump(connection)

    def _dump(self, connection: Connection) -> Generator[Stored]:
        query = (
            f"SELECT {self._names_of_stars()}, spectrum FROM stars "
            "LEFT JOIN spectra ON spectra.star_id = stars.star_id WHERE NOT deleted "
            "ORDER BY stars.star_id, model"
        )
        with self._stream(connection, query) as rows:
            for *row, spectrum in rows:
                yield self.table.unpack(row), spectrum

    @contextmanager
    def snapshot(self) -> Iterator[Rows]:
        """The rows of one moment, as often as they are asked for; no spectrum is read."""
        query = (
            f"SELECT {', '.join(self.table.names)} FROM stars WHERE NOT deleted AND model = coalesce(?, model) "
            "ORDER BY star_id, model"
        )
        with self._snapshot() as connection:

            def rows(model: str | None) -> Iterator[Star]:
                with self._stream(connection, query, (model,)) as found:
                    yield from map(self.table.unpack, found)

            yield rows

    def restore(self, rows: Iterable[Stored], before: Callable[[], None] = lambda: None) -> int:
        """Replace everything by `rows`, in one transaction. Returns how many there are.

        What was written is read back before the transaction ends. `before` is called once no one else can
        write, and before anything is replaced. Raises StoreError, and whatever `rows` or `before` raise:
        nothing has changed then.
        """
        written = Content(self.table)
        with self._writing() as writing:
            before()
            writing.delete("NOT deleted", ())
            writing.connection.execute("DELETE FROM spectra")
            for block in blocks(written.counting(rows)):
                writing.insert([star for star, _ in block])
                writing.store_spectra({star.star_id: spectrum for star, spectrum in block})
            with closing(self._dump(writing.connection)) as found:
                written.check(found, self.name)
        return written.rows

    def _names_of_stars(self) -> str:
        return ", ".join(f"stars.{name}" for name in self.table.names)

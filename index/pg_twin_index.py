"""Nearest-twin search by PostgreSQL: exact by a scan, or by an HNSW index where the service may approximate."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from index.nearest import Sample
from index.open_index import Approximate
from index.pg_writing import Row, floats, text
from index.postgres import ADVISORY, PostgresStore
from index.rates import Rates
from index.segment import COLUMNS
from index.store import Star, StoreError
from index.twin_index import Filters, Search, Twin

RATE_SAMPLE = 30_000
"""Stars, about, from which random pairs are drawn."""

EF_SEARCH = (100, 1000)
"""Least and most stars that one step of an HNSW scan keeps in view; pgvector allows no more."""

IN_DOMAIN = sql.SQL("in_domain::int")
EVERY = Filters()
log = logging.getLogger("chemtwin")


class PgTwinIndex:
    """The stars of one model, searchable by the server: what any instance has written is in the next answer."""

    def __init__(self, store: PostgresStore, model: str, dimension: int, approximate: bool = False) -> None:
        """With `approximate`, an HNSW index is built in the background if missing; until then all is exact.

        Raises StoreError.
        """
        self.store = store
        self.model = model
        self._width, self._dimension = dimension, sql.Literal(dimension)
        self._rates = Rates(self._sample)
        self.hnsw = _Hnsw(store, model, dimension) if approximate else None

    def __len__(self) -> int:
        return self.store.counts(self.model)[0]

    def close(self) -> None:
        """Nothing: all is with the server."""

    def upsert(self, stars: Sequence[Star], spectra: Sequence[bytes | None] | None = None) -> list[bool]:
        """Store stars, on the server's disk on return. Says which replaced another."""
        return self.store.upsert(stars, spectra)

    def delete(self, star_id: str) -> bool:
        """Delete a star (on the server's disk on return). False if there was none."""
        return self.store.delete(star_id)

    def catch_up(self) -> None:
        """Nothing: the server searches what is there."""

    def search(
        self, latent: NDArray[np.float32], k: int, filters: Filters = EVERY, without: str | None = None
    ) -> list[Twin]:
        """The `k` nearest stars to `latent` (D,) that pass the filters, nearest first, ties by star id.

        The star `without` is left out. Fewer than `k` come back only when fewer pass. Exact, or Approximate.
        """
        where = self._where(filters, without)
        if self.hnsw is not None and self.hnsw.ready.is_set():
            twins = self._twins(self._by_hnsw(latent, k, where), latent)
            if len(twins) == k:
                return Approximate(_within(twins, filters.max_distance))
        fetch = k + 16
        while True:
            twins = self._twins(self._by_scan(latent, fetch, where), latent)
            # single precision rounds far below 1e-4: nothing beyond the last can belong to the first k
            if len(twins) < fetch or twins[-1].distance > twins[k - 1].distance * (1 + 1e-4):
                return _within(twins[:k], filters.max_distance)
            fetch *= 2

    def search_batch(self, searches: Sequence[Search], k: int) -> list[list[Twin]]:
        """As `search`, for each of several."""
        return [self.search(one.latent, k, one.filters, one.without) for one in searches]

    def _where(self, filters: Filters, without: str | None) -> sql.Composable:
        conditions: list[sql.Composable] = [
            sql.SQL("NOT deleted AND model = {}").format(sql.Literal(self.model))
        ]
        for name, low, high in filters.ranges:
            conditions.append(
                sql.SQL("{} BETWEEN {} AND {}").format(
                    IN_DOMAIN if name == "in_domain" else sql.Identifier(name),
                    sql.Literal(float(low)),
                    sql.Literal(float(high)),
                )
            )
        if without is not None:
            conditions.append(sql.SQL("star_id <> {}").format(sql.Literal(without)))
        return sql.SQL(" AND ").join(conditions)

    def _by_scan(self, latent: NDArray[np.float32], count: int, where: sql.Composable) -> list[Row]:
        """The `count` nearest rows; the HNSW index is on another expression, so that it is not used."""
        query = sql.SQL("SELECT star_id, latent FROM stars WHERE {} ORDER BY latent <-> {}::vector LIMIT {}")
        return self.store.read(query.format(where, sql.Literal(text(latent)), sql.Literal(count)))

    def _by_hnsw(self, latent: NDArray[np.float32], count: int, where: sql.Composable) -> list[Row]:
        """About the `count` nearest rows; fewer when the scan gave up before it met so many."""
        query = sql.SQL(
            "SELECT star_id, latent FROM stars WHERE {} ORDER BY latent::vector({}) <-> {}::vector LIMIT {}"
        ).format(where, self._dimension, sql.Literal(text(latent)), sql.Literal(count))
        view = min(max(2 * count, EF_SEARCH[0]), EF_SEARCH[1])
        return self.store.read(
            query, settings={"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": str(view)}
        )

    def _twins(self, rows: list[Row], latent: NDArray[np.float32]) -> list[Twin]:
        """Rows of (star_id, latent) with their distances in double precision, in order."""
        if not rows:
            return []
        differences = np.stack([floats(row[1]) for row in rows]).astype(np.float64) - latent.astype(np.float64)
        distances = np.sqrt(np.einsum("nd,nd->n", differences, differences))
        twins = [Twin(row[0], float(distance)) for row, distance in zip(rows, distances, strict=True)]
        return sorted(twins, key=lambda twin: (twin.distance, twin.star_id))

    def doppelganger_rates(self, distances: list[float]) -> list[float] | None:
        """For each distance the fraction of random pairs of the catalogue at most that far apart.

        From a million random pairs of about RATE_SAMPLE random stars, drawn again when the catalogue has
        changed by more than 1 %; None below 1,000 stars.
        """
        return self._rates.at(distances, *self.store.counts(self.model))

    def written(self) -> int:
        """A number that grows with every write of a row."""
        return self.store.counts(self.model)[1]

    def sample(self, most: int) -> Sample:
        """About `most` stars, of pages of the table drawn at random: what is read does not grow with it."""
        share = min(100.0, 100 * most / max(1, len(self)))
        rows = self.store.read(
            "SELECT star_id, latent, teff, logg, fe_h, coalesce(snr, 'NaN'), in_domain::int "
            "FROM stars TABLESAMPLE SYSTEM (%s) REPEATABLE (0) WHERE NOT deleted AND model = %s",
            (share, self.model),
        )
        latents = np.array([floats(row[1]) for row in rows], dtype=np.float32).reshape(-1, self._width)
        columns = np.array([row[2:] for row in rows], dtype=np.float64).reshape(-1, len(COLUMNS))
        return Sample([row[0] for row in rows], latents, columns)

    def _sample(self, stars: int) -> NDArray[np.float32]:
        """Latents (about RATE_SAMPLE, D) of stars drawn without regard to anything."""
        rows = self.store.read(
            "SELECT latent FROM stars TABLESAMPLE BERNOULLI (%s) WHERE NOT deleted AND model = %s",
            (min(100.0, 100 * RATE_SAMPLE / stars), self.model),
        )
        return np.array([floats(row[0]) for row in rows], dtype=np.float32).reshape(-1, self._width)


class _Hnsw:
    """The HNSW index on one model's rows: `ready` is set once it is there."""

    def __init__(self, store: PostgresStore, model: str, dimension: int) -> None:
        self.ready = threading.Event()
        ((version,),) = store.read("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        if tuple(map(int, version.split(".")[:2])) < (0, 8):
            raise StoreError(f"CHEMTWIN_APPROXIMATE needs pgvector 0.8 or later; {store.name} has {version}")
        self._store = store
        self.name = f"hnsw_{hashlib.sha256(model.encode()).hexdigest()[:16]}_{dimension}"
        self._create = sql.SQL(
            "CREATE INDEX CONCURRENTLY {} ON stars USING hnsw ((latent::vector({})) vector_l2_ops) "
            "WHERE model = {} AND NOT deleted"
        ).format(sql.Identifier(self.name), sql.Literal(dimension), sql.Literal(model))
        self._look()
        if not self.ready.is_set():
            threading.Thread(target=self._build, name="hnsw", daemon=True).start()

    def _look(self) -> bool:
        """Whether there is an index of this name, be it only half built."""
        rows = self._store.read(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (self.name,)
        )
        if rows == [(True,)]:
            self.ready.set()
        return bool(rows)

    def _build(self) -> None:
        """Build the index, or wait for the instance that does; try again after an error."""
        while not self.ready.is_set() and not self._store.closed.is_set():
            try:
                self._try_to_build()
            except (psycopg.Error, StoreError) as error:
                log.error("the HNSW index is not built yet: %s", error)
            if not self.ready.is_set():
                self._store.closed.wait(1)

    def _try_to_build(self) -> None:
        with self._store.connect() as connection:
            # waiting for the lock would hold a snapshot, for which the build of another would wait
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (ADVISORY + 1,)).fetchone()
            if row != (True,):
                return
            if self._look() and not self.ready.is_set():
                connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(self.name)))
            if not self.ready.is_set():
                connection.execute("SET lock_timeout = 0")
                log.info("building the HNSW index; searches are exact until it is there")
                connection.execute(self._create)
                self._look()


def _within(twins: list[Twin], max_distance: float) -> list[Twin]:
    return [twin for twin in twins if twin.distance <= max_distance]

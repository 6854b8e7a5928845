"""The search over a store, as the service sees it whatever the store is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.nearest import Sample
from index.store import Star, Store
from index.twin_index import Filters, Search, Twin, TwinIndex


class Approximate(list[Twin]):
    """What an approximate search found: nearer twins may have been missed. Any other list of twins is exact."""


class Index(Protocol):
    """The stars of one model, searchable; see TwinIndex."""

    def __len__(self) -> int:
        """How many stars there are."""

    def close(self) -> None:
        """Finish what is being written."""

    def upsert(self, stars: Sequence[Star], spectra: Sequence[bytes | None] | None = None) -> list[bool]:
        """Store stars; says which replaced another."""

    def delete(self, star_id: str) -> bool:
        """Delete a star. False if there was none."""

    def catch_up(self) -> None:
        """Take in what any process has written."""

    def search(
        self, latent: NDArray[np.float32], k: int, filters: Filters = ..., without: str | None = None
    ) -> list[Twin]:
        """The `k` nearest stars to `latent` (D,) that pass the filters, nearest first, ties by star id."""

    def search_batch(self, searches: Sequence[Search], k: int) -> list[list[Twin]]:
        """As `search`, for each of several."""

    def doppelganger_rates(self, distances: list[float]) -> list[float] | None:
        """For each distance the fraction of random pairs at most that far apart."""

    def written(self) -> int:
        """A number that grows with every write of a row."""

    def sample(self, most: int) -> Sample:
        """About `most` stars drawn at random, or all where there are fewer."""


def open_index(store: Store, model: str, dimension: int, approximate: bool = False) -> Index:
    """The search over `store`: the server's own for PostgreSQL, in this process's memory for SQLite.

    `approximate` allows the server an HNSW index. Returns when it has caught up. Raises StoreError.
    """
    from index.sqlite import SqliteStore

    if isinstance(store, SqliteStore):
        return TwinIndex(store, model, dimension)
    from index.pg_twin_index import PgTwinIndex
    from index.postgres import PostgresStore

    assert isinstance(store, PostgresStore)
    return PgTwinIndex(store, model, dimension, approximate)

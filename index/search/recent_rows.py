"""Rows written lately: all are read by each search, until a segment is built of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np
from numpy.typing import NDArray

from index.search.faiss_lists import COLUMNS, Hits, Latents, Range, Rows, Slots


@dataclass(frozen=True)
class Recent:
    """Rows in the first `count` of S slots: `ids` (S,), `latents` (S, D), `columns` (C, S); those `alive` (S,).

    Slots beyond `count` may be filled by a later state; no other is ever written to.
    """

    ids: NDArray[np.bytes_]
    latents: Latents
    columns: NDArray[np.float64]
    alive: NDArray[np.bool_]
    count: int = 0

    @classmethod
    def empty(cls, dimension: int, slots: int = 0, width: int = 1) -> Recent:
        """No rows, but slots for them, with ids of `width` bytes."""
        return cls(
            np.zeros(slots, dtype=f"S{width}"),
            np.zeros((slots, dimension), dtype=np.float32),
            np.zeros((len(COLUMNS), slots)),
            np.zeros(slots, dtype=bool),
        )

    def living(self) -> Slots:
        """The slots of all rows that are there."""
        return np.flatnonzero(self.alive[: self.count])

    def without(self, slots: Sequence[int]) -> Recent:
        """A copy with the rows in these slots marked as deleted."""
        alive = self.alive.copy()
        alive[list(slots)] = False
        return replace(self, alive=alive)

    def with_rows(self, ids: Sequence[bytes], latents: Latents, columns: NDArray[np.float64]) -> Recent:
        """The same with more rows: `ids`, `latents` (n, D), `columns` (C, n)."""
        width = max([self.ids.dtype.itemsize, *map(len, ids)])
        count = self.count + len(ids)
        into = self
        if count > len(self.ids) or width > self.ids.dtype.itemsize:
            into = Recent.empty(latents.shape[1], max(len(self.ids), 2 * count), width)
            for name in ("ids", "latents", "alive"):
                getattr(into, name)[: self.count] = getattr(self, name)[: self.count]
            into.columns[:, : self.count] = self.columns[:, : self.count]
        new = slice(self.count, count)
        into.ids[new], into.latents[new], into.columns[:, new] = ids, latents, columns
        alive = into.alive.copy()
        alive[new] = True
        return replace(into, alive=alive, count=count)

    def after(self, count: int) -> Recent:
        """The rows of all slots but the first `count`."""
        new = Recent.empty(self.latents.shape[1])
        rows = slice(count, self.count)
        new = new.with_rows(self.ids[rows].tolist(), self.latents[rows], self.columns[:, rows])
        new.alive[: new.count] = self.alive[rows]
        return new

    def rows_of(self, slots: Slots) -> Rows:
        """The rows in these slots."""
        return Rows(self.ids[slots], self.latents[slots], self.columns[:, slots])

    def search(self, query: Latents, ranges: Sequence[Range], hits: Hits, offset: int) -> None:
        """As `Segment.search`."""
        if self.count == 0:
            return
        within = self.alive[: self.count].copy()
        for name, low, high in ranges:
            values = self.columns[COLUMNS.index(name), : self.count]
            within &= (values >= low) & (values <= high)
        slots = np.flatnonzero(within)
        if len(slots):
            squares, rows = faiss.knn(query[None], self.latents[slots], min(hits.most, len(slots)))
            hits.add(squares[0], slots[rows[0]] + offset)

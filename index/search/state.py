"""What a search reads: segments, and rows written lately, of which a segment is built later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np
from numpy.typing import NDArray

from index.search.faiss_lists import COLUMNS, Hits, Latents, Range, Rows, Segment, Slots


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


@dataclass(frozen=True)
class State:
    """What a search reads."""

    segments: tuple[Segment, ...]
    recent: Recent
    seq: int

    def parts(self) -> Iterator[tuple[Segment | Recent, int]]:
        """Segments and recent rows, each with the number of its first slot among all."""
        offset = 0
        for segment in self.segments:
            yield segment, offset
            offset += len(segment.ids)
        yield self.recent, offset

    def __len__(self) -> int:
        rows = sum(segment.rows - segment.deleted for segment in self.segments)
        return rows + int(self.recent.alive.sum())

    def living(self) -> Slots:
        """The numbers of all rows that are there."""
        return np.concatenate([part.living() + offset for part, offset in self.parts()])

    def rows_of(self, numbers: Slots) -> Rows:
        """Rows by their numbers (n,) among all slots, in that order."""
        order, parts = [], []
        for part, offset in self.parts():
            (own,) = ((numbers >= offset) & (numbers < offset + len(part.ids))).nonzero()
            if len(own) == len(numbers):
                return part.rows_of(numbers - offset)
            order.append(own)
            parts.append(part.rows_of(numbers[own] - offset))
        back = np.concatenate(order).argsort()
        ids, latents, columns = zip(*parts, strict=True)
        return Rows(
            np.concatenate(ids)[back], np.concatenate(latents)[back], np.concatenate(columns, axis=1)[:, back]
        )

"""Exact nearest-neighbour search with FAISS over rows that change, with filters inside the search.

Most rows are in segments (`index.search.faiss_lists`), which never change. Rows written lately are beside them
and are all read; a thread of its own builds them into segments. A search reads one state, and an update makes
another.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.search.cache import CacheError, read_cache, write_cache
from index.search.faiss_lists import (
    COLUMNS,
    LARGEST,
    TOLERANCE,
    Hits,
    Latents,
    Range,
    Segment,
    bytes_of,
    ids_of,
)
from index.search.state import Recent, State

RECENT = 4096
"""Rows written lately that are worth a segment: to read fewer takes no longer than to look for lists."""

GROWTH = 8
"""A segment is built anew with what is to join it, unless it is more than this many times as large."""

DELETED = 0.25
"""Fraction of its rows deleted or replaced from which a segment is built anew."""

MORE = 4
"""Rows looked for beyond the `k` nearest: all that are as near as the last in single precision are needed."""


@dataclass(frozen=True)
class Found:
    """Ids of the nearest rows and their distances (n,) in double precision, nearest first, ties by id."""

    ids: list[str]
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Some rows: `ids` (n,), `latents` (n, D), and `columns` (n, C) as in `Nearest.update`."""

    ids: list[str]
    latents: Latents
    columns: NDArray[np.float64]


class Nearest:
    """Rows with an id, a latent (D,) and columns, searchable by Euclidean distance. Safe to use from threads.

    `seq` is a number of the caller's that goes with the rows: what they were brought up to.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.Lock()
        self._slots: dict[bytes, int] = {}
        """Of each star among the recent rows, the slot."""
        self._builder: threading.Thread | None = None
        self._state = State((), Recent.empty(dimension), 0)

    def __len__(self) -> int:
        return len(self._state)

    @property
    def seq(self) -> int:
        """What the last update said it was."""
        return self._state.seq

    def update(
        self,
        ids: Sequence[str],
        latents: Latents,
        columns: NDArray[np.float64],
        removed: Sequence[str],
        seq: int,
    ) -> None:
        """Remove rows, then add rows or replace those of the same id, all at once. The next search sees it all.

        Parameters
        ----------
        ids
            Star ids (n,); of several rows of one id the last counts.
        latents
            Latents (n, D).
        columns
            Values (n, C) of COLUMNS, NaN where unknown: teff (K), logg, fe_h (dex), snr, in_domain (1 or 0),
            cluster (its `text_number`).
        removed
            Star ids to remove; those that are not there are passed over.
        seq
            What `seq` is from now on.

        Raises
        ------
        ValueError
            A latent is not a number, or beyond LARGEST.
        """
        last = {star_id.encode(): row for row, star_id in enumerate(ids)}
        rows = list(last.values())
        latents = np.asarray(latents, dtype=np.float32).reshape(-1, self.dimension)[rows]
        if not (np.abs(latents) <= LARGEST).all():
            raise ValueError(f"latents must be finite, and at most {LARGEST:g}")
        columns = np.asarray(columns, dtype=np.float64).reshape(-1, len(COLUMNS))[rows]
        with self._lock:
            segments, recent = self._removed({star_id.encode() for star_id in removed} | set(last))
            self._slots.update(zip(last, range(recent.count, recent.count + len(rows)), strict=True))
            self._state = State(segments, recent.with_rows(list(last), latents, columns.T), seq)
            self._tend()

    def _removed(self, ids: set[bytes]) -> tuple[tuple[Segment, ...], Recent]:
        """The segments and recent rows without those of `ids`. Call it with the lock."""
        slots = [self._slots.pop(star_id) for star_id in ids & self._slots.keys()]
        recent = self._state.recent.without(slots) if slots else self._state.recent
        names = np.array(list(ids), dtype=np.bytes_)
        segments = []
        for segment in self._state.segments:
            found = segment.find(names)
            segments.append(segment.without(found) if len(found) else segment)
        return tuple(segments), recent

    def search(
        self,
        latent: Latents,
        k: int,
        ranges: Sequence[Range] = (),
        without: str | None = None,
        max_distance: float = math.inf,
    ) -> Found:
        """The `k` nearest rows.

        Parameters
        ----------
        latent
            Where to search (D,).
        k
            How many rows; fewer come back only when fewer pass.
        ranges
            Column, lowest and highest value (inclusive). A row whose column is unknown passes no range of it.
        without
            A star id that is not among them.
        max_distance
            The largest distance (inclusive).

        Raises
        ------
        ValueError
            `latent` is not D numbers, at most LARGEST.
        """
        query = np.ascontiguousarray(latent, dtype=np.float32)
        if query.shape != (self.dimension,) or not (np.abs(query) <= LARGEST).all():
            raise ValueError(f"a latent is {self.dimension} finite numbers, at most {LARGEST:g}")
        if k < 1 or max_distance < 0:
            return Found([], np.zeros(0))
        state = self._state
        wanted = k if without is None else k + 1
        fetch = wanted + MORE
        while True:
            hits = Hits(wanted, fetch, max_distance)
            for part, offset in state.parts():
                part.search(query, ranges, hits, offset)
            ids, latents, _ = state.rows_of(hits.rows)
            differences = latents.astype(np.float64) - query
            distances = np.sqrt(np.einsum("nd,nd->n", differences, differences))
            order = np.lexsort((ids, distances))
            # a row that was not fetched is farther than the last, but for what single precision rounds
            if len(order) < fetch or distances[order[-1]] > distances[order[wanted - 1]] * (1 + TOLERANCE):
                break
            fetch *= 4
        excluded = None if without is None else without.encode()
        order = order[(distances[order] <= max_distance) & (ids[order] != (excluded or b""))][:k]
        return Found([star_id.decode() for star_id in ids[order].tolist()], distances[order])

    def sample(self, generator: np.random.Generator, most: int) -> Sample:
        """`most` different rows drawn at random, or all where there are fewer."""
        state = self._state
        living = state.living()
        chosen = generator.choice(living, min(most, len(living)), replace=False)
        ids, latents, columns = state.rows_of(chosen)
        return Sample([star_id.decode() for star_id in ids.tolist()], latents, columns.T)

    def settle(self) -> None:
        """Wait until no segment is being built or due."""
        while (builder := self._builder) is not None:
            builder.join()

    def _tend(self) -> None:
        """Start to build a segment if one is due and none is being built. Call it with the lock."""
        if self._builder is None and self._due() is not None:
            self._builder = threading.Thread(target=self._build, name="nearest", daemon=True)
            self._builder.start()

    def _due(self) -> list[int] | None:
        """The numbers of the segments to build anew with the recent rows, or None. Call it with the lock."""
        segments, recent = self._state.segments, self._state.recent
        chosen = {n for n, segment in enumerate(segments) if segment.deleted > DELETED * segment.rows}
        if recent.count < RECENT and not chosen:
            return None
        rows = recent.count + sum(segments[number].rows for number in chosen)
        for number in sorted(range(len(segments)), key=lambda number: segments[number].rows):
            if number not in chosen and segments[number].rows <= GROWTH * rows:
                chosen.add(number)
                rows += segments[number].rows
        return sorted(chosen)

    def _build(self) -> None:
        """Build the segments that are due, one after another, beside the searches and the updates."""
        try:
            while self._build_next():
                pass
        except BaseException:
            self._builder = None
            raise

    def _build_next(self) -> bool:
        with self._lock:
            due = self._due()
            if due is None:
                self._builder = None
                return False
            state = self._state
        chosen = State(tuple(state.segments[number] for number in due), state.recent, state.seq)
        ids, latents, columns = chosen.rows_of(chosen.living())
        built = Segment.build(ids, latents, columns) if len(ids) else None
        with self._lock:
            self._swap(chosen, set(due), built)
        return True

    def _swap(self, old: State, due: set[int], built: Segment | None) -> None:
        """Put the segment built from `old`, or None of no rows, in place of it. Call it with the lock."""
        now, count = self._state, old.recent.count
        later = [segment for number, segment in enumerate(now.segments) if number in due]
        segments = [segment for number, segment in enumerate(now.segments) if number not in due]
        if built is not None:
            pairs = zip(old.segments, later, strict=True)
            gone = [before.ids[before.deleted_until(after)] for before, after in pairs]
            gone.append(now.recent.ids[:count][old.recent.alive[:count] & ~now.recent.alive[:count]])
            slots = built.find(np.concatenate(gone))
            segments.append(built.without(slots) if len(slots) else built)
        self._slots = {star_id: slot - count for star_id, slot in self._slots.items() if slot >= count}
        self._state = State(tuple(segments), now.recent.after(count), now.seq)

    def save(self, path: Path, model: str) -> None:
        """Write everything as it is now to a file, whole or not at all.

        Parameters
        ----------
        path
            The file.
        model
            The identity of the model that the latents are of.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        state = self._state
        arrays = {
            f"{number}.{name}": array
            for number, segment in enumerate(state.segments)
            for name, array in segment.arrays().items()
        }
        ids, latents, columns = replace(state, segments=()).rows_of(state.recent.living())
        arrays |= {"ids": bytes_of(ids), "latents": latents, "columns": columns}
        about = {
            "model": model,
            "seq": state.seq,
            "dimension": self.dimension,
            "columns": COLUMNS,
            "segments": len(state.segments),
        }
        write_cache(path, arrays, about)

    @classmethod
    def load(cls, path: Path, model: str, dimension: int) -> Nearest:
        """What `save` wrote.

        Raises
        ------
        CacheError
            The file is missing, damaged, or of something else.
        """
        arrays, about = read_cache(path)
        if (about["model"], about["dimension"]) != (model, dimension):
            raise CacheError(f"{path} is of model {about['model']} with {about['dimension']} dimensions")
        if about.get("columns") != list(COLUMNS):
            raise CacheError(f"{path} has other columns to filter by")
        parts: list[dict[str, NDArray[Any]]] = [{} for _ in range(about["segments"])]
        recent: dict[str, NDArray[Any]] = {}
        for key, array in arrays.items():
            number, dot, name = key.partition(".")
            (parts[int(number)] if dot else recent)[name or number] = array
        nearest = cls(dimension)
        ids = ids_of(recent["ids"]).tolist()
        rows = nearest._state.recent.with_rows(ids, recent["latents"], recent["columns"])
        nearest._slots = {star_id: slot for slot, star_id in enumerate(ids)}
        nearest._state = State(tuple(map(Segment.from_arrays, parts)), rows, about["seq"])
        with nearest._lock:
            nearest._tend()
        return nearest

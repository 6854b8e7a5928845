"""Exact nearest-neighbour search over rows that change, with filters inside the search.

Most rows stand in trees (`index.tree`). Rows written lately stand beside them and are all read; a thread of its
own builds them into trees. Every row knows the version in which it came or went, so that a search reads one
state without a lock.
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

from index.cache import CacheError, read_cache, write_cache
from index.tree import (
    COLUMNS,
    NEVER,
    Best,
    Latents,
    Limits,
    Part,
    Tree,
    empty,
    grow,
    room,
    scan,
    scan_tree,
)

RECENT = 4096
"""Rows written lately that are worth a tree: to read fewer takes no longer than to look for leaves."""

GROWTH = 8
"""A tree is built anew together with what is to join it, unless it is more than this many times as large."""

DEAD = 0.25
"""Share of rows deleted or replaced from which a tree is built anew."""

Range = tuple[str, float, float]


@dataclass(frozen=True)
class Found:
    """Ids of the nearest rows and their distances (n,) in double precision, nearest first, ties by id."""

    ids: list[str]
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Some rows: `ids` (n,), `latents` (n, D), and `columns` (n, 5) as in `Nearest.update`."""

    ids: list[str]
    latents: Latents
    columns: NDArray[np.float64]


@dataclass(frozen=True)
class _State:
    """What a search reads: trees, the first `count` rows of `recent`, as of `version`."""

    trees: tuple[Tree, ...]
    recent: Part
    count: int
    version: int
    alive: int
    seq: int


class Nearest:
    """Rows with an id, a latent (D,) and columns, searchable by Euclidean distance. Safe to use from threads.

    `seq` is a number of the caller's that goes with the rows: what they were brought up to.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.Lock()
        self._slot: dict[bytes, int] = {}
        self._lost: list[int] = []
        self._died: dict[bytes, int] = {}
        self._builder: threading.Thread | None = None
        self._state = _State((), empty(dimension, RECENT), 0, 0, 0, 0)

    def __len__(self) -> int:
        return self._state.alive

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
        """Remove rows, then add rows or replace those of the same id, all at once; of one id the last holds.

        `latents` (n, D), finite; `columns` (n, 5) are teff (K), logg, fe_h (dex), snr and in_domain (1 or 0),
        NaN where unknown. Ids to remove that are not there are passed over. The next search sees it all.
        """
        last = {star_id.encode(): row for row, star_id in enumerate(ids)}
        rows = list(last.values())
        latents = np.ascontiguousarray(latents, dtype=np.float32).reshape(-1, self.dimension)[rows]
        if not np.isfinite(latents).all():
            raise ValueError("latents must be finite")
        columns = np.asarray(columns, dtype=np.float64).reshape(-1, len(COLUMNS))[rows]
        with self._lock:
            state = self._state
            version = state.version + 1
            recent = room(state.recent, state.count, list(last))
            self._state = replace(state, recent=recent)
            gone = self._remove({star_id.encode() for star_id in removed} | set(last), version)
            count = state.count + len(rows)
            recent.ids[state.count : count] = list(last)
            recent.latents[state.count : count] = latents
            recent.columns[:, state.count : count] = columns.T
            self._slot.update(zip(last, range(state.count, count), strict=True))
            alive = state.alive - gone + len(rows)
            self._state = _State(state.trees, recent, count, version, alive, seq)
            self._tend()

    def _remove(self, ids: set[bytes], version: int) -> int:
        """Let rows die as of `version`; how many there were. The lock is held."""
        gone = 0
        elsewhere = []
        for star_id in ids:
            slot = self._slot.pop(star_id, None)
            if slot is None:
                elsewhere.append(star_id)
            else:
                self._state.recent.died[slot] = version
                self._died.setdefault(star_id, version)
                gone += 1
        if elsewhere and self._state.trees:
            wanted = np.array(elsewhere)
            for number, tree in enumerate(self._state.trees):
                slots = tree.find(wanted)
                there = slots >= 0
                there[there] = tree.died[slots[there]] == NEVER
                tree.died[slots[there]] = version
                self._lost[number] += int(there.sum())
                gone += int(there.sum())
                for star_id in wanted[there].tolist():
                    self._died.setdefault(star_id, version)
        return gone

    def search(
        self,
        latent: Latents,
        k: int,
        ranges: Sequence[Range] = (),
        without: str | None = None,
        max_distance: float = math.inf,
    ) -> Found:
        """The `k` nearest rows to `latent` (D,) in all `ranges` (column, low, high; inclusive), without one id.

        Fewer than `k` come back only when fewer pass. A row whose column is unknown passes no range of it.
        """
        return self._search(self._state, latent, k, ranges, without, max_distance)

    def search_batch(
        self,
        latents: Latents,
        k: int,
        ranges: Sequence[Sequence[Range]] | None = None,
        without: Sequence[str | None] | None = None,
        max_distance: float = math.inf,
    ) -> list[Found]:
        """As `search` for each of `latents` (Q, D), all in one state; `ranges`, `without` are one per query."""
        state = self._state
        return [
            self._search(
                state,
                latent,
                k,
                () if ranges is None else ranges[row],
                None if without is None else without[row],
                max_distance,
            )
            for row, latent in enumerate(latents)
        ]

    def _search(
        self,
        state: _State,
        latent: Latents,
        k: int,
        ranges: Sequence[Range],
        without: str | None,
        max_distance: float,
    ) -> Found:
        query = np.ascontiguousarray(latent, dtype=np.float32)
        if query.shape != (self.dimension,) or not np.isfinite(query).all():
            raise ValueError(f"a latent is {self.dimension} finite numbers")
        wanted = k if without is None else k + 1
        if k < 1 or max_distance < 0:
            return Found([], np.zeros(0))
        limits = [(COLUMNS.index(name), low, high) for name, low, high in ranges]
        best = Best(wanted, max_distance)
        _scan_recent(state, query, limits, best)
        for number, tree in enumerate(state.trees):
            scan_tree(number, tree, state.version, query, limits, best)
        parts = (*state.trees, state.recent)
        ids, distances = [], []
        for number, part in enumerate(parts):
            slots = best.slots[best.parts == number]
            differences = part.latents[slots].astype(np.float64) - query.astype(np.float64)
            distances.append(np.sqrt(np.einsum("nd,nd->n", differences, differences)))
            ids += part.ids[slots].tolist()
        distance = np.concatenate(distances)
        left_out = None if without is None else without.encode()
        order = [
            row
            for row in sorted(range(len(ids)), key=lambda row: (distance[row], ids[row]))
            if distance[row] <= max_distance and ids[row] != left_out
        ][:k]
        return Found([ids[row].decode() for row in order], distance[order])

    def sample(self, generator: np.random.Generator, most: int) -> Sample:
        """`most` different rows drawn at random, or all where there are fewer."""
        state = self._state
        sizes = [*((tree, len(tree.ids)) for tree in state.trees), (state.recent, state.count)]
        living = [np.flatnonzero(part.died[:count] > state.version) for part, count in sizes]
        ends = np.cumsum([len(slots) for slots in living])
        chosen = generator.choice(ends[-1], min(most, int(ends[-1])), replace=False)
        number = np.searchsorted(ends, chosen, side="right")
        ids = np.zeros(len(chosen), dtype=max((part.ids.dtype for part, _ in sizes), key=lambda t: t.itemsize))
        latents = np.zeros((len(chosen), self.dimension), dtype=np.float32)
        columns = np.zeros((len(chosen), len(COLUMNS)))
        for own, ((part, _), slots) in enumerate(zip(sizes, living, strict=True)):
            mine = number == own
            drawn = slots[chosen[mine] - ends[own] + len(slots)]
            ids[mine], latents[mine], columns[mine] = (
                part.ids[drawn],
                part.latents[drawn],
                part.columns[:, drawn].T,
            )
        return Sample([star_id.decode() for star_id in ids.tolist()], latents, columns)

    def settle(self) -> None:
        """Wait until no tree is being built or due."""
        while (builder := self._builder) is not None:
            builder.join()

    def _tend(self) -> None:
        """Start to build a tree if one is due and none is being built. The lock is held."""
        if self._builder is None and self._due() is not None:
            self._builder = threading.Thread(target=self._build, name="nearest", daemon=True)
            self._builder.start()

    def _due(self) -> list[int] | None:
        """The numbers of the trees to build anew together with the recent rows, or None. The lock is held."""
        state = self._state
        decayed = [number for number, tree in enumerate(state.trees) if self._lost[number] > DEAD * tree.rows]
        if state.count < RECENT and not decayed:
            return None
        rows = state.count + sum(state.trees[number].rows for number in decayed)
        chosen = set(decayed)
        for number in sorted(range(len(state.trees)), key=lambda number: state.trees[number].rows):
            size = state.trees[number].rows
            if number not in chosen and size <= GROWTH * rows:
                chosen.add(number)
                rows += size
        return sorted(chosen)

    def _build(self) -> None:
        """Build the trees that are due, one after another, beside the searches and the updates."""
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
            self._died = {}
        old = [(state.trees[number], len(state.trees[number].ids)) for number in due]
        tree = grow([*old, (state.recent, state.count)], state.version)
        with self._lock:
            self._swap(set(due), state.count, tree)
        return True

    def _swap(self, old: set[int], count: int, tree: Tree | None) -> None:
        """Put a tree in the place of old ones and of the first `count` recent rows. The lock is held."""
        state = self._state
        keep = [number for number in range(len(state.trees)) if number not in old]
        trees, lost = [state.trees[number] for number in keep], [self._lost[number] for number in keep]
        if tree is not None:
            names = list(self._died)
            slots = tree.find(np.array(names)) if names else np.zeros(0, dtype=np.int64)
            there = slots >= 0
            tree.died[slots[there]] = np.array(list(self._died.values()), dtype=np.int64)[there]
            trees.append(tree)
            lost.append(int(there.sum()))
        rest = slice(count, state.count)
        left = state.count - count
        recent = room(empty(self.dimension, RECENT), 0, state.recent.ids[rest].tolist())
        recent.ids[:left] = state.recent.ids[rest]
        recent.latents[:left] = state.recent.latents[rest]
        recent.columns[:, :left] = state.recent.columns[:, rest]
        recent.died[:left] = state.recent.died[rest]
        self._slot = {star_id: slot - count for star_id, slot in self._slot.items() if slot >= count}
        self._lost = lost
        self._state = _State(tuple(trees), recent, left, state.version, state.alive, state.seq)

    def save(self, path: Path, model: str) -> None:
        """Write rows, trees and `seq` as they are now, as those of `model`; whole or not at all."""
        state = self._state
        parts = [_arrays(tree, len(tree.ids), state.version) for tree in state.trees]
        parts.append(_arrays(state.recent, state.count, state.version))
        told = {
            "model": model,
            "seq": state.seq,
            "dimension": self.dimension,
            "columns": COLUMNS,
            "parts": len(parts),
        }
        write_cache(
            path, {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}, told
        )

    @classmethod
    def load(cls, path: Path, model: str, dimension: int) -> Nearest:
        """What `save` wrote. Raises CacheError for anything else."""
        arrays, told = read_cache(path)
        if (told["model"], told["dimension"]) != (model, dimension):
            raise CacheError(f"{path} is of model {told['model']} with {told['dimension']} dimensions")
        if told.get("columns") != list(COLUMNS):
            raise CacheError(f"{path} has other columns to filter by")
        nearest = cls(dimension)
        parts: list[dict[str, NDArray[Any]]] = [{} for _ in range(told["parts"])]
        for key, array in arrays.items():
            number, _, name = key.partition(".")
            parts[int(number)][name] = array
        for part in parts:
            part["ids"] = part["ids"].view(f"S{part['ids'].shape[1]}")[:, 0]
            part["died"] = np.where(part.pop("alive"), NEVER, 0)
        last = parts.pop()
        trees = [
            Tree(**part | {name: part[name].item() for name in ("leaf", "rows", "extent")}) for part in parts
        ]
        ids = last["ids"].tolist()
        recent = room(empty(dimension, RECENT), 0, ids)
        recent.ids[: len(ids)] = ids
        recent.latents[: len(ids)] = last["latents"]
        recent.columns[:, : len(ids)] = last["columns"]
        recent.died[: len(ids)] = last["died"]
        nearest._slot = {star_id: slot for slot, star_id in enumerate(ids) if recent.died[slot] == NEVER}
        living = [int((tree.died == NEVER).sum()) for tree in trees]
        nearest._lost = [tree.rows - alive for tree, alive in zip(trees, living, strict=True)]
        alive = sum(living) + len(nearest._slot)
        nearest._state = _State(tuple(trees), recent, len(ids), 1, alive, told["seq"])
        with nearest._lock:
            nearest._tend()
        return nearest


def _scan_recent(state: _State, query: Latents, ranges: Limits, best: Best) -> None:
    """Read all rows beside the trees."""
    passing = np.ones(state.count, dtype=bool)
    for column, low, high in ranges:
        values = state.recent.columns[column, : state.count]
        passing &= (values >= low) & (values <= high)
    scan(len(state.trees), state.recent, state.version, query, np.flatnonzero(passing), best)


def _arrays(part: Part, count: int, version: int) -> dict[str, NDArray[Any]]:
    """The arrays of a part by name, only its first `count` slots, with `alive` in the place of `died`."""
    arrays = {name: np.asarray(value) for name, value in vars(part).items()}
    arrays["alive"] = arrays.pop("died")[:count] > version
    arrays["ids"] = part.ids[:count].view(np.uint8).reshape(count, part.ids.dtype.itemsize)
    arrays["latents"], arrays["columns"] = part.latents[:count], part.columns[:, :count]
    return arrays

"""Exact nearest-neighbour search over rows that change, with filters inside the search.

Most rows stand in trees: a tree is split at medians of its principal axes into leaves, and keeps for every
leaf the box of its latents and of its columns. A leaf whose box is farther than the k-th neighbour found so
far, or outside the filters, cannot hold a neighbour and is passed over; all others are read. So nothing is
approximate. Rows written lately stand beside the trees and are all read; a thread of its own builds them into
trees. Every row knows the version in which it came or went, so that a search reads one state without a lock.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

COLUMNS = ("teff", "logg", "fe_h", "snr")

LEAF = 96
"""Most rows of a leaf."""

NODE = 16
"""Leaves of a node, whose box is looked at before theirs."""

WIDEN = 16
"""Each time a search goes on it reads this many times the nodes of the time before."""

RECENT = 32_768
"""Rows written lately that are worth a tree: to read fewer takes no longer than to look for leaves."""

GROWTH = 8
"""A tree is built anew together with what is to join it, unless it is more than this many times as large."""

DEAD = 0.25
"""Share of rows deleted or replaced from which a tree is built anew."""

TOLERANCE = 1e-4
"""Far more than the relative error of a square of a distance in single precision."""

NEVER = np.iinfo(np.int64).max

MAGIC = b"chemtwin nearest"
FORMAT = 1
ALIGNMENT = 64

Latents = NDArray[np.float32]
Slots = NDArray[np.int64]
Range = tuple[str, float, float]


class CacheError(Exception):
    """A cache that is missing, damaged or of something else; the message says which file and why."""


@dataclass(frozen=True)
class Found:
    """Ids of the nearest rows and their distances (n,) in double precision, nearest first, ties by id."""

    ids: list[str]
    distances: NDArray[np.float64]
    exact: bool = True


@dataclass(frozen=True)
class _Part:
    """Rows (S slots): `ids` (S,) bytes, `latents` (S, D), `columns` (4, S), and `died` (S,).

    A row is there from its part's first version on and until the version `died`.
    """

    ids: NDArray[np.bytes_]
    latents: Latents
    columns: NDArray[np.float64]
    died: Slots


@dataclass(frozen=True)
class _Tree(_Part):
    """A part in leaves of `leaf` slots each, leaf after leaf. Slots without a row repeat one and are dead.

    `rows` is how many rows it was built with, `order` (S,) the slots by id, of one id the row first. Boxes are
    in the principal `axes` (D, D) about `mean` (D,): of nodes `centre`, `half` (D, nodes), of leaves
    `leaf_centre`, `leaf_half` (nodes, D, leaves of a node); `column_low`, `column_high` (leaves, 4), NaN where
    no row has a value. `extent` is the largest distance of a row from the mean.
    """

    leaf: int
    rows: int
    order: Slots
    mean: Latents
    axes: Latents
    centre: Latents
    half: Latents
    leaf_centre: Latents
    leaf_half: Latents
    column_low: NDArray[np.float64]
    column_high: NDArray[np.float64]
    extent: float

    def find(self, ids: NDArray[np.bytes_]) -> Slots:
        """The slots (n,) of ids, -1 for those that the tree has not."""
        place = np.searchsorted(self.ids, ids.astype(self.ids.dtype), sorter=self.order)
        slots = self.order[np.minimum(place, len(self.order) - 1)]
        return np.where(self.ids[slots] == ids, slots, -1)


@dataclass(frozen=True)
class _State:
    """What a search reads: trees, the first `count` rows of `recent`, as of `version`."""

    trees: tuple[_Tree, ...]
    recent: _Part
    count: int
    version: int
    alive: int
    seq: int


class _Best:
    """The nearest rows found so far, a few more than `k` where they are as good as equal.

    `limit` is the square of a distance: no row beyond it can belong to the `k` nearest.
    """

    def __init__(self, k: int, max_distance: float) -> None:
        self._k = k
        self.limit = max_distance**2 * (1 + TOLERANCE)
        self.squares = np.zeros(0, dtype=np.float32)
        self.parts = self.slots = np.zeros(0, dtype=np.int64)

    def take(self, part: int, slots: Slots, squares: Latents) -> None:
        """Take in rows of a part, all within `limit`."""
        self.squares = np.concatenate([self.squares, squares])
        self.slots = np.concatenate([self.slots, slots])
        self.parts = np.concatenate([self.parts, np.full(len(slots), part)])
        if len(self.squares) >= self._k:
            furthest = float(np.partition(self.squares, self._k - 1)[self._k - 1])
            self.limit = min(self.limit, furthest * (1 + TOLERANCE))
            keep = self.squares <= self.limit
            self.squares, self.slots, self.parts = self.squares[keep], self.slots[keep], self.parts[keep]


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
        self._state = _State((), _empty(dimension, RECENT), 0, 0, 0, 0)

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

        `latents` (n, D), finite; `columns` (n, 4) are teff (K), logg, fe_h (dex) and snr, NaN where unknown.
        Ids to remove that are not there are passed over. The next search sees it all.
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
            recent = _room(state.recent, state.count, list(last))
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
        best = _Best(wanted, max_distance)
        _scan_recent(state, query, limits, best)
        for number, tree in enumerate(state.trees):
            _scan_tree(number, tree, state.version, query, limits, best)
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

    def sample(self, generator: np.random.Generator, most: int) -> Latents:
        """Latents (n, D) of `most` different rows drawn at random, or of all where there are fewer."""
        state = self._state
        sizes = [*((tree, len(tree.ids)) for tree in state.trees), (state.recent, state.count)]
        living = [np.flatnonzero(part.died[:count] > state.version) for part, count in sizes]
        ends = np.cumsum([len(slots) for slots in living])
        chosen = generator.choice(ends[-1], min(most, int(ends[-1])), replace=False)
        number = np.searchsorted(ends, chosen, side="right")
        drawn = np.zeros((len(chosen), self.dimension), dtype=np.float32)
        for own, ((part, _), slots) in enumerate(zip(sizes, living, strict=True)):
            mine = number == own
            drawn[mine] = part.latents[slots[chosen[mine] - ends[own] + len(slots)]]
        return drawn

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
        tree = _grow([*old, (state.recent, state.count)], state.version)
        with self._lock:
            self._swap(set(due), state.count, tree)
        return True

    def _swap(self, old: set[int], count: int, tree: _Tree | None) -> None:
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
        recent = _room(_empty(self.dimension, RECENT), 0, state.recent.ids[rest].tolist())
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
        parts: list[dict[str, Any]] = [_arrays(tree, len(tree.ids), state.version) for tree in state.trees]
        parts.append(_arrays(state.recent, state.count, state.version))
        chunks: list[bytes | memoryview] = []
        described, offset = [], 0
        for part in parts:
            entry = {}
            for name, array in part.items():
                content = np.ascontiguousarray(array)
                entry[name] = (content.dtype.str, content.shape, offset)
                chunks += [content.reshape(-1).view(np.uint8).data, bytes(-content.nbytes % ALIGNMENT)]
                offset += content.nbytes + len(chunks[-1])
            described.append(entry)
        checksum = 0
        for chunk in chunks:
            checksum = zlib.crc32(chunk, checksum)
        header = {"model": model, "seq": state.seq, "dimension": self.dimension, "parts": described}
        text = json.dumps({**header, "size": offset, "checksum": checksum}).encode()
        text += b" " * (-(len(MAGIC) + 12 + len(text)) % ALIGNMENT)
        start = MAGIC + b"".join(n.to_bytes(4, "little") for n in (FORMAT, len(text), zlib.crc32(text)))
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in (start, text, *chunks):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @classmethod
    def load(cls, path: Path, model: str, dimension: int) -> Nearest:
        """What `save` wrote, its rows left in the file and mapped. Raises CacheError for anything else."""
        try:
            content = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise CacheError(f"cannot read {path}: {error}") from error
        header, payload = _checked(path, np.asarray(content))
        if (header["model"], header["dimension"]) != (model, dimension):
            raise CacheError(f"{path} is of model {header['model']} with {header['dimension']} dimensions")
        nearest = cls(dimension)
        parts = []
        for entry in header["parts"]:
            part = {}
            for name, (kind, shape, offset) in entry.items():
                size = np.dtype(kind).itemsize * math.prod(shape)
                part[name] = payload[offset : offset + size].view(kind).reshape(shape)
            part["died"] = np.where(part.pop("alive"), NEVER, 0)
            parts.append(part)
        last = parts.pop()
        trees = [
            _Tree(**part | {name: part[name].item() for name in ("leaf", "rows", "extent")}) for part in parts
        ]
        ids = last["ids"].tolist()
        recent = _room(_empty(dimension, RECENT), 0, ids)
        recent.ids[: len(ids)] = ids
        recent.latents[: len(ids)] = last["latents"]
        recent.columns[:, : len(ids)] = last["columns"]
        recent.died[: len(ids)] = last["died"]
        nearest._slot = {star_id: slot for slot, star_id in enumerate(ids) if recent.died[slot] == NEVER}
        living = [int((tree.died == NEVER).sum()) for tree in trees]
        nearest._lost = [tree.rows - alive for tree, alive in zip(trees, living, strict=True)]
        alive = sum(living) + len(nearest._slot)
        nearest._state = _State(tuple(trees), recent, len(ids), 1, alive, header["seq"])
        return nearest


def _empty(dimension: int, slots: int, width: int = 1) -> _Part:
    return _Part(
        np.zeros(slots, dtype=f"S{width}"),
        np.zeros((slots, dimension), dtype=np.float32),
        np.zeros((len(COLUMNS), slots)),
        np.full(slots, NEVER),
    )


def _room(part: _Part, count: int, ids: list[bytes]) -> _Part:
    """The part itself, or a larger copy of its first `count` rows, with room for `ids` after them."""
    width = max([part.ids.dtype.itemsize, *map(len, ids)])
    if count + len(ids) <= len(part.ids) and width == part.ids.dtype.itemsize:
        return part
    larger = _empty(part.latents.shape[1], max(len(part.ids), 2 * (count + len(ids))), width)
    larger.ids[:count] = part.ids[:count]
    larger.latents[:count] = part.latents[:count]
    larger.columns[:, :count] = part.columns[:, :count]
    larger.died[:count] = part.died[:count]
    return larger


def _squares(part: _Part, slots: Slots, query: Latents) -> Latents:
    """Squares of the distances (n,) of some rows of a part to `query` (D,), in single precision."""
    squares = np.empty(len(slots), dtype=np.float32)
    pointers = [faiss.swig_ptr(array) for array in (squares, query, part.latents, slots)]
    faiss.fvec_L2sqr_by_idx(*pointers, len(query), 1, len(slots))  # type: ignore[attr-defined]
    return squares


def _scan(
    number: int,
    part: _Part,
    version: int,
    query: Latents,
    slots: Slots,
    best: _Best,
) -> None:
    """Read the rows of some slots of a part."""
    squares = _squares(part, slots, query)
    near = np.flatnonzero(squares <= best.limit)
    near = near[part.died[slots[near]] > version]
    if len(near):
        best.take(number, slots[near], squares[near])


def _scan_recent(state: _State, query: Latents, ranges: list[tuple[int, float, float]], best: _Best) -> None:
    """Read all rows beside the trees."""
    passing = np.ones(state.count, dtype=bool)
    for column, low, high in ranges:
        values = state.recent.columns[column, : state.count]
        passing &= (values >= low) & (values <= high)
    _scan(len(state.trees), state.recent, state.version, query, np.flatnonzero(passing), best)


def _scan_tree(
    number: int,
    tree: _Tree,
    version: int,
    query: Latents,
    ranges: list[tuple[int, float, float]],
    best: _Best,
) -> None:
    """Read all leaves of a tree that may hold a row nearer than `best.limit`, nearest nodes first."""
    with np.errstate(over="ignore"):
        turned = (query.astype(np.float64) - tree.mean) @ tree.axes
        # single precision moves a coordinate of a row or the query by less than this
        error = (2 * len(query) + 8) * 6e-8 * (tree.extent + float(np.linalg.norm(turned)))
        slack = math.sqrt(len(query)) * error
        place = turned.astype(np.float32)
    matching = np.ones(len(tree.column_low), dtype=bool)
    for column, low, high in ranges:
        matching &= (tree.column_low[:, column] <= high) & (tree.column_high[:, column] >= low)
    by_node = matching.reshape(len(tree.leaf_centre), -1)
    bounds = _bounds(tree.centre, tree.half, place[:, None], 0)
    order = np.argsort(bounds)
    order = order[np.any(by_node[order], axis=1)]
    start, size = 0, 1
    while start < len(order):
        reach = (math.sqrt(best.limit) + slack) ** 2
        nodes = order[start : start + size]
        nodes = nodes[np.less_equal(bounds[nodes], reach)]
        if len(nodes) == 0:
            return
        near = _bounds(tree.leaf_centre[nodes], tree.leaf_half[nodes], place[:, None], 1) <= reach
        node, leaf = np.nonzero(near & by_node[nodes])
        leaves = nodes[node] * by_node.shape[1] + leaf
        slots = leaves[:, None] * tree.leaf + np.arange(tree.leaf)
        passing = np.ones(slots.shape, dtype=bool)
        for column, low, high in ranges:
            values = tree.columns[column].reshape(-1, tree.leaf)[leaves]
            passing &= (values >= low) & (values <= high)
        _scan(number, tree, version, query, slots[passing] if ranges else slots.reshape(-1), best)
        start, size = start + size, WIDEN * size


def _bounds(centre: Latents, half: Latents, place: Latents, axis: int) -> Latents:
    """Squares of the distances from `place` to boxes whose dimensions lie along `axis`."""
    with np.errstate(over="ignore"):
        gaps = np.abs(centre - place)
        gaps -= half
        np.maximum(gaps, 0, out=gaps)
        np.square(gaps, out=gaps)
        return np.asarray(gaps.sum(axis=axis))


def _grow(parts: list[tuple[_Part, int]], version: int) -> _Tree | None:
    """The tree of those of the first so many rows of parts that are alive at `version`; None without rows."""
    kept = [np.flatnonzero(part.died[:count] > version) for part, count in parts]
    chosen = list(zip((part for part, _ in parts), kept, strict=True))
    latents = np.concatenate([part.latents[rows] for part, rows in chosen])
    rows = len(latents)
    if rows == 0:
        return None
    mean = latents.mean(axis=0, dtype=np.float64).astype(np.float32)
    sample = latents[:: max(1, rows // 100_000)].astype(np.float64) - mean
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1].astype(np.float32)
    turned = (latents - mean) @ axes
    extent = float(np.sqrt(np.einsum("nd,nd->n", turned, turned).max()))
    leaves = 1
    while leaves * LEAF < rows:
        leaves *= 2
    leaf = -(-rows // leaves)
    slots = _split(turned, leaves, leaf)
    boxes = turned[slots].reshape(leaves, leaf, -1)
    low, high = boxes.min(axis=1), boxes.max(axis=1)
    del turned, boxes
    in_node = min(leaves, NODE)
    by_node = low.reshape(-1, in_node, low.shape[1]), high.reshape(-1, in_node, low.shape[1])
    node_low, node_high = by_node[0].min(axis=1).T, by_node[1].max(axis=1).T
    leaf_low, leaf_high = (np.ascontiguousarray(box.transpose(0, 2, 1)) for box in by_node)
    columns = np.concatenate([part.columns[:, own] for part, own in chosen], axis=1)[:, slots]
    ids = np.concatenate([part.ids[own] for part, own in chosen])[slots]
    first = np.zeros(rows, dtype=np.int64)
    places = np.arange(len(slots))
    first[slots[::-1]] = places[::-1]
    died = np.zeros(len(slots), dtype=np.int64)
    died[first] = NEVER
    by_leaf = columns.reshape(len(COLUMNS), leaves, leaf)
    return _Tree(
        ids=ids,
        latents=latents[slots],
        columns=columns,
        died=died,
        leaf=leaf,
        rows=rows,
        order=np.argsort(ids, kind="stable"),
        mean=mean,
        axes=axes,
        centre=np.ascontiguousarray((node_low + node_high) / 2, dtype=np.float32),
        half=np.ascontiguousarray((node_high - node_low) / 2, dtype=np.float32),
        leaf_centre=(leaf_low + leaf_high) / 2,
        leaf_half=(leaf_high - leaf_low) / 2,
        column_low=np.fmin.reduce(by_leaf, axis=2).T.copy(),
        column_high=np.fmax.reduce(by_leaf, axis=2).T.copy(),
        extent=extent,
    )


def _split(turned: Latents, leaves: int, leaf: int) -> Slots:
    """The rows (leaves * leaf,) of `turned` (N, D) leaf by leaf; what is over repeats the first rows.

    Every node is halved at the median of the axis along which its rows, or 128 of them, spread most.
    """
    rows = np.arange(leaves * leaf) % len(turned)
    nodes = 1
    while nodes < leaves:
        grid = rows.reshape(nodes, -1)
        axis = turned[grid[:, :128]].var(axis=1).argmax(axis=1)
        values = turned[grid, axis[:, None]]
        halves = np.argpartition(values, grid.shape[1] // 2, axis=1)
        rows = np.take_along_axis(grid, halves, axis=1).reshape(-1)
        nodes *= 2
    return rows


def _arrays(part: _Part, count: int, version: int) -> dict[str, NDArray[Any]]:
    """The arrays of a part by name, only its first `count` slots, with `alive` in the place of `died`."""
    arrays = {name: np.asarray(value) for name, value in vars(part).items()}
    arrays["alive"] = arrays.pop("died")[:count] > version
    arrays["ids"], arrays["latents"] = part.ids[:count], part.latents[:count]
    arrays["columns"] = part.columns[:, :count]
    return arrays


def _checked(path: Path, content: NDArray[np.uint8]) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The header of a cache and what follows it."""
    head = len(MAGIC) + 12
    if len(content) < head or content[: len(MAGIC)].tobytes() != MAGIC:
        raise CacheError(f"{path} is no cache of a search")
    version, size, checksum = np.frombuffer(content[len(MAGIC) : head].tobytes(), dtype="<u4").tolist()
    if version != FORMAT:
        raise CacheError(f"{path} is of format {version}, not {FORMAT}")
    text, payload = content[head : head + size].tobytes(), content[head + size :]
    if zlib.crc32(text) != checksum:
        raise CacheError(f"{path} is damaged in its header")
    header: dict[str, Any] = json.loads(text)
    if len(payload) != header["size"] or zlib.crc32(payload.data) != header["checksum"]:
        raise CacheError(f"{path} is damaged or cut short")
    return header, payload

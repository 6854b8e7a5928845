"""Trees of rows for exact nearest-neighbour search.

A tree is split at medians of its principal axes into leaves, and keeps for every leaf the box of its latents
and of its columns. A leaf whose box is farther than the k-th neighbour found so far, or outside the filters,
cannot hold a neighbour and is passed over; all others are read. So nothing is approximate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from index.leaves import TOLERANCE, bounds_of, read_leaves

COLUMNS = ("teff", "logg", "fe_h", "snr", "in_domain")
"""What a search can be filtered by; `in_domain` is 1 or 0."""

LEAF = 96
"""Most rows of a leaf."""

NODE = 16
"""Leaves of a node, whose box is looked at before theirs."""

LEADING = 8
"""Principal components by which most rows of a leaf are passed over: less than half of the memory to read."""

NEVER = np.iinfo(np.int64).max

Latents = NDArray[np.float32]
Slots = NDArray[np.int64]
Limits = list[tuple[int, float, float]]
"""Inclusive ranges by the column's number."""


@dataclass(frozen=True)
class Part:
    """Rows (S slots): `ids` (S,) bytes, `latents` (S, D), `columns` (5, S), and `died` (S,).

    A row is there from its part's first version on and until the version `died`.
    """

    ids: NDArray[np.bytes_]
    latents: Latents
    columns: NDArray[np.float64]
    died: Slots


@dataclass(frozen=True)
class Tree(Part):
    """A part in leaves of `leaf` slots each, leaf after leaf. Slots without a row repeat one and are dead.

    `rows` is how many rows it was built with, `order` (S,) the slots by id, of one id the row first. Boxes are
    in the principal `axes` (D, D) about `mean` (D,): of nodes `centre`, `half` (D, nodes), of leaves
    `leaf_centre`, `leaf_half` (nodes, D, leaves of a node); `leading` (leaves, `LEADING` or D, leaf) are
    the rows' first coordinates there. `column_low`, `column_high` (leaves, 5), NaN where no row has a value.
    `extent` is the largest distance of a row from the mean.
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
    leading: Latents
    column_low: NDArray[np.float64]
    column_high: NDArray[np.float64]
    extent: float

    def find(self, ids: NDArray[np.bytes_]) -> Slots:
        """The slots (n,) of ids, -1 for those that the tree has not."""
        place = np.searchsorted(self.ids, ids.astype(self.ids.dtype), sorter=self.order)
        slots = self.order[np.minimum(place, len(self.order) - 1)]
        return np.where(self.ids[slots] == ids, slots, -1)


class Best:
    """The nearest rows found so far, a few more than `k` where they are as good as equal.

    `limit` is the square of a distance: no row beyond it can belong to the `k` nearest.
    """

    def __init__(self, k: int, max_distance: float) -> None:
        self.k = k
        self.limit = max_distance**2 * (1 + TOLERANCE)
        self.squares = np.zeros(0, dtype=np.float32)
        self.parts = self.slots = np.zeros(0, dtype=np.int64)

    def take(self, part: int, slots: Slots, squares: Latents) -> None:
        """Take in rows of a part, all within `limit`."""
        self.squares = np.concatenate([self.squares, squares])
        self.slots = np.concatenate([self.slots, slots])
        self.parts = np.concatenate([self.parts, np.full(len(slots), part)])
        if len(self.squares) >= self.k:
            furthest = float(np.partition(self.squares, self.k - 1)[self.k - 1])
            self.limit = min(self.limit, furthest * (1 + TOLERANCE))
            keep = self.squares <= self.limit
            self.squares, self.slots, self.parts = self.squares[keep], self.slots[keep], self.parts[keep]


def empty(dimension: int, slots: int, width: int = 1) -> Part:
    """A part of slots to be filled, with ids of `width` bytes."""
    return Part(
        np.zeros(slots, dtype=f"S{width}"),
        np.zeros((slots, dimension), dtype=np.float32),
        np.zeros((len(COLUMNS), slots)),
        np.full(slots, NEVER),
    )


def room(part: Part, count: int, ids: list[bytes]) -> Part:
    """The part itself, or a larger copy of its first `count` rows, with room for `ids` after them."""
    width = max([part.ids.dtype.itemsize, *map(len, ids)])
    if count + len(ids) <= len(part.ids) and width == part.ids.dtype.itemsize:
        return part
    larger = empty(part.latents.shape[1], max(len(part.ids), 2 * (count + len(ids))), width)
    larger.ids[:count] = part.ids[:count]
    larger.latents[:count] = part.latents[:count]
    larger.columns[:, :count] = part.columns[:, :count]
    larger.died[:count] = part.died[:count]
    return larger


def _squares(rows: Latents, slots: Slots, query: Latents) -> Latents:
    """Squares of the distances (n,) of some of `rows` (S, d) to the first d of `query`, in single precision."""
    squares = np.empty(len(slots), dtype=np.float32)
    pointers = [faiss.swig_ptr(array) for array in (squares, query, rows, slots)]
    faiss.fvec_L2sqr_by_idx(*pointers, rows.shape[1], 1, len(slots))  # type: ignore[attr-defined]
    return squares


def scan(
    number: int,
    part: Part,
    version: int,
    query: Latents,
    slots: Slots,
    best: Best,
) -> None:
    """Read the rows of some slots of a part."""
    squares = _squares(part.latents, slots, query)
    near = np.flatnonzero(squares <= best.limit)
    near = near[part.died[slots[near]] > version]
    if len(near):
        best.take(number, slots[near], squares[near])


def scan_tree(
    number: int,
    tree: Tree,
    version: int,
    query: Latents,
    ranges: Limits,
    best: Best,
) -> None:
    """Read all leaves of a tree that may hold a row nearer than `best.limit`, nearest nodes first."""
    with np.errstate(over="ignore"):
        turned = (query.astype(np.float64) - tree.mean) @ tree.axes
        # single precision moves a coordinate of a row or the query by less than this
        error = (2 * len(query) + 8) * 6e-8 * (tree.extent + float(np.linalg.norm(turned)))
        place = turned.astype(np.float32)
    bounds = bounds_of(tree.centre, tree.half, place)
    slots, squares = read_leaves(
        bounds,
        np.argsort(bounds),
        tree.leaf_centre,
        tree.leaf_half,
        tree.column_low,
        tree.column_high,
        tree.leading,
        tree.latents,
        tree.columns,
        tree.died,
        version,
        query,
        place,
        np.array(ranges, dtype=np.float64).reshape(-1, 3),
        best.squares,
        best.k,
        best.limit,
        math.sqrt(len(query)) * error,
    )
    best.take(number, slots, squares)


def warm() -> None:
    """Compile what a search runs, for seconds where this machine has not yet done so, that no search has to."""
    tree = grow([(empty(1, 1), 1)], 0)
    assert tree is not None
    scan_tree(0, tree, 0, np.zeros(1, dtype=np.float32), [], Best(1, math.inf))


def grow(parts: list[tuple[Part, int]], version: int) -> Tree | None:
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
    leading = turned[slots, :LEADING].reshape(leaves, leaf, -1).transpose(0, 2, 1).copy()
    boxes = turned[slots].reshape(leaves, leaf, -1)
    low, high = boxes.min(axis=1), boxes.max(axis=1)
    del turned, boxes
    in_node = min(leaves, NODE)
    by_node = low.reshape(-1, in_node, low.shape[1]), high.reshape(-1, in_node, low.shape[1])
    node_low, node_high = by_node[0].min(axis=1).T, by_node[1].max(axis=1).T
    leaf_low, leaf_high = (np.ascontiguousarray(box.transpose(0, 2, 1)) for box in by_node)
    columns = np.concatenate([part.columns[:, own] for part, own in chosen], axis=1)
    columns = np.ascontiguousarray(columns[:, slots])
    ids = np.concatenate([part.ids[own] for part, own in chosen])[slots]
    first = np.zeros(rows, dtype=np.int64)
    places = np.arange(len(slots))
    first[slots[::-1]] = places[::-1]
    died = np.zeros(len(slots), dtype=np.int64)
    died[first] = NEVER
    by_leaf = columns.reshape(len(COLUMNS), leaves, leaf)
    return Tree(
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
        leading=leading,
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

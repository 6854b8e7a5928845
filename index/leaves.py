"""Reading the leaves of a tree, compiled; without the interpreter's lock, so that searches run side by side."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.compiled import compiled

TOLERANCE = 1e-4
"""Far more than the relative error of a square of a distance in single precision."""


@compiled
def bounds_of(
    centre: NDArray[np.float32], half: NDArray[np.float32], place: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Squares of the distances (N,) from `place` (D,) to boxes: their centres and half widths (D, N)."""
    squares = np.zeros(centre.shape[1], np.float32)
    for axis in range(centre.shape[0]):
        own = place[axis]
        for box in range(centre.shape[1]):
            gap = max(abs(centre[axis, box] - own) - half[axis, box], np.float32(0))
            squares[box] += gap * gap
    return squares


@compiled
def _reach(limit: float, slack: float) -> np.float32:
    """The square of a distance to a box, or along some axes, from which on a row is out of `limit`."""
    return np.float32((math.sqrt(limit) + slack) ** 2)


@compiled
def _sink(heap: NDArray[np.float32], square: np.float32) -> None:
    """Put `square` in the place of the largest of a heap whose first element is its largest."""
    hole, child = 0, 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= square:
            break
        heap[hole] = heap[child]
        hole, child = child, 2 * child + 1
    heap[hole] = square


@compiled
def read_leaves(
    bounds: NDArray[np.float32],
    order: NDArray[np.int64],
    leaf_centre: NDArray[np.float32],
    leaf_half: NDArray[np.float32],
    column_low: NDArray[np.float64],
    column_high: NDArray[np.float64],
    leading: NDArray[np.float32],
    latents: NDArray[np.float32],
    columns: NDArray[np.float64],
    died: NDArray[np.int64],
    version: int,
    query: NDArray[np.float32],
    place: NDArray[np.float32],
    limits: NDArray[np.float64],
    known: NDArray[np.float32],
    k: int,
    limit: float,
    slack: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Slots (n,) of a tree's rows that may be among the `k` nearest, and the squares of their distances (n,).

    The arrays are those of `index.tree.Tree`; `bounds` of its nodes and the `order` in which to look at them,
    nearest first; `place` (D,) is the `query` in the tree's axes. `limits` (L, 3): a column's number and its
    inclusive range. `known`: squares of rows found elsewhere. No row with a square beyond `limit` is asked for;
    `slack` is how much single precision may move a distance in the axes.
    """
    heap = np.full(k, np.inf, np.float32)
    for square in known:
        if square < heap[0]:
            _sink(heap, square)
    reach = _reach(limit, slack)
    leaves, size = leaf_centre.shape[2], leading.shape[2]
    of_leaf, of_row = np.empty(leaves, np.float32), np.empty(size, np.float32)
    slots, squares, found = np.empty(256, np.int64), np.empty(256, np.float32), 0
    for node in order:
        if bounds[node] > reach:
            break
        of_leaf[:] = 0
        for axis in range(len(query)):
            own = place[axis]
            for leaf in range(leaves):
                gap = abs(leaf_centre[node, axis, leaf] - own) - leaf_half[node, axis, leaf]
                gap = max(gap, np.float32(0))
                of_leaf[leaf] += gap * gap
        for leaf in range(leaves):
            if of_leaf[leaf] > reach:
                continue
            number = node * leaves + leaf
            matches = True
            for which in range(len(limits)):
                column = int(limits[which, 0])
                matches &= column_low[number, column] <= limits[which, 2]
                matches &= column_high[number, column] >= limits[which, 1]
            if not matches:
                continue
            of_row[:] = 0
            for axis in range(leading.shape[1]):
                own = place[axis]
                for row in range(size):
                    gap = leading[number, axis, row] - own
                    of_row[row] += gap * gap
            for row in range(size):
                if of_row[row] > reach:
                    continue
                slot = number * size + row
                square = np.float32(0)
                for axis in range(len(query)):
                    gap = latents[slot, axis] - query[axis]
                    square += gap * gap
                if not square <= limit or died[slot] <= version:
                    continue
                matches = True
                for which in range(len(limits)):
                    value = columns[int(limits[which, 0]), slot]
                    matches &= value >= limits[which, 1] and value <= limits[which, 2]
                if not matches:
                    continue
                if found == len(slots):
                    slots, squares = np.append(slots, slots), np.append(squares, squares)
                slots[found], squares[found] = slot, square
                found += 1
                if square < heap[0]:
                    _sink(heap, square)
                    limit = min(limit, float(heap[0]) * (1 + TOLERANCE))
                    reach = _reach(limit, slack)
    near = squares[:found] <= limit
    return slots[:found][near], squares[:found][near]

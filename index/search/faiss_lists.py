"""Rows of a catalogue in a FAISS inverted file whose lists are searched by bound, so that the result is exact.

Rows are split at medians of their principal axes into lists of equal size. Each list comes with the box of its
latents along those axes and the range of its columns. A list whose box is farther away than the k-th row found
so far, or whose columns lie outside a filter, cannot contain a neighbour; FAISS reads all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned
from numpy.typing import NDArray

from index.stores.star import STAR_TABLE

COLUMNS = STAR_TABLE.searched
"""What a search can be filtered by."""

WITHIN = "fe_h"
"""The column that most searches limit. A list's rows are in its order: those of a range are together."""

LIST = 512
"""Most rows of a list: shorter and longer ones were no faster at 1e5 and 1e6 rows."""

MOST_LISTS = 16384
"""Most lists, in however many rows: their boxes are all looked at."""

ROUND, GROWTH = 16, 32
"""Lists of the first round of a search, and how many times more are in each later round."""

TOLERANCE = 1e-4
"""Far more than the relative error of a squared distance in single precision."""

LARGEST, FAR = 1e15, 1e18
"""The largest absolute value of a latent, and all coordinates of a slot without a row."""

BEYOND = 1e35
"""Of a squared distance: more than between two latents, less than to a slot without a row."""

Latents = NDArray[np.float32]
Slots = NDArray[np.int64]
Bits = NDArray[np.uint8]
Range = tuple[str, float, float]
"""A column's name and an inclusive range."""


class Rows(NamedTuple):
    """Rows: `ids` (n,), `latents` (n, D) and `columns` (C, n)."""

    ids: NDArray[np.bytes_]
    latents: Latents
    columns: NDArray[np.float64]


class Hits:
    """The nearest rows found so far: `squares` (n,) of their distances in single precision and `rows` (n,).

    Parameters
    ----------
    k
        How many rows are wanted.
    most
        How many are stored, at least `k`: those after the k-th are as near in single precision.
    max_distance
        No row farther away is wanted.
    """

    def __init__(self, k: int, most: int, max_distance: float) -> None:
        self.k, self.most = k, most
        self.limit = min(max_distance**2 * (1 + TOLERANCE), BEYOND)
        """Square of the distance beyond which no row is wanted any more."""
        self.squares = np.zeros(0, dtype=np.float32)
        self.rows = np.zeros(0, dtype=np.int64)

    def add(self, squares: Latents, rows: Slots) -> None:
        """Add rows, given nearest first; only the `most` nearest within the limit remain."""
        if len(self.rows):
            squares, rows = np.concatenate([self.squares, squares]), np.concatenate([self.rows, rows])
            order = squares.argsort()[: self.most]
            squares, rows = squares[order], rows[order]
        if len(squares) >= self.k:
            self.limit = min(self.limit, float(squares[self.k - 1]) * (1 + TOLERANCE))
        near = squares.searchsorted(self.limit, side="right")
        self.squares, self.rows = squares[:near], rows[:near]


@dataclass(frozen=True)
class Segment:
    """Rows that do not change, but for being marked as deleted in a copy.

    L lists of R slots; slot S is in list S // R. A slot without a row is FAR, has no id, and is not `alive`.
    """

    index: faiss.IndexIVFFlat
    """The latents (L R, D) as they were given, by slot."""
    ids: NDArray[np.bytes_]
    """Star ids (L R,), empty where a slot has no row."""
    columns: NDArray[np.float64]
    """Values (C, L, R) of COLUMNS, NaN where unknown."""
    alive: Bits
    """Bits (L, R / 8), the first slot in the lowest: it has a row that is not deleted."""
    rows: int
    """Rows that were not deleted when it was built."""
    deleted: int
    """Rows that have been deleted since."""
    order: Slots
    """Slots (L R,) by star id."""
    mean: Latents
    """Origin (D,) of the axes."""
    axes: Latents
    """Principal axes (D, D), one in a column."""
    boxes: Latents
    """Centres and half widths (2, D, L) of the lists' boxes."""
    column_ranges: NDArray[np.float64]
    """Lowest and highest value (2, C, L) of each column in each list, NaN where no row has one."""
    extent: float
    """Largest distance of a row from the mean."""

    @classmethod
    def build(cls, ids: NDArray[np.bytes_], latents: Latents, columns: NDArray[np.float64]) -> Segment:
        """The segment of some rows.

        Parameters
        ----------
        ids
            Star ids (n,), all different, at least one.
        latents
            Latents (n, D).
        columns
            Values (C, n) of COLUMNS, NaN where unknown.
        """
        rows = len(latents)
        mean = latents.mean(axis=0, dtype=np.float64).astype(np.float32)
        sample = latents[:: max(1, rows // 100_000)].astype(np.float64) - mean
        axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1].astype(np.float32)
        turned = (latents - mean) @ axes
        extent = float(np.sqrt(np.einsum("nd,nd->n", turned, turned).max()))
        lists = 1
        while lists * LIST < rows and lists < MOST_LISTS:
            lists *= 2
        grid = _split(turned, lists)
        order = columns[COLUMNS.index(WITHIN)][grid].argsort(axis=1)
        grid = np.take_along_axis(grid, order, axis=1)
        alive = np.zeros(grid.size, dtype=bool)
        alive[np.unique(grid, return_index=True)[1]] = True
        boxes = turned[grid]
        low, high = boxes.min(axis=1), boxes.max(axis=1)
        del turned, boxes
        ids, values = ids[grid.reshape(-1)], np.take(columns, grid, axis=1)
        latents = latents[grid.reshape(-1)]
        ids[~alive], latents[~alive] = b"", FAR
        return cls(
            index=_inverted_file(latents, lists),
            ids=ids,
            columns=values,
            alive=np.packbits(alive, bitorder="little").reshape(lists, -1),
            rows=rows,
            deleted=0,
            order=np.argsort(ids),
            mean=mean,
            axes=axes,
            boxes=np.stack([(low + high).T / 2, (high - low).T / 2]),
            column_ranges=np.stack([np.fmin.reduce(values, axis=2), np.fmax.reduce(values, axis=2)]),
            extent=extent,
        )

    def find(self, ids: NDArray[np.bytes_]) -> Slots:
        """The slots (m,) of star ids (n,) that are here and not deleted."""
        at = np.searchsorted(self.ids, ids.astype(self.ids.dtype), sorter=self.order)
        slots = self.order[np.minimum(at, len(self.order) - 1)]
        slots = slots[self.ids[slots] == ids]
        bits = self.alive.reshape(-1)[slots // 8] >> (slots % 8).astype(np.uint8)
        found: Slots = slots[(bits & 1).astype(bool)]
        return found

    def without(self, slots: Slots) -> Segment:
        """A copy with the rows in these slots marked as deleted; they must not be yet."""
        bits = np.unpackbits(self.alive, bitorder="little")
        bits[slots] = 0
        alive = np.packbits(bits, bitorder="little").reshape(self.alive.shape)
        return replace(self, alive=alive, deleted=self.deleted + len(slots))

    def deleted_until(self, later: Segment) -> Slots:
        """The slots of rows that are deleted in a `later` copy and not in this."""
        return np.flatnonzero(np.unpackbits(self.alive & ~later.alive, bitorder="little"))

    def living(self) -> Slots:
        """The slots of all rows that are not deleted."""
        return np.flatnonzero(np.unpackbits(self.alive, bitorder="little"))

    def rows_of(self, slots: Slots) -> Rows:
        """The rows in these slots."""
        columns = self.columns.reshape(len(COLUMNS), -1)
        return Rows(self.ids[slots], self.index.reconstruct_batch(slots), columns[:, slots])

    def search(self, query: Latents, ranges: Sequence[Range], hits: Hits, offset: int) -> None:
        """Add to `hits` every row that belongs there.

        Parameters
        ----------
        query
            A latent (D,).
        ranges
            Only rows within all of them.
        hits
            What other segments have given so far.
        offset
            Added to a slot, it is the row's number in `hits`.
        """
        turned = (query.astype(np.float64) - self.mean) @ self.axes
        # single precision moves a coordinate of a row or the query by less than this
        error = (2 * len(query) + 8) * 6e-8 * (self.extent + math.sqrt(turned @ turned))
        slack = math.sqrt(len(query)) * error
        bounds = _squared_distances(self.boxes, turned.astype(np.float32))
        if ranges:
            bounds[~self._lists_within(ranges)] = np.inf
        reader = _Reader(self, query, ranges)
        count = ROUND
        while True:
            (lists,) = (bounds <= (math.sqrt(hits.limit) + slack) ** 2).nonzero()
            if len(lists) == 0:
                break
            if len(lists) > count:
                lists = lists[bounds[lists].argpartition(count)[:count]]
            squares, slots = reader.read(lists, hits.most)
            hits.add(squares, slots + offset)
            bounds[lists] = np.inf
            count *= GROWTH

    def _lists_within(self, ranges: Sequence[Range]) -> NDArray[np.bool_]:
        """Which lists (L,) may have a row within all ranges."""
        within = np.ones(self.column_ranges.shape[2], dtype=bool)
        for name, low, high in ranges:
            lowest, highest = self.column_ranges[:, COLUMNS.index(name)]
            within &= lowest <= high
            within &= highest >= low
        return within

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as named arrays of numbers, for a file; the FAISS index in its own file format."""
        arrays = {name: np.asarray(value) for name, value in vars(self).items() if name != "index"}
        return {**arrays, "ids": bytes_of(self.ids), "index": faiss.serialize_index(self.index)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Segment:
        """The segment whose `arrays` these are; FAISS copies its table of slots alone."""
        numbers = {name: arrays[name].item() for name in ("rows", "deleted", "extent")}
        content = arrays["index"]
        index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(content), content.size))
        index.referenced_objects = [content]  # kept as long as the index that reads it
        return cls(**arrays | numbers | {"ids": ids_of(arrays["ids"]), "index": index})


class _Reader:
    """Lets FAISS read lists of a segment for one search: what FAISS is given is made once, for all rounds.

    Parameters
    ----------
    segment
        Whose lists.
    query
        A latent (D,).
    ranges
        Only rows within all of them.
    """

    def __init__(self, segment: Segment, query: Latents, ranges: Sequence[Range]) -> None:
        self._segment, self._query, self._ranges = segment, query, ranges
        selector = None
        if ranges or segment.deleted:
            # bits of lists that are not read may be anything
            self._selected = np.empty_like(segment.alive) if ranges else segment.alive
            selector = faiss.IDSelectorBitmap(self._selected.reshape(-1))
        self._parameters = faiss.SearchParametersIVF(sel=selector)

    def read(self, lists: Slots, most: int) -> tuple[Latents, Slots]:
        """Squared distances and slots of the nearest rows of some lists, nearest first, at most `most`.

        Where there are fewer, squared distances beyond BEYOND follow.
        """
        if self._ranges:
            self._select(lists)
        self._parameters.nprobe = len(lists)
        squares = np.empty(most, dtype=np.float32)
        slots = np.empty(most, dtype=np.int64)
        unused = np.empty(len(lists), dtype=np.float32)
        pointers = [faiss.swig_ptr(array) for array in (lists, unused, squares, slots)]
        self._segment.index.search_preassigned_c(
            1, faiss.swig_ptr(self._query), most, *pointers, False, self._parameters
        )
        return squares, slots

    def _select(self, lists: Slots) -> None:
        """Select the rows of some lists that are within all ranges and not deleted."""
        segment = self._segment
        within = np.ones((len(lists), segment.columns.shape[2]), dtype=bool)
        for name, low, high in self._ranges:
            values = segment.columns[COLUMNS.index(name)].take(lists, axis=0)
            within &= values >= low
            within &= values <= high
        bits = np.packbits(within, axis=1, bitorder="little")
        self._selected[lists] = bits & segment.alive[lists] if segment.deleted else bits


def bytes_of(ids: NDArray[np.bytes_]) -> NDArray[np.uint8]:
    """The bytes (n, width) of star ids (n,)."""
    return ids.view(np.uint8).reshape(len(ids), ids.dtype.itemsize)


def ids_of(numbers: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """The star ids (n,) whose bytes (n, width) these are."""
    return numbers.view(f"S{numbers.shape[1]}")[:, 0]


def _inverted_file(latents: Latents, lists: int) -> faiss.IndexIVFFlat:
    """An inverted file of latents (L R, D), list by list. Its quantizer is never asked."""
    quantizer = faiss.IndexFlatL2(latents.shape[1])
    index = faiss.IndexIVFFlat(quantizer, latents.shape[1], lists)
    index.own_fields = True
    quantizer.this.disown()
    index.is_trained = True
    add_preassigned(index, latents, np.repeat(np.arange(lists), len(latents) // lists))
    index.make_direct_map()
    return index


def _squared_distances(boxes: Latents, point: Latents) -> Latents:
    """Squares of the distances (L,) from a point (D,) to boxes, centres and half widths (2, D, L)."""
    gaps = boxes[0] - point[:, None]
    np.abs(gaps, out=gaps)
    gaps -= boxes[1]
    np.maximum(gaps, 0, out=gaps)
    squares: Latents = np.einsum("dl,dl->l", gaps, gaps)
    return squares


def _split(turned: Latents, lists: int) -> Slots:
    """The rows (L, R) of `turned` (n, D) list by list. R is a multiple of 8; the last slots repeat rows.

    Every part is halved at the median of the axis along which its rows, or 128 of them, spread most.
    """
    rows = np.arange(lists * 8 * -(-len(turned) // (8 * lists))) % len(turned)
    parts = 1
    while parts < lists:
        grid = rows.reshape(parts, -1)
        axis = turned[grid[:, :128]].var(axis=1).argmax(axis=1)
        halves = np.argpartition(turned[grid, axis[:, None]], grid.shape[1] // 2, axis=1)
        rows = np.take_along_axis(grid, halves, axis=1).reshape(-1)
        parts *= 2
    return rows.reshape(lists, -1)

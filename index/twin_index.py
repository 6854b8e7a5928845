"""Exact nearest-twin search: FAISS over the store's rows, caught up with them before every search."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from index.store import Change, Star, Store

COLUMNS = ("teff", "logg", "fe_h", "snr")
RATE_PAIRS = 1_000_000
RATE_STARS = 1_000
RATE_DRIFT = 0.01
RATE_BLOCK = 100_000


@dataclass(frozen=True)
class Filters:
    """Inclusive ranges by column name (teff, logg, fe_h, snr) and the largest distance."""

    ranges: tuple[tuple[str, float, float], ...] = ()
    max_distance: float = np.inf


@dataclass(frozen=True)
class Twin:
    """A neighbour and its Euclidean distance."""

    star_id: str
    distance: float


class TwinIndex:
    """The stars of one model, searchable. The store is the truth; this is a view of it in memory."""

    def __init__(self, store: Store, model: str, dimension: int) -> None:
        self.store = store
        self.model = model
        self._lock = threading.RLock()
        self._seq = 0
        self._slot: dict[str, int] = {}
        self._ids: list[str] = []
        self._alive = np.zeros(0, dtype=bool)
        self._columns = {name: np.zeros(0) for name in COLUMNS}
        self._flat = faiss.IndexFlatL2(dimension)
        self._rates: NDArray[np.float32] | None = None
        self._changed_since_rates = 0
        self.catch_up()

    def __len__(self) -> int:
        return len(self._slot)

    def upsert(self, stars: list[Star], spectra: Sequence[bytes | None] | None = None) -> list[bool]:
        """Store stars (on disk on return); the next search sees them. Says which replaced another."""
        return self.store.upsert(stars, spectra)

    def delete(self, star_id: str) -> bool:
        """Delete a star (on disk on return). False if there was none."""
        return self.store.delete(star_id)

    def catch_up(self) -> None:
        """Take in what this or any other process has written since the last time."""
        with self._lock:
            last = self.store.last_seq()
            if last == self._seq:
                return
            while changes := self.store.changes(self.model, self._seq):
                self._apply(changes)
                self._seq = changes[-1].seq
            self._seq = max(self._seq, last)
            if len(self._ids) > 1000 and len(self._slot) < 0.75 * len(self._ids):
                self._compact()

    def _apply(self, changes: list[Change]) -> None:
        new = []
        for change in changes:
            slot = self._slot.pop(change.star_id, None)
            if slot is not None:
                self._alive[slot] = False
                self._changed_since_rates += 1
            if change.latent is not None:
                self._slot[change.star_id] = len(self._ids)
                self._ids.append(change.star_id)
                new.append(change)
        self._changed_since_rates += len(new)
        if new:
            self._flat.add(np.stack([change.latent for change in new if change.latent is not None]))
            self._alive = np.concatenate([self._alive, np.ones(len(new), dtype=bool)])
            for name, column in self._columns.items():
                self._columns[name] = np.concatenate([column, [getattr(change, name) for change in new]])

    def _compact(self) -> None:
        """Drop the slots of deleted and replaced stars."""
        keep = np.flatnonzero(self._alive)
        latents = self._flat.reconstruct_batch(keep)
        self._flat.reset()
        self._flat.add(latents)
        self._ids = [self._ids[slot] for slot in keep]
        self._slot = {star_id: slot for slot, star_id in enumerate(self._ids)}
        self._alive = np.ones(len(keep), dtype=bool)
        self._columns = {name: column[keep] for name, column in self._columns.items()}

    def search(
        self, latent: NDArray[np.float32], k: int, filters: Filters = Filters(), without: str | None = None
    ) -> list[Twin]:
        """The `k` nearest stars to `latent` (D,) that pass the filters, nearest first, ties by star id.

        The star `without` is left out. Exact: fewer than `k` come back only when fewer pass.
        """
        with self._lock:
            self.catch_up()
            allowed = self._allowed(filters, without)
            candidates = int(allowed.sum())
            wanted = min(k, candidates)
            fetch = min(wanted + 16, candidates)
            while wanted:
                distances, slots = self._nearest(latent, fetch, allowed)
                edge = np.partition(distances, wanted - 1)[wanted - 1]
                # single precision rounds far below 1e-4: nothing beyond the last can belong to the first k
                if fetch == candidates or distances[-1] > edge * (1 + 1e-4):
                    order = sorted(range(fetch), key=lambda i: (distances[i], self._ids[slots[i]]))
                    return [
                        Twin(self._ids[slots[i]], float(distances[i]))
                        for i in order[:wanted]
                        if distances[i] <= filters.max_distance
                    ]
                fetch = min(2 * fetch, candidates)
            return []

    def _allowed(self, filters: Filters, without: str | None) -> NDArray[np.bool_]:
        allowed = self._alive.copy()
        for name, low, high in filters.ranges:
            allowed &= (self._columns[name] >= low) & (self._columns[name] <= high)
        if without is not None and without in self._slot:
            allowed[self._slot[without]] = False
        return allowed

    def _nearest(
        self, latent: NDArray[np.float32], count: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances in double precision and slots of the `count` nearest allowed stars."""
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits.size, faiss.swig_ptr(bits))
        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        _, found = self._flat.search(latent[None].astype(np.float32), count, params=parameters)
        slots = found[0].astype(np.int64)
        differences = self._flat.reconstruct_batch(slots).astype(np.float64) - latent.astype(np.float64)
        return np.sqrt(np.einsum("nd,nd->n", differences, differences)), slots

    def doppelganger_rates(self, distances: list[float]) -> list[float] | None:
        """For each distance the fraction of random pairs of the catalogue at most that far apart.

        From a million random pairs, drawn again when the catalogue has changed by more than 1 %; None
        below 1,000 stars.
        """
        with self._lock:
            self.catch_up()
            if len(self) < RATE_STARS:
                return None
            stale = self._rates is None or self._changed_since_rates > RATE_DRIFT * len(self)
            if stale:
                latents = self._flat.reconstruct_n(0, len(self._ids))[self._alive]
                self._changed_since_rates = 0
        if stale:
            self._rates = _random_distances(latents)
        rates = self._rates
        assert rates is not None
        return [
            float(rank) / len(rates) for rank in np.searchsorted(rates, np.asarray(distances), side="right")
        ]


def _random_distances(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sorted distances of RATE_PAIRS random pairs of different rows of `latents` (N, D)."""
    generator = np.random.default_rng(0)
    parts = []
    for _ in range(RATE_PAIRS // RATE_BLOCK):
        first = generator.integers(len(latents), size=RATE_BLOCK)
        second = (first + generator.integers(1, len(latents), size=RATE_BLOCK)) % len(latents)
        parts.append(np.linalg.norm(latents[first] - latents[second], axis=1))
    return np.sort(np.concatenate(parts))

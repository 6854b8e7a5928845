"""Exact nearest-twin search over a store in a file: a view of its rows in memory, caught up before each search.

The view is written to a cache file beside the store now and then, so that a start need not read every row. A
cache that is missing, damaged, of another model, or of another copy of the store is not used.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.cache import CacheError
from index.nearest import Found, Nearest, Sample
from index.sqlite import SqliteStore
from index.store import Star
from index.tree import COLUMNS, warm

RATE_PAIRS = 1_000_000
RATE_SAMPLE = 200_000
"""Most stars that the pairs are drawn among."""

RATE_BLOCK = 100_000
RATE_STARS = 1_000
RATE_DRIFT = 0.01

CACHE_STARS = 1_000
CACHE_DRIFT = 0.1
"""The cache is written again when this share of the catalogue, and as many stars, have changed since."""

log = logging.getLogger("chemtwin")


@dataclass(frozen=True)
class Filters:
    """Inclusive ranges by column name (teff, logg, fe_h, snr; in_domain is 1 or 0) and the largest distance."""

    ranges: tuple[tuple[str, float, float], ...] = ()
    max_distance: float = np.inf


@dataclass(frozen=True)
class Search:
    """Where to search: around a latent (D,), among the stars that pass the filters, without one id."""

    latent: NDArray[np.float32]
    filters: Filters = Filters()
    without: str | None = None


@dataclass(frozen=True)
class Twin:
    """A neighbour and its Euclidean distance."""

    star_id: str
    distance: float


class TwinIndex:
    """The stars of one model, searchable. The store is the truth; this is a view of it in memory."""

    def __init__(self, store: SqliteStore, model: str, dimension: int) -> None:
        self.store = store
        self.model = model
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        self._rates: NDArray[np.float32] | None = None
        self._changed_since_rates = 0
        self._writer: threading.Thread | None = None
        self._nearest = self._cached(dimension) or Nearest(dimension)
        self._changed_since_cache = 0
        warm()
        self.catch_up()

    def __len__(self) -> int:
        return len(self._nearest)

    def close(self) -> None:
        """Wait for a cache that is being written."""
        if self._writer is not None:
            self._writer.join()

    def upsert(self, stars: Sequence[Star], spectra: Sequence[bytes | None] | None = None) -> list[bool]:
        """Store stars (on disk on return); the next search sees them. Says which replaced another."""
        return self.store.upsert(stars, spectra)

    def delete(self, star_id: str) -> bool:
        """Delete a star (on disk on return). False if there was none."""
        return self.store.delete(star_id)

    def catch_up(self) -> None:
        """Take in what this or any other process has written since the last time."""
        if self._nearest.seq >= self.store.last_seq():
            return
        token, last = self.store.moment()
        with self._lock:
            while self._nearest.seq < last:
                changes = self.store.changes(self.model, self._nearest.seq)
                new = [change for change in changes if change.latent is not None]
                self._nearest.update(
                    [change.star_id for change in new],
                    np.array([change.latent for change in new], dtype=np.float32),
                    np.array([[getattr(change, name) for name in COLUMNS] for change in new]),
                    [change.star_id for change in changes if change.latent is None],
                    changes[-1].seq if changes else last,
                )
                self._changed_since_rates += len(changes)
                self._changed_since_cache += len(changes)
            if self._changed_since_cache >= max(CACHE_STARS, CACHE_DRIFT * len(self)) and not self._writing():
                self._changed_since_cache = 0
                self._writer = threading.Thread(target=self._write_cache, args=(token,), name="twins cache")
                self._writer.start()

    def search(
        self, latent: NDArray[np.float32], k: int, filters: Filters = Filters(), without: str | None = None
    ) -> list[Twin]:
        """The `k` nearest stars to `latent` (D,) that pass the filters, nearest first, ties by star id.

        The star `without` is left out. Exact: fewer than `k` come back only when fewer pass.
        """
        self.catch_up()
        found = self._nearest.search(latent, k, filters.ranges, without, filters.max_distance)
        return _twins(found)

    def search_batch(self, searches: Sequence[Search], k: int) -> list[list[Twin]]:
        """As `search`, for each of several, all in the catalogue as it is now."""
        self.catch_up()
        return [
            _twins(
                self._nearest.search(one.latent, k, one.filters.ranges, one.without, one.filters.max_distance)
            )
            for one in searches
        ]

    def doppelganger_rates(self, distances: list[float]) -> list[float] | None:
        """For each distance the fraction of random pairs of the catalogue at most that far apart.

        From a million random pairs, drawn again when the catalogue has changed by more than 1 %; None
        below 1,000 stars. The catalogue is that of the last search.
        """
        if len(self) < RATE_STARS:
            return None
        if self._rates is None or self._changed_since_rates > RATE_DRIFT * len(self):
            self._draw_rates()
        assert self._rates is not None
        return rates_at(distances, self._rates)

    def written(self) -> int:
        """A number that grows with every write of a row."""
        self.catch_up()
        return self._nearest.seq

    def sample(self, most: int) -> Sample:
        """At most `most` stars drawn at random, the same as long as nothing is written."""
        self.catch_up()
        return self._nearest.sample(np.random.default_rng(0), most)

    def _draw_rates(self) -> None:
        """Draw the pairs; while another thread does, the old ones serve."""
        if not self._drawing.acquire(blocking=self._rates is None):
            return
        try:
            if self._rates is None or self._changed_since_rates > RATE_DRIFT * len(self):
                self._changed_since_rates = 0
                self._rates = random_distances(
                    self._nearest.sample(np.random.default_rng(0), RATE_SAMPLE).latents
                )
        finally:
            self._drawing.release()

    def _writing(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def _caches(self) -> Iterator[Path]:
        """The cache files of this model; each is named after the store's opening that it was written in."""
        return self.store.path.parent.glob(f"{self._prefix()}*.cache")

    def _prefix(self) -> str:
        return f"{self.store.path.stem}-{hashlib.sha256(self.model.encode()).hexdigest()[:12]}-"

    def _cached(self, dimension: int) -> Nearest | None:
        """The view as a cache has it, if there is one that belongs to this store and model."""
        for path in self._caches():
            try:
                nearest = Nearest.load(path, self.model, dimension)
            except CacheError as error:
                log.warning("%s: it is not used", error)
                continue
            if self.store.remembers(path.stem.removeprefix(self._prefix()), nearest.seq):
                return nearest
            log.warning("%s belongs to another copy of the store: it is not used", path)
        return None

    def _write_cache(self, token: str) -> None:
        """Write the view; not if another process is about it, or the disk refuses."""
        path = self.store.path.with_name(f"{self._prefix()}{token}.cache")
        try:
            with _alone(self.store.path.with_name(f"{self._prefix()}cache.lock")) as alone:
                if alone:
                    self._nearest.save(path, self.model)
                    for other in self._caches():
                        if other != path:
                            other.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot write the cache %s: %s", path, error)


def _twins(found: Found) -> list[Twin]:
    return [Twin(*pair) for pair in zip(found.ids, found.distances.tolist(), strict=True)]


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other process holds this lock file."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def random_distances(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sorted distances of RATE_PAIRS random pairs of different rows of `latents` (N, D)."""
    generator = np.random.default_rng(0)
    parts = []
    for _ in range(RATE_PAIRS // RATE_BLOCK):
        first = generator.integers(len(latents), size=RATE_BLOCK)
        second = (first + generator.integers(1, len(latents), size=RATE_BLOCK)) % len(latents)
        parts.append(np.linalg.norm(latents[first] - latents[second], axis=1))
    return np.sort(np.concatenate(parts))


def rates_at(distances: list[float], pairs: NDArray[np.float32]) -> list[float]:
    """For each distance the fraction of sorted `pairs` that are at most that far apart."""
    ranks = np.searchsorted(pairs, np.asarray(distances, dtype=pairs.dtype), side="right")
    return [float(rank) / len(pairs) for rank in ranks]

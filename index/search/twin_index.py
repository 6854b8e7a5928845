"""Exact nearest-twin search over a store: a view of its rows in memory, caught up before each search.

The view is written to a cache file now and then, so that a start need not read every row. A cache that is
missing, damaged, of another model, or of another copy of the store is not used.
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

from index.search.cache import CacheError
from index.search.doppelganger_rates import Rates
from index.search.nearest import Found, Nearest, Sample
from index.stores.sql_store import Combine, Store, Written
from index.stores.star import Change, Star, vectors

RATE_SAMPLE = 200_000
"""Most stars that the pairs are drawn among."""

CACHE = ".cache"
CACHE_STARS = 1_000
CACHE_DRIFT = 0.1
"""The cache is written again when this fraction of the catalogue, and as many stars, have changed since."""

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

    def __init__(self, store: Store, model: str, dimension: int, folder: Path) -> None:
        """Take up a cache of the rows by `model`, with `dimension` latents, and catch up with the store.

        The cache is in `folder`, which is made with the first cache. Raises StoreError.
        """
        self.store = store
        self.model = model
        self.folder = folder
        self._lock = threading.Lock()
        self._rates = Rates(self._latents)
        self._changes = 0
        self._writer: threading.Thread | None = None
        self._nearest = self._cached(dimension) or Nearest(dimension)
        self._changed_since_cache = 0
        self.catch_up()

    def __len__(self) -> int:
        return len(self._nearest)

    def close(self) -> None:
        """Wait for a cache that is being written."""
        if self._writer is not None:
            self._writer.join()

    def upsert(
        self,
        stars: Sequence[Star],
        spectra: Sequence[bytes | None] | None = None,
        combine: Combine = lambda star, _: star,
    ) -> list[Written]:
        """Store stars as `Store.upsert` does; the next search sees them."""
        return self.store.upsert(stars, spectra, combine)

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
                self._update(changes, changes[-1].seq if changes else last)
                self._changes += len(changes)
                self._changed_since_cache += len(changes)
            if self._changed_since_cache >= max(CACHE_STARS, CACHE_DRIFT * len(self)) and not self._writing():
                self._changed_since_cache = 0
                self._writer = threading.Thread(target=self._write_cache, args=(token,), name="twins cache")
                self._writer.start()

    def _update(self, changes: list[Change], seq: int) -> None:
        """Take in changes, after which the view shows the store's state at `seq`."""
        new = [change for change in changes if change.latent is not None]
        self._nearest.update(
            [change.star_id for change in new],
            vectors([change.latent for change in new if change.latent is not None]),
            np.array([change.searched for change in new], dtype=np.float64),
            [change.star_id for change in changes if change.latent is None],
            seq,
        )

    def search(
        self, latent: NDArray[np.float32], k: int, filters: Filters = Filters(), without: str | None = None
    ) -> list[Twin]:
        """The `k` nearest stars to `latent` (D,) that pass the filters, nearest first, ties by star id.

        Without the star `without`. Exact: fewer than `k` come back only when fewer pass.
        """
        (found,) = self.search_batch([Search(latent, filters, without)], k)
        return found

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

        From a million random pairs, drawn again when the catalogue has changed by more than 5 %; None
        below 1,000 stars. The catalogue is that of the last search.
        """
        return self._rates.at(distances, len(self), self._changes)

    def written(self) -> int:
        """A number that grows with every write of a row."""
        self.catch_up()
        return self._nearest.seq

    def sample(self, most: int) -> Sample:
        """At most `most` stars drawn at random: the same again until a row is written or a segment built."""
        self.catch_up()
        return self._nearest.sample(np.random.default_rng(0), most)

    def _latents(self, _: int) -> NDArray[np.float32]:
        """Latents (RATE_SAMPLE, D) at most of stars drawn at random."""
        return self._nearest.sample(np.random.default_rng(0), RATE_SAMPLE).latents

    def _writing(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def _caches(self) -> list[Path]:
        """The cache files of this model; each is named after the store's opening that it was written in."""
        if not self.folder.is_dir():
            return []
        prefix = self._prefix()  # no pattern: the name of a store may contain any character
        return [
            path for path in self.folder.iterdir() if path.name.startswith(prefix) and path.name.endswith(CACHE)
        ]

    def _prefix(self) -> str:
        """How the names of this store's and model's caches begin."""
        return f"{self.store.file_name}-{hashlib.sha256(self.model.encode()).hexdigest()[:12]}-"

    def _cached(self, dimension: int) -> Nearest | None:
        """The view as a cache has it, if there is one that belongs to this store and model."""
        for path in self._caches():
            try:
                nearest = Nearest.load(path, self.model, dimension)
            except CacheError as error:
                log.warning("%s: it is not used", error)
                continue
            if self.store.remembers(path.name[len(self._prefix()) : -len(CACHE)], nearest.seq):
                return nearest
            log.warning("%s belongs to another copy of the store: it is not used", path)
        return None

    def _write_cache(self, token: str) -> None:
        """Write the view; not if another process is writing it, or the disk is full."""
        path = self.folder / f"{self._prefix()}{token}{CACHE}"
        self._nearest.settle()  # or each start would build the same segments again
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _alone(self.folder / f"{self._prefix()}cache.lock") as alone:
                if alone:
                    self._nearest.save(path, self.model)
                    for earlier in self._caches():
                        if earlier != path:
                            earlier.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot write the cache %s: %s", path, error)


def _twins(found: Found) -> list[Twin]:
    return [Twin(*pair) for pair in zip(found.ids, found.distances.tolist(), strict=True)]


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other process has locked this file."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

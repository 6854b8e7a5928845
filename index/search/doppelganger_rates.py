"""Doppelganger rates: which fraction of random pairs of a catalogue lies at most so far apart."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE_PAIRS = 1_000_000
RATE_BLOCK = 100_000
RATE_STARS = 1_000
"""Fewer stars have no rates."""

RATE_DRIFT = 0.05
"""Pairs are drawn again when this fraction of the catalogue has been written since."""


class Rates:
    """The rates of one model's stars, the same over either store.

    One thread draws the pairs. While it draws them again, every other thread uses the pairs of before; only the
    first drawing is waited for.
    """

    def __init__(self, sample: Callable[[int], NDArray[np.float32]]) -> None:
        """Prepare; nothing is drawn yet.

        Parameters
        ----------
        sample
            Gives latents (N, D) of stars drawn at random from a catalogue of so many.
        """
        self._sample = sample
        self._drawing = threading.Lock()
        self._pairs: NDArray[np.float32] | None = None
        self._drawn_at = 0

    def at(self, distances: list[float], stars: int, written: int) -> list[float] | None:
        """For each distance the fraction of random pairs of stars at most that far apart.

        Parameters
        ----------
        distances
            Distances of latents.
        stars
            How many stars there are.
        written
            How many rows have been written, ever: it grows with every write.

        Returns
        -------
        list of float, or None
            None below `RATE_STARS` stars.

        Raises
        ------
        StoreError
            What `sample` raises.
        """
        if stars < RATE_STARS:
            return None
        if self._due(stars, written) and self._drawing.acquire(blocking=self._pairs is None):
            try:
                if self._due(stars, written):
                    latents = self._sample(stars)
                    if len(latents) < 2:  # the stars were deleted since they were counted
                        return None
                    self._pairs, self._drawn_at = random_distances(latents), written
            finally:
                self._drawing.release()
        return None if self._pairs is None else rates_at(distances, self._pairs)

    def _due(self, stars: int, written: int) -> bool:
        return self._pairs is None or written - self._drawn_at > RATE_DRIFT * stars


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
    ranks = pairs.searchsorted(np.asarray(distances, dtype=pairs.dtype), side="right")
    rates: list[float] = (ranks / len(pairs)).tolist()
    return rates

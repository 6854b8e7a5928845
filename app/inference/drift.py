"""How far the stars of a catalogue are from what its model expects."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from index.search.twin_index import TwinIndex
from index.stores.star import STAR_TABLE
from model.methods.base import Model

CHECKED = 10_000
"""Stars that are checked, drawn at random: the fraction outside is then known to 0.01 (two sigma)."""

MOST_OUTSIDE = 0.1
"""Fraction of stars outside the domain above which the model should be adapted to them."""

CHANGED = 0.01
"""The stars are checked again when this fraction of the catalogue has been written since."""


@dataclass(frozen=True)
class Drift:
    """How far a catalogue's stars are from what the model expects.

    Attributes
    ----------
    stars_checked : int
        How many of its stars were checked.
    outside_domain : float or None
        The fraction of them that lies outside the model's domain; None of no stars.
    latent_offset : float or None
        How far their mean latent lies from the mean of the model's prior, in units of the prior's standard
        deviation along the line between the two; None of no stars, or where the model has no prior.
    message : str
        The same in words, with what to do about it.
    """

    stars_checked: int
    outside_domain: float | None
    latent_offset: float | None
    message: str

    @property
    def large(self) -> bool:
        """Whether the model should be adapted to the stars."""
        return self.outside_domain is not None and self.outside_domain > MOST_OUTSIDE


def drift_of(model: Model, index: TwinIndex) -> Drift:
    """The drift of the catalogue that `index` searches. Raises StoreError."""
    sample = index.sample(CHECKED)
    count = len(sample.ids)
    if not count:
        return Drift(0, None, None, "there are no stars to check")
    outside = 1 - float(np.mean(sample.columns[:, STAR_TABLE.searched.index("in_domain")]))
    offset = model.prior_offset(sample.latents.mean(axis=0, dtype=np.float64))
    far = "" if offset is None else f", and the mean latent is {offset:.2f} sigma from the prior's"
    message = f"of {count:,} stars checked {100 * outside:.1f} % lie outside the model's domain{far}"
    found = Drift(count, outside, offset, message)
    if not found.large:
        return found
    advice = "adapt the model to these stars (chemtwin model adapt)"
    return Drift(count, outside, offset, f"{message}: {advice}")


class DriftCheck:
    """The drift of one service's catalogue, found again when that has changed. Safe to use from threads."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._found: tuple[Drift, int, int] | None = None

    def drift(self, index: TwinIndex) -> Drift:
        """The drift of the catalogue that `index` searches. Raises StoreError."""
        with self._lock:
            written, stars = index.written(), len(index)
            if self._found is not None:
                drift, before, count = self._found
                if written - before <= CHANGED * count:
                    return drift
            drift = drift_of(self._model, index)
            self._found = drift, written, stars
            return drift

"""How far the stars of a catalogue are from what its model expects."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from index.stores.star import STAR_TABLE
from model.methods.base import Model

if TYPE_CHECKING:
    from index.search.twin_index import TwinIndex

CHECKED = 10_000
"""Stars that are checked, drawn at random: the fraction outside is then known to 0.01 (two sigma)."""

MOST_OUTSIDE = 0.1
"""Fraction above which stars need advice: of all stars outside, or of those in range that are unlike."""

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
    outside_range : int
        Of the stars checked, those whose Teff, log g or [Fe/H] lies outside the model's training range.
    unlike_spectra : int
        Of the others, those outside the domain: their spectra are unlike those that the model was made for.
    latent_offset : float or None
        How far their mean latent lies from the mean of the model's prior, in units of the prior's standard
        deviation along the line between the two; None of no stars, or where the model has no prior.
    message : str
        The same in words, with what to do about it.
    """

    stars_checked: int
    outside_domain: float | None
    outside_range: int
    unlike_spectra: int
    latent_offset: float | None
    message: str

    @property
    def large(self) -> bool:
        """Whether so many stars lie outside the domain that something should be done about it."""
        return self.outside_domain is not None and self.outside_domain > MOST_OUTSIDE


def drift_of(model: Model, index: TwinIndex) -> Drift:
    """The drift of the catalogue that `index` searches. Raises StoreError."""
    sample = index.sample(CHECKED)
    count = len(sample.ids)
    if not count:
        return Drift(0, None, 0, 0, None, "there are no stars to check")
    columns = dict(zip(STAR_TABLE.searched, sample.columns.T, strict=True))
    outside = columns["in_domain"] == 0
    in_range = model.in_range(columns)
    unlike, beyond = int((outside & in_range).sum()), int((~in_range).sum())
    offset = model.prior_offset(sample.latents.mean(axis=0, dtype=np.float64))
    far = "" if offset is None else f", and the mean latent is {offset:.2f} sigma from the prior's"
    fraction = float(outside.mean())
    message = (
        f"of {count:,} stars checked {100 * fraction:.1f} % lie outside the model's domain ({beyond:,} by "
        f"their parameters, {unlike:,} by spectra unlike the model's){far}"
    )
    found = Drift(count, fraction, beyond, unlike, offset, message)
    if not found.large:
        return found
    tested = in_range & model.tested(columns["fe_h"])
    if (outside & tested).sum() > MOST_OUTSIDE * tested.sum():
        advice = "adapt the model to these stars (chemtwin model adapt)"
    elif beyond > unlike:
        advice = (
            "leave out the stars whose parameters the model was not trained for (in_domain=true), or take a "
            "model that was trained for them, such as model/branch.safetensors"
        )
    else:
        advice = (
            "leave them out (in_domain=true): the [Fe/H] of most is far from those that the model was tested on"
        )
    return replace(found, message=f"{message}: {advice}")


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

"""The map of a catalogue: two principal components of its latents, with labels, of a sample of its stars."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.service import Service
from app.json_response import json_bytes
from index.search.twin_index import TwinIndex
from index.stores.star import STAR_TABLE

LABELS = ("teff", "logg", "fe_h", "snr")

STARS = 3000
"""Stars on a map: enough to see its shape, few enough to send and to draw."""

DRIFT = 0.01
"""The map is drawn again when the catalogue has changed by more than this fraction."""


@dataclass(frozen=True)
class _Drawn:
    content: bytes
    written: int
    stars: int


class LatentMap:
    """The map of one service's catalogue, drawn when it is first asked for. Safe to use from threads."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._drawn: _Drawn | None = None
        self._drawing = threading.Lock()

    def json(self) -> bytes:
        """The response of GET /map. Raises Busy or StoreError."""
        index = self._service.index
        drawn = self._drawn
        if drawn is not None and not _stale(drawn, index):
            return drawn.content
        if not self._drawing.acquire(blocking=drawn is None):
            assert drawn is not None
            return drawn.content  # another thread draws the new one; until then the old one serves
        try:
            if self._drawn is None or _stale(self._drawn, index):
                self._drawn = self._draw(index)
            return self._drawn.content
        finally:
            self._drawing.release()

    def _draw(self, index: TwinIndex) -> _Drawn:
        written, stars = index.written(), len(index)
        sample = index.sample(STARS)
        model = self._service.model
        mean, axes, explained = principal_axes(sample.latents)
        points = (sample.latents - mean) @ axes.T
        abundances: dict[str, Any] = {}
        if model.readout is not None and len(sample.ids):
            values, _ = model.readout(sample.latents.astype(np.float64))
            abundances = dict(zip(model.readout.names, map(_column, values.T), strict=True))
        briefs = self._service.store.briefs(sample.ids, model.card.identity)
        content = {
            "model": self._service.model_name(),
            "stars": stars,
            "mean": mean,
            "axes": axes,
            "explained": explained,
            "points": {
                "star_id": sample.ids,
                **dict(zip(("x", "y"), map(_column, points.T), strict=True)),
                **{name: _column(sample.columns[:, STAR_TABLE.searched.index(name)]) for name in LABELS},
                "cluster": [briefs[one].cluster if one in briefs else None for one in sample.ids],
            },
            "abundances": abundances,
        }
        return _Drawn(json_bytes(content), written, stars)


def _column(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers as they are sent: contiguous, three decimals."""
    return np.ascontiguousarray(np.round(values, 3), dtype=np.float32)


def _stale(drawn: _Drawn, index: TwinIndex) -> bool:
    changed = index.written() - drawn.written
    return changed > DRIFT * drawn.stars


def principal_axes(
    latents: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The two directions along which latents vary most.

    Parameters
    ----------
    latents
        Latents (N, D).

    Returns
    -------
    mean, axes, explained
        The mean latent (D,), two unit vectors (2, D), and the fraction of the variance along each (2,). Each
        axis points where its largest component is positive. Fewer than three latents have the first two
        coordinates as axes.
    """
    dimension = latents.shape[1]
    if len(latents) < 3:
        return np.zeros(dimension, np.float32), np.eye(2, dimension, dtype=np.float32), np.zeros(2, np.float32)
    centred = latents.astype(np.float64) - latents.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2].T
    largest = axes[np.arange(2), np.abs(axes).argmax(axis=1)]
    axes = axes * np.sign(largest)[:, None]
    total = values.sum()
    explained = values[[-1, -2]] / total if total > 0 else np.zeros(2)
    mean = latents.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.ascontiguousarray(axes, np.float32), explained.astype(np.float32)

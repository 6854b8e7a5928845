"""What a store of embedded stars does: the rows that are the truth, from which every search is rebuilt.

A star's row holds its latent by one model; while a catalogue is embedded again with another model, a star has a
row for each. Each write of a row takes the next `seq`, in the order in which transactions commit, so that a
reader of this or another process catches up by asking for everything after the last `seq` it has seen. A
deleted row leaves its id, model and seq behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.sky import Box, Circle


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which and why.

    `reason` is the why alone, which may be told to anyone.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Star:
    """An embedded star: `latent` (D,) float32, `covariance` (D, D) float32 or None, and what came with it.

    `others` are its parameters beyond teff, logg and fe_h.
    """

    star_id: str
    model: str
    latent: NDArray[np.float32]
    covariance: NDArray[np.float32] | None
    teff: float
    logg: float
    fe_h: float
    snr: float | None = None
    chi2: float | None = None
    masked_fraction: float = 0.0
    in_domain: bool = True
    warnings: tuple[str, ...] = ()
    ra: float | None = None
    dec: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)


class Brief(NamedTuple):
    """What an answer tells of a star found near another, not yet decoded: `index.rows` reads the vectors."""

    star_id: str
    teff: float
    logg: float
    fe_h: float
    snr: float | None
    in_domain: bool
    ra: float | None
    dec: float | None
    others: str | None
    latent: bytes
    covariance: bytes | None


@dataclass(frozen=True)
class Change:
    """What an index needs to know of one write: a star that is now there, or (latent None) no longer."""

    seq: int
    star_id: str
    latent: NDArray[np.float32] | None
    teff: float
    logg: float
    fe_h: float
    snr: float
    in_domain: bool


@dataclass(frozen=True)
class Kept:
    """A star with the spectrum that it was embedded from, and the seq of the row that tells of it."""

    star: Star
    seq: int
    spectrum: bytes


Rows = Callable[[str | None], Iterator[Star]]
"""Gives the rows by a model, or by every model for None, in the order of ids and models."""

PAST_IDS = "\U0010ffff"
"""Comes after every character: what begins with P lies from P up to P and this."""


class Store(ABC):
    """Stars by id. Safe to use from several threads and several processes. Methods raise StoreError."""

    name: str
    """Where it is, for messages."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or the server."""

    @abstractmethod
    def upsert(self, stars: Sequence[Star], spectra: Sequence[bytes | None] | None = None) -> list[bool]:
        """Write stars in one transaction, on disk on return, with the spectra that are to be kept.

        What the store held of these stars before goes, by whatever model. Says of each whether it was there.
        """

    @abstractmethod
    def delete(self, star_id: str) -> bool:
        """Delete a star, on disk on return. False if there was none."""

    @abstractmethod
    def get(self, star_ids: Sequence[str], model: str) -> dict[str, Star]:
        """The stars of these ids that exist: as embedded by `model`, else by another."""

    @abstractmethod
    def briefs(self, star_ids: Sequence[str], model: str) -> dict[str, Brief]:
        """What answers tell of those stars of these ids that have a row by `model`."""

    @abstractmethod
    def page(self, after: str, limit: int, model: str, prefix: str = "") -> list[Star]:
        """At most `limit` stars whose id comes after `after`, in the order of their ids' bytes; as `get`.

        Only ids that begin with `prefix`: a range of the index of ids, read from its start.
        """

    @abstractmethod
    def spectrum(self, star_id: str) -> bytes | None:
        """The spectrum that was kept of a star; None if there is no such star, or no spectrum of it."""

    @abstractmethod
    def positions(self, box: Box) -> Generator[list[tuple[str, float, float]]]:
        """Blocks of the ids of stars in a box on the sky, with their ra and dec in degrees."""

    def within(self, circle: Circle, most: int, model: str) -> list[tuple[Star, float]]:
        """Stars in a circle on the sky and how far each is from its centre in degrees, nearest first; as `get`.

        At most `most`: where there are more, any of them.
        """
        found: dict[str, float] = {}
        with closing(self.positions(circle.box())) as blocks:
            for block in blocks:
                star_ids, ra, dec = zip(*block, strict=True)
                separations = zip(star_ids, circle.separation(ra, dec).tolist(), strict=True)
                found.update(pair for pair in separations if pair[1] <= circle.radius)
                if len(found) >= most:
                    break
        nearest = sorted(found, key=lambda star_id: (found[star_id], star_id))[:most]
        stars = self.get(nearest, model)
        return [(stars[star_id], found[star_id]) for star_id in nearest if star_id in stars]

    @abstractmethod
    def last_seq(self) -> int:
        """The seq of the latest write by any process."""

    @abstractmethod
    def stars_by_model(self) -> dict[str, int]:
        """How many stars there are by each model."""

    @abstractmethod
    def damage(self) -> str | None:
        """What is wrong with the store's own structures, None if nothing is; reads all of it."""

    @abstractmethod
    def changes(self, model: str, after: int, limit: int = 50_000) -> list[Change]:
        """At most `limit` writes of rows of `model` after seq `after`, oldest first.

        A row written twice appears once, last.
        """

    @abstractmethod
    def waiting(self, model: str, after: str, limit: int) -> list[Kept]:
        """At most `limit` stars with a kept spectrum but no row of `model`, ids after `after`, in order."""

    @abstractmethod
    def add_beside(self, stars: Sequence[Star], seqs: Sequence[int]) -> int:
        """Write rows of another model beside those with these `seqs`, in one transaction.

        A star replaced or deleted since is passed over. Returns how many were written.
        """

    @abstractmethod
    def drop_other_models(self, model: str) -> int:
        """Delete the rows by other models of stars that have one of `model`. Returns how many."""

    @abstractmethod
    def dump(self) -> Iterator[tuple[Star, bytes | None]]:
        """Every row with its star's kept spectrum, as of one moment; writes go on meanwhile."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Rows]:
        """The rows of one moment, as often as they are asked for; no spectrum is read."""

    @abstractmethod
    def restore(
        self, rows: Iterable[tuple[Star, bytes | None]], before: Callable[[], None] = lambda: None
    ) -> int:
        """Replace everything by `rows`, in one transaction. Returns how many there are.

        What was written is read back before the transaction ends. `before` is called once no one else can
        write, and before anything is replaced. Raises StoreError, and whatever `rows` or `before` raise:
        nothing has changed then.
        """


def open_store(place: str, create: bool = True) -> Store:
    """The store at a path, or at a postgresql:// URL. Raises StoreError.

    Without `create` a file has to be there; a database gets its tables in any case.
    """
    from pathlib import Path

    from index.sqlite import SqliteStore

    if "://" not in place:
        if not create and not Path(place).exists():
            raise StoreError(f"there is no store {place}")
        return SqliteStore(Path(place))
    if not place.startswith(("postgresql://", "postgres://")):
        raise StoreError(f"{place.partition('://')[0]}:// is no store: give a path, or a postgresql:// URL")
    try:
        from index.postgres import PostgresStore
    except ImportError as error:
        raise StoreError(
            "a postgresql:// store needs psycopg: pip install 'chemtwin[postgres]' brings it"
        ) from error
    return PostgresStore(place)

"""A star, and how each of its columns is stored: every column is declared once, as a field of `Star`.

The tables' definitions, the rows' values, what a search filters by and what a response shows of a neighbour
all follow from the fields. A new field also needs a migration (`index/stores/migrations`) for earlier stores.
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from index.errors import StoreError


@dataclass(frozen=True)
class Kind:
    """A kind of value: its type in either database, and how it becomes a row's value and comes back."""

    sqlite: str
    postgres: str
    pack: Callable[[Any], Any] = lambda value: value
    unpack: Callable[[Any], Any] = lambda value: value


def _number(value: float | None) -> float | None:
    """A number as both databases give it back: SQLite stores NaN as NULL and -0.0 as 0.0."""
    return None if value is None or value != value else float(value) + 0.0


def _read(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # NaN, or half a surrogate pair of a file's name: json has written it
        return json.loads(text)


def _vector(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4")


@cache
def _upper(dimension: int) -> NDArray[np.int64]:
    """Which elements of a matrix (D, D), read row by row, are its upper triangle."""
    return np.ravel_multi_index(np.triu_indices(dimension), (dimension, dimension))


@cache
def _whole(elements: int) -> NDArray[np.int64]:
    """Where each element of a symmetric matrix (D, D) stands among the `elements` of its upper triangle."""
    dimension = (int((8 * elements + 1) ** 0.5) - 1) // 2
    ranks = np.zeros((dimension, dimension), dtype=np.int64)
    ranks.ravel()[_upper(dimension)] = np.arange(elements)
    return np.maximum(ranks, ranks.T)


def _triangle(matrix: NDArray[np.float32] | None) -> bytes | None:
    return None if matrix is None else matrix.ravel().take(_upper(len(matrix))).astype("<f4").tobytes()


def _matrix(data: bytes | None) -> NDArray[np.float32] | None:
    return None if data is None else _vector(data)[_whole(len(data) // 4)]


@lru_cache(maxsize=65_536)
def text_number(text: str | None) -> float:
    """The number by which a search compares a text: 48 bits of its digest, 0 for None."""
    return 0.0 if text is None else 1.0 + int.from_bytes(sha256(text.encode()).digest()[:6])


TEXT = Kind("TEXT", 'text COLLATE "C"')
NUMBER = Kind("REAL", "float8", _number)
FLAG = Kind("INTEGER", "boolean", bool, bool)
TEXTS = Kind("TEXT", "text", json.dumps, lambda text: tuple(_read(text)))
MAPPING = Kind("TEXT", "text", json.dumps, _read)
VECTOR = Kind("BLOB", "bytea", lambda latent: latent.astype("<f4").tobytes(), _vector)
MATRIX = Kind("BLOB", "bytea", _triangle, _matrix)


def column(
    kind: Kind, *, key: bool = False, searched: bool = False, brief: bool = False, cleared: bool = False
) -> dict[str, Any]:
    """The metadata of a field that is a column.

    A column may be part of the primary `key`; `searched`: a search can be limited to a range of it, or to one
    text (`text_number`); in the `brief` that is read of each neighbour found; `cleared`, which is set to NULL,
    when its row is deleted.
    """
    return {"kind": kind, "key": key, "searched": searched, "brief": brief, "cleared": cleared}


@dataclass(frozen=True)
class Star:
    """An embedded star: `latent` (D,) float32, `covariance` (D, D) float32 or None, and what came with it.

    `teff` in K, `logg` and `fe_h` in dex, `ra` and `dec` in degrees (ICRS). `extra` are its parameters beyond
    teff, logg and fe_h. `fe_h_err` is the 1-sigma error of fe_h, None where it is not known. `cluster` is the
    name of the cluster or group that the star belongs to.
    """

    star_id: str = field(metadata=column(TEXT, key=True, brief=True))
    model: str = field(metadata=column(TEXT, key=True))
    latent: NDArray[np.float32] = field(metadata=column(VECTOR, brief=True, cleared=True))
    covariance: NDArray[np.float32] | None = field(metadata=column(MATRIX, brief=True, cleared=True))
    teff: float = field(metadata=column(NUMBER, searched=True, brief=True))
    logg: float = field(metadata=column(NUMBER, searched=True, brief=True))
    fe_h: float = field(metadata=column(NUMBER, searched=True, brief=True))
    snr: float | None = field(default=None, metadata=column(NUMBER, searched=True, brief=True))
    chi2: float | None = field(default=None, metadata=column(NUMBER))
    masked_fraction: float = field(default=0.0, metadata=column(NUMBER))
    in_domain: bool = field(default=True, metadata=column(FLAG, searched=True, brief=True))
    warnings: tuple[str, ...] = field(default=(), metadata=column(TEXTS, cleared=True))
    ra: float | None = field(default=None, metadata=column(NUMBER, brief=True, cleared=True))
    dec: float | None = field(default=None, metadata=column(NUMBER, brief=True, cleared=True))
    meta: dict[str, Any] = field(default_factory=dict, metadata=column(MAPPING, cleared=True))
    extra: dict[str, float] = field(default_factory=dict, metadata=column(MAPPING, brief=True, cleared=True))
    fe_h_err: float | None = field(default=None, metadata=column(NUMBER, brief=True, cleared=True))
    cluster: str | None = field(default=None, metadata=column(TEXT, searched=True, brief=True, cleared=True))


class Brief(Protocol):
    """The columns of a star that are marked `brief`, by name; vectors and JSON as they are stored."""

    star_id: str

    def __getattr__(self, name: str) -> Any: ...


class Change(NamedTuple):
    """What a search needs to know of one write of a row.

    `latent` is as it is stored, or None where the row was deleted; `searched` are the values of the columns
    that a search filters by, None where unknown.
    """

    seq: int
    star_id: str
    latent: bytes | None
    searched: tuple[float | None, ...]


class StoredSpectrum(NamedTuple):
    """A star with the spectrum that it was embedded from, and the seq of its row."""

    star: Star
    seq: int
    spectrum: bytes


class Table:
    """The table of a class of stars: its columns in the order of the fields, and its rows' values."""

    def __init__(self, stars: type[Star]) -> None:
        self._stars = stars
        self._fields = fields(stars)
        self._packers = [(one.name, one.metadata["kind"].pack) for one in self._fields]
        self._unpackers = [(one.metadata["kind"].unpack, _default_of(one)) for one in self._fields]
        self.names = tuple(one.name for one in self._fields)
        self.searched = self._marked("searched")
        self.cleared = self._marked("cleared")
        self.brief = self._marked("brief")
        self._brief: Callable[..., Brief] = namedtuple("_Brief", self.brief)  # type: ignore[misc, assignment]
        kinds = {one.name: one.metadata["kind"] for one in self._fields}
        self._searched_texts = [rank for rank, name in enumerate(self.searched) if kinds[name] is TEXT]
        flags = {one.name for one in self._fields if one.metadata["kind"] is FLAG}
        self._brief_flags = [rank for rank, name in enumerate(self.brief) if name in flags]

    def _marked(self, mark: str) -> tuple[str, ...]:
        return tuple(one.name for one in self._fields if one.metadata[mark])

    def definitions(self, dialect: str) -> str:
        """The columns as CREATE TABLE wants them, for `sqlite` or `postgres`."""
        lines = [
            f"{one.name} {getattr(one.metadata['kind'], dialect)}{' NOT NULL' * one.metadata['key']}"
            for one in self._fields
        ]
        return ", ".join([*lines, f"PRIMARY KEY ({', '.join(self._marked('key'))})"])

    def pack(self, star: Star) -> tuple[Any, ...]:
        """A star's values in the order of `names`. Raises StoreError for values that no star can have."""
        try:
            return tuple([pack(getattr(star, name)) for name, pack in self._packers])
        except (AttributeError, TypeError, ValueError) as error:
            message = f"the star {star.star_id} cannot be stored: {error}"
            raise StoreError(message, "a value cannot be stored") from error

    def unpack(self, row: Sequence[Any]) -> Star:
        """The star of values that `pack` gave; NULL stands for a field's default, if it has one.

        Raises StoreError for values that `pack` cannot have given.
        """
        try:
            return self._stars(
                *[
                    unpack(value) if value is not None or default is None else default()
                    for (unpack, default), value in zip(self._unpackers, row, strict=True)
                ]
            )
        except (IndexError, TypeError, ValueError) as error:
            raise StoreError(f"the row of {row[0]} is damaged: {error}", "a row is damaged") from error

    def search_values(self, row: Sequence[Any]) -> tuple[float | None, ...]:
        """Values of the columns `searched` as a search compares them."""
        values = list(row)
        for rank in self._searched_texts:
            values[rank] = text_number(values[rank])
        return tuple(values)

    def unpack_brief(self, row: Sequence[Any]) -> Brief:
        """The values of `brief` by name."""
        values = list(row)
        for rank in self._brief_flags:
            values[rank] = bool(values[rank])
        return self._brief(*values)


def _default_of(one: Field[Any]) -> Callable[[], Any] | None:
    """What gives a field's default; None for a field without."""
    if one.default_factory is not MISSING:
        return one.default_factory
    return None if one.default is MISSING else lambda: one.default


STAR_TABLE = Table(Star)


def vectors(packed: Sequence[bytes]) -> NDArray[np.float32]:
    """Stored vectors (N, D), all of one length; (0, 0) of none."""
    return _vector(b"".join(packed)).reshape(len(packed), -1 if packed else 0)


def latents_of(briefs: Sequence[Brief]) -> NDArray[np.float64]:
    """The latents (N, D) of stars of one model, at least one."""
    return vectors([brief.latent for brief in briefs]).astype(np.float64)


def covariances_of(briefs: Sequence[Brief]) -> NDArray[np.float64]:
    """The covariances (N, D, D) of stars of one model that came with errors, at least one."""
    packed = vectors([brief.covariance for brief in briefs]).astype(np.float64)
    return packed.take(_whole(packed.shape[1]), axis=1)


def extra_of(brief: Brief) -> dict[str, float]:
    """A star's parameters beyond teff, logg and fe_h."""
    return {} if brief.extra in (None, "{}") else _read(brief.extra)

"""A star as a row of a table, the same in every store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.store import Brief, Star, StoreError

VALUES = (
    "latent, covariance, teff, logg, fe_h, snr, chi2, masked_fraction, in_domain, warnings, "
    "ra, dec, meta, others"
)
COLUMNS = f"star_id, model, {VALUES}"
BRIEF = ", ".join(Brief._fields)


@cache
def _whole(dimension: int) -> NDArray[np.int64]:
    """Where each element of a symmetric matrix (D, D) stands among those of its upper triangle."""
    places = np.zeros((dimension, dimension), dtype=np.int64)
    rows, columns = np.triu_indices(dimension)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return places


def pack(star: Star) -> tuple[Any, ...]:
    """A star's values of COLUMNS: latent as (D,) little-endian float32, covariance as its upper triangle."""
    covariance = None
    if star.covariance is not None:
        upper = np.triu_indices(len(star.latent))
        covariance = star.covariance[upper].astype("<f4").tobytes()
    return (
        star.star_id,
        star.model,
        star.latent.astype("<f4").tobytes(),
        covariance,
        star.teff,
        star.logg,
        star.fe_h,
        star.snr,
        star.chi2,
        star.masked_fraction,
        bool(star.in_domain),
        json.dumps(star.warnings),
        star.ra,
        star.dec,
        json.dumps(star.meta),
        json.dumps(star.others),
    )


def _read(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # NaN, or half a surrogate pair of a file's name: json has written it
        return json.loads(text)


@dataclass
class Content:
    """How many rows there are, and a digest of all their values that does not depend on their order."""

    rows: int = 0
    digest: int = 0

    def counting(self, rows: Iterable[tuple[Star, bytes | None]]) -> Iterator[tuple[Star, bytes | None]]:
        """The same `rows`, each counted when it is taken."""
        for star, spectrum in rows:
            # SQLite stores -0.0 as 0.0
            values = [value + 0.0 if isinstance(value, float) else value for value in pack(star)]
            values.append(None if spectrum is None else sha256(spectrum).digest())
            self.rows += 1
            self.digest = (self.digest + int.from_bytes(sha256(repr(values).encode()).digest())) % 2**256
            yield star, spectrum

    def check(self, rows: Iterable[tuple[Star, bytes | None]], name: str) -> None:
        """Raise StoreError unless `rows`, read back from the store `name`, have the same content."""
        found = Content()
        for _ in found.counting(rows):
            pass
        if found != self:
            raise StoreError(
                f"{name} gives back {found.rows} rows of {self.rows} written, or other values. "
                "Nothing was changed."
            )


def unpack(row: Sequence[Any]) -> Star:
    """The star of values that `pack` gave. Raises StoreError for values that it cannot have given."""
    try:
        return _unpack(row)
    except (IndexError, TypeError, ValueError) as error:
        raise StoreError(f"the row of {row[0]} is damaged: {error}", "a row is damaged") from error


def _unpack(row: Sequence[Any]) -> Star:
    star_id, model, latent, packed, teff, logg, fe_h, snr, chi2, masked, in_domain, warnings, *rest = row
    ra, dec, meta, others = rest
    vector = np.frombuffer(latent, dtype="<f4")
    covariance = None
    if packed is not None:
        covariance = np.frombuffer(packed, dtype="<f4")[_whole(len(vector))]
    return Star(
        star_id=star_id,
        model=model,
        latent=vector,
        covariance=covariance,
        teff=teff,
        logg=logg,
        fe_h=fe_h,
        snr=snr,
        chi2=chi2,
        masked_fraction=masked,
        in_domain=bool(in_domain),
        warnings=tuple(_read(warnings)),
        ra=ra,
        dec=dec,
        meta=_read(meta),
        others={} if others is None else _read(others),
    )


def latents_of(briefs: Sequence[Brief]) -> NDArray[np.float64]:
    """The latents (N, D) of stars of one model, at least one."""
    joined = np.frombuffer(b"".join([brief.latent for brief in briefs]), dtype="<f4")
    return joined.reshape(len(briefs), -1).astype(np.float64)


def covariances_of(briefs: Sequence[Brief]) -> NDArray[np.float64]:
    """The covariances (N, D, D) of stars of one model that came with errors, at least one."""
    packed = np.frombuffer(b"".join([brief.covariance or b"" for brief in briefs]), dtype="<f4")
    whole = _whole(len(briefs[0].latent) // 4)
    return packed.reshape(len(briefs), -1).astype(np.float64).take(whole, axis=1)


def others_of(brief: Brief) -> dict[str, float]:
    """A star's parameters beyond teff, logg and fe_h."""
    return {} if brief.others in (None, "{}") else _read(brief.others)

"""A star as a row of a table, the same in every store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.store import Brief, Star

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


def unpack(row: Sequence[Any]) -> Star:
    """The star of values that `pack` gave."""
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

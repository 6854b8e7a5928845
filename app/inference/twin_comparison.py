"""A star beside its twins recast to its own Teff and log g: what a figure of twins shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.recasts import recast, stored_origin
from app.inference.service import Service
from app.inference.twins import twins_of_one
from app.schemas.bodies import To
from app.schemas.queries import TwinQuery
from index.stores.star import Star

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recast:
    """A twin, recast to the star's parameters.

    `twin` is its row of the response of /twins. `flux` (P,) is over the continuum and `sd` (P,) its standard
    deviation, None without errors. Both are NaN where masked. `missed` (P,) is the standard deviation beyond
    noise by which observed spectra differ from the model's.
    """

    twin: dict[str, Any]
    flux: Floats
    sd: Floats | None
    missed: Floats


@dataclass(frozen=True)
class TwinComparison:
    """A star and its twins at the star's Teff and log g.

    `wavelength` (P,) is in Angstrom, in vacuum. `flux`, `sd` and `missed` are the star's, as `Recast` has them.
    `teff` (K) and `logg` (dex) are those at which the model computes fluxes: the star's, or the nearest that it
    can. `observed`: fluxes are observed ones, those of the twins moved to the star's parameters by the model.
    Otherwise the model drew all of them.
    """

    star: Star
    model: str
    searched: int
    wavelength: Floats
    flux: Floats
    sd: Floats | None
    missed: Floats
    teff: float
    logg: float
    twins: tuple[Recast, ...]
    observed: bool


def compare_twins(service: Service, star_id: str, k: int) -> TwinComparison:
    """A stored star and its k nearest twins, each at the star's Teff and log g and at its own [Fe/H].

    Parameters
    ----------
    service
        Its catalogue is searched, and its model recasts.
    star_id
        The star.
    k
        How many twins.

    Raises
    ------
    NotFound, ModelMismatch
        There is no such star, or another model embedded it.
    StoreError, ChemtwinError
        A stored spectrum cannot be read, or the model cannot use it.
    """
    star = service.comparable(star_id)
    found = twins_of_one(service, star, TwinQuery(k=k))
    ids = [star_id, *(twin["star_id"] for twin in found["twins"])]
    observed = all(service.store.spectrum(one) is not None for one in ids)
    to = To(teff=star.teff, logg=star.logg, parameters=dict(star.extra))
    (flux, sd, missed, at), *others = [_recast(service, one, to, observed) for one in ids]
    return TwinComparison(
        star=star,
        model=star.model,
        searched=found["searched"],
        wavelength=service.model.grid.wavelength,
        flux=flux,
        sd=sd,
        missed=missed,
        teff=at["teff"],
        logg=at["logg"],
        twins=tuple(Recast(twin, *other[:3]) for twin, other in zip(found["twins"], others, strict=True)),
        observed=observed,
    )


def _recast(
    service: Service, star_id: str, to: To, observed: bool
) -> tuple[Floats, Floats | None, Floats, dict[str, Any]]:
    """A star's flux, its `sd` and `missed` (P,), recast, and the parameters at which it is computed."""
    origin = stored_origin(service, star_id)
    done = recast(service, origin, to, residual=observed)
    missed = service.model.missed_sd(origin.latent.astype(np.float64), origin.parameters)
    return done["flux"], done["flux_sd"], missed, done["computed_at"]

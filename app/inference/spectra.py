"""A star's spectrum as the model sees it, and as it reconstructs it; several stars recast together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import one_of_several
from app.inference.embedder import MAX_LATENT, Embedded, Job
from app.inference.service import Service, Source
from app.inference.stored_observation import unpack
from app.schemas.requests import LatentIn, To
from app.service_errors import Invalid
from model.methods.base import Embedding
from model.spectra.spectrum import Parameters, Spectrum, prepare

DECIMALS = 5
"""Of a flux over the continuum: far below any noise, and half the characters."""


def stored_spectrum(service: Service, star_id: str) -> dict[str, Any]:
    """The answer of GET /stars/{star_id}/spectrum; without a kept spectrum `flux` and `error` are None.

    Raises NotFound, ModelMismatch, StoreError or ChemtwinError.
    """
    star = service.comparable(star_id)
    kept = service.store.spectrum(star_id)
    spectrum = None
    if kept is not None:
        observation, _ = unpack(kept)
        spectrum = prepare(observation, service.model.grid, service.model.normaliser)
    own = Parameters(star.teff, star.logg, star.fe_h, others=star.others)
    return _seen(service, service.star_answer(star), star.latent, own, spectrum)


def unstored_spectrum(service: Service, job: Job, done: Embedded) -> dict[str, Any]:
    """The answer of POST /spectrum."""
    star = service.unstored(job, done)
    told = service.star_answer(star) | {"star_id": job.star_id}
    return _seen(service, told, star.latent, done.spectrum.parameters, done.spectrum)


def latent_source(service: Service, wish: LatentIn) -> Source:
    """What `Service.recast` takes for a latent (D,) and its star's own parameters. Raises Invalid."""
    latent = np.array(wish.latent, dtype=np.float32)
    dimension = service.model.card.latent_dim
    if latent.shape != (dimension,) or not np.all(np.abs(latent) < MAX_LATENT):
        raise Invalid("bad_latent", f"a latent of this model is {dimension} numbers, as /embed gives them")
    own = wish.own.known()
    own.check(service.model.parameter_names)
    return own, Embedding(latent, None, None, True, ())


def recast_several(service: Service, sources: Sequence[Source], to: To) -> dict[str, Any]:
    """The answer of POST /recast for several stars: each its recast or its error, the wavelengths once."""
    results = []
    for source in sources:
        try:
            recast = service.recast(source, to)
        except Exception as error:
            results.append(one_of_several(error))
            continue
        told = {name: recast[name] for name in ("star_id", "from", "to", "in_domain", "warnings")}
        results.append({"status": 200, **told, "flux": _rounded(recast["flux"])})
    return {"model": service.model_name(), "wavelength": service.model.grid.wavelength, "results": results}


def _seen(
    service: Service,
    told: dict[str, Any],
    latent: NDArray[np.float32],
    own: Parameters,
    spectrum: Spectrum | None,
) -> dict[str, Any]:
    model = service.model
    known = own.values(model.parameter_names)
    flux = error = None
    if spectrum is not None:
        good = spectrum.ivar > 0
        flux = _rounded(np.where(good, spectrum.flux, np.nan))
        if spectrum.has_errors:
            error = _rounded(np.divide(1, np.sqrt(spectrum.ivar), out=np.full(len(good), np.nan), where=good))
    return {
        **told,
        "model": service.model_name(),
        "wavelength": model.grid.wavelength,
        "flux": flux,
        "error": error,
        "reconstruction": _rounded(model.decode(latent[None].astype(np.float64), known[None])[0]),
        "processing": [] if spectrum is None else list(spectrum.history),
    }


def _rounded(flux: NDArray[Any]) -> NDArray[np.float32]:
    return np.round(flux, DECIMALS).astype(np.float32)

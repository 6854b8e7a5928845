"""Stars as responses show them: those just embedded, and stored ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.inference.embedder import Embedded, Job
from app.inference.service import Service
from app.schemas.queries import StarsQuery
from index.stores.star import Star
from model.spectra.parameters import Parameters

SPECTRUM_DELETED = (
    "the spectrum stored with the star before was deleted, because this service does not store spectra: "
    "CHEMTWIN_STORE_SPECTRA=true stores them"
)


def embedded_fields(service: Service, job: Job, done: Embedded) -> dict[str, Any]:
    """The response of POST /embed for one star."""
    return {
        "star_id": job.star_id,
        "latent": done.embedding.latent,
        "latent_sd": standard_deviations(done.embedding.covariance),
        "model": service.model_name(),
        "masked_fraction": done.spectrum.masked_fraction,
        "snr": done.spectrum.snr,
        "chi2": done.embedding.chi2,
        "in_domain": done.embedding.in_domain,
        "warnings": [*done.star.warnings, *([SPECTRUM_DELETED] if done.spectrum_deleted else [])],
        "replaced": done.replaced,
        "processing": list(done.spectrum.history),
    }


def star_fields(star: Star) -> dict[str, Any]:
    """A star as GET /stars shows it."""
    name, _, version = star.model.partition("@")
    return {
        "star_id": star.star_id,
        "teff": star.teff,
        "logg": star.logg,
        "fe_h": star.fe_h,
        **extra_fields(star.extra),
        "latent": star.latent,
        "latent_sd": standard_deviations(star.covariance),
        "model": {"name": name, "version": version},
        "snr": star.snr,
        "chi2": star.chi2,
        "masked_fraction": star.masked_fraction,
        "in_domain": star.in_domain,
        "warnings": list(star.warnings),
        "ra": star.ra,
        "dec": star.dec,
        "cluster": star.cluster,
        "meta": star.meta,
    }


def stars_page(service: Service, query: StarsQuery) -> tuple[Sequence[Star], bool]:
    """The stars of a page of GET /stars, and whether more follow."""
    store, model = service.store, service.model.card.identity
    if query.star_ids is None:
        page = store.page(query.after, query.limit + 1, model, query.prefix, query.cluster)
    else:
        asked = [
            star_id
            for star_id in set(query.star_ids.split(","))
            if star_id > query.after and star_id.startswith(query.prefix)
        ]
        found = store.get(sorted(asked), model)
        page = [found[star_id] for star_id in sorted(found) if query.cluster in (None, found[star_id].cluster)]
    return page[: query.limit], len(page) > query.limit


def label_fields(parameters: Parameters) -> dict[str, Any]:
    """Stellar parameters, and extra ones under `parameters`."""
    return {
        "teff": parameters.teff,
        "logg": parameters.logg,
        "fe_h": parameters.fe_h,
        **extra_fields(parameters.extra),
    }


def extra_fields(extra: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Extra parameters as responses show them: not at all where there are none."""
    return {"parameters": dict(extra)} if extra else {}


def standard_deviations(covariance: Any) -> Any:
    """Those of a latent with a covariance (D, D); None without errors."""
    return None if covariance is None else np.sqrt(np.diag(covariance))

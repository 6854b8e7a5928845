"""What the service does, without HTTP: embed, show, recast, over one model and one index."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from app import metrics
from app.inference.embedder import Embedded, Embedder, Job
from app.schemas.requests import To
from app.service_errors import Busy, Invalid, ModelMismatch, NoAbundances, NotFound
from app.settings import Settings
from index.search.twin_index import TwinIndex
from index.stores.open_store import open_store
from index.stores.star import Star
from model.methods.base import Embedding
from model.spectra.spectrum import Parameters

RETRY = 5.0
"""Seconds between attempts to read a store that cannot be read."""

log = logging.getLogger("chemtwin")


Source = str | tuple[Parameters, Embedding]
"""What can be recast: a stored star by its id, or an embedded spectrum."""


class Service:
    """A model, a store and the index over it."""

    def __init__(self, settings: Settings, wait: bool = False) -> None:
        """Open model and store, and the search in a thread; with `wait` the search is open on return.

        Raises ModelFileError or StoreError.
        """
        self.settings = settings
        self.embedder = Embedder(settings)
        self.model = self.embedder.model
        self.further = self.embedder.further
        units = self.model.card.units
        self.further_units = {name: units.get(name, "") for name in self.further}
        wavelength = self.model.grid.wavelength
        self.wavelength_json = orjson.Fragment(orjson.dumps(wavelength, option=orjson.OPT_SERIALIZE_NUMPY))
        self.store = open_store(settings.place)
        self._index: TwinIndex | None = None
        self._stopped = threading.Event()
        if wait:
            self._index = self._open_index()
        else:
            threading.Thread(target=self._keep_opening, name="catch up", daemon=True).start()

    def _open_index(self) -> TwinIndex:
        """The search, caught up with the store. Raises StoreError."""
        card = self.model.card
        return TwinIndex(self.store, card.identity, card.latent_dim, self.settings.cache_folder)

    def _keep_opening(self) -> None:
        """Let the search catch up with the store; where that fails, try again until the service stops."""
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = RETRY
            try:
                index = self._open_index()
                index.doppelganger_rates([])  # draws its pairs, so that no request has to wait for them
                self.model.embed([self.model.example()])  # nor until what embeds is compiled
                self._index = index
            except Exception:
                if not self._stopped.is_set():
                    log.exception("the search cannot catch up with the store; trying again in %d s", RETRY)
            else:
                log.info("ready: %s, %d stars, store %s", self.model.card.identity, len(index), self.store.name)
                return

    @property
    def index(self) -> TwinIndex:
        """The search. Raises Busy until it has caught up with the store."""
        if self._index is None:
            raise Busy("starting", "the search has not caught up with the store yet; try again")
        return self._index

    def close(self) -> None:
        """Close index and store."""
        self._stopped.set()
        if self._index is not None:
            self._index.close()
        self.store.close()

    def model_name(self) -> dict[str, str]:
        """What every answer says of the model it came from."""
        card = self.model.card
        return {"name": card.name, "version": card.version, "method": card.method}

    def embed(self, jobs: list[Job]) -> list[Embedded | Exception]:
        """Embed spectra together and store those with an id in one transaction, on disk on return.

        A spectrum that cannot be used yields its error and leaves the others alone.
        """
        index = self.index
        metrics.BATCH.observe(len(jobs))
        with metrics.EMBED_SECONDS.time():
            results = self.embedder.embed(jobs)
            stored = [done for done in results if isinstance(done, Embedded) and done.star is not None]
            stars = [done.star for done in stored if done.star is not None]
            replaced = index.upsert(stars, [done.kept for done in stored]) if stars else []
        told = iter(replaced)
        return [
            dataclasses.replace(done, replaced=next(told))
            if isinstance(done, Embedded) and done.star is not None
            else done
            for done in results
        ]

    def embedded_answer(self, job: Job, done: Embedded) -> dict[str, Any]:
        """The answer of POST /embed for one star."""
        assert done.star is not None
        return {
            "star_id": job.star_id,
            "latent": done.embedding.latent,
            "latent_sd": _sd(done.embedding.covariance),
            "model": self.model_name(),
            "masked_fraction": done.spectrum.masked_fraction,
            "snr": done.spectrum.snr,
            "chi2": done.embedding.chi2,
            "in_domain": done.embedding.in_domain,
            "warnings": done.star.warnings,
            "replaced": done.replaced,
            "processing": list(done.spectrum.history),
        }

    def star(self, star_id: str) -> Star:
        """A stored star. Raises NotFound."""
        found = self.store.get([star_id], self.model.card.identity)
        if star_id not in found:
            raise NotFound(star_id)
        return found[star_id]

    def star_answer(self, star: Star) -> dict[str, Any]:
        """A stored star, as GET /stars shows it."""
        name, _, version = star.model.partition("@")
        return {
            "star_id": star.star_id,
            "teff": star.teff,
            "logg": star.logg,
            "fe_h": star.fe_h,
            **further_of(star.others),
            "latent": star.latent,
            "latent_sd": _sd(star.covariance),
            "model": {"name": name, "version": version},
            "snr": star.snr,
            "chi2": star.chi2,
            "masked_fraction": star.masked_fraction,
            "in_domain": star.in_domain,
            "warnings": list(star.warnings),
            "ra": star.ra,
            "dec": star.dec,
            "meta": star.meta,
        }

    def comparable(self, star_id: str) -> Star:
        """A stored star that this model embedded. Raises NotFound or ModelMismatch."""
        star = self.star(star_id)
        if star.model != self.model.card.identity:
            raise ModelMismatch(
                "model_mismatch",
                f"{star_id} was embedded with {star.model}, this service runs {self.model.card.identity}; "
                "embed it again",
            )
        return star

    def unstored(self, job: Job, done: Embedded) -> Star:
        """An embedded spectrum as if it were a stored star; without an id its `star_id` is empty."""
        parameters = done.spectrum.parameters
        return Star(
            star_id=job.star_id or "",
            model=self.model.card.identity,
            latent=done.embedding.latent,
            covariance=done.embedding.covariance,
            teff=parameters.teff,
            logg=parameters.logg,
            fe_h=parameters.fe_h,
            snr=done.spectrum.snr,
            chi2=done.embedding.chi2,
            masked_fraction=done.spectrum.masked_fraction,
            in_domain=done.embedding.in_domain,
            warnings=(*job.warnings, *done.embedding.warnings),
            ra=job.ra,
            dec=job.dec,
            meta=job.meta,
            others=dict(parameters.extra),
        )

    def recast(self, source: Source, to: To) -> dict[str, Any]:
        """The answer of POST /recast for a stored star's id, or for an embedded spectrum."""
        if isinstance(source, str):
            star = self.comparable(source)
            own = Parameters(star.teff, star.logg, star.fe_h, extra=star.others)
            latent, covariance, warnings = star.latent, star.covariance, list(star.warnings)
        else:
            own, embedding = source
            latent, covariance, warnings = embedding.latent, embedding.covariance, list(embedding.warnings)
        wish = to.model_dump(exclude_none=True, exclude={"parameters"})
        target = Parameters(**{**_usual(own), **wish}, extra={**own.extra, **to.parameters})
        names = self.model.parameter_names
        unused = [name for name in to.model_fields_set - {"parameters"} if name not in names]
        unused += [name[:40] for name in to.parameters if name not in self.further]
        if unused:
            raise Invalid(
                "not_conditioned",
                f"this model does not know {', '.join(unused[:10])}: it has {', '.join(names)}",
            )
        outside = self.model.outside(target)
        exact, known = latent.astype(np.float64), target.values(names)
        flux = self.model.decode(exact[None], known[None])[0]
        if not np.all(np.isfinite(flux)):
            raise Invalid("no_recast", "the model has no finite spectrum at these parameters", outside)
        sd = None if covariance is None else self.model.decode_sd(exact, known, covariance.astype(np.float64))
        return {
            "star_id": source if isinstance(source, str) else None,
            "model": self.model_name(),
            "wavelength": self.model.grid.wavelength,
            "flux": flux.astype(np.float32),
            "flux_sd": None if sd is None else sd.astype(np.float32),
            "from": _labels(own),
            "to": _labels(target),
            "in_domain": not outside,
            "warnings": [*outside, *(f"of the star itself: {warning}" for warning in warnings)],
        }

    def abundances(self, star_id: str) -> dict[str, Any]:
        """The answer of GET /stars/{star_id}/abundances. Raises NotFound, ModelMismatch or NoAbundances."""
        star, readout = self.comparable(star_id), self.model.readout
        if readout is None:
            raise NoAbundances(
                "no_abundances", f"the model {self.model.card.identity} has no readout of abundances"
            )
        covariance = None if star.covariance is None else star.covariance[None].astype(np.float64)
        (values,), (errors,) = readout(star.latent[None].astype(np.float64), covariance)
        return {
            "star_id": star_id,
            "model": self.model_name(),
            "unit": "[X/Fe], dex",
            "abundances": [
                {
                    "element": name,
                    "x_fe": float(value),
                    "x_fe_err": None if covariance is None else float(error),
                }
                for name, value, error in zip(readout.names, values, errors, strict=True)
            ],
            "in_domain": star.in_domain,
            "warnings": list(star.warnings),
        }

    def card(self) -> dict[str, Any]:
        """The answer of GET /model."""
        self.index.catch_up()
        card, grid, normaliser = self.model.card, self.model.grid, self.model.normaliser
        return {
            "model": self.model_name(),
            "method": card.method,
            "latent_dim": card.latent_dim,
            "parameters": {
                name: {"min": low, "max": high, **({"unit": card.units[name]} if name in card.units else {})}
                for name, (low, high) in card.parameters.items()
            },
            "grid": {
                "pixels": len(grid),
                "min": grid.wavelength[0],
                "max": grid.wavelength[-1],
                "detectors": [[part.start, part.stop] for part in grid.detectors],
                "unit": "Angstrom (vacuum, rest frame)",
            },
            "normalisation": {"method": "none"} if normaliser is None else normaliser.header(),
            "metric": card.metric,
            "abundances": None if self.model.readout is None else list(self.model.readout.names),
            "error_floor": card.error_floor,
            "training": card.training,
            "quality": card.quality,
            "stars": len(self.index),
        }


def _usual(parameters: Parameters) -> dict[str, float]:
    return {"teff": parameters.teff, "logg": parameters.logg, "fe_h": parameters.fe_h}


def further_of(others: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Further parameters as answers show them: not at all where there are none."""
    return {"parameters": dict(others)} if others else {}


def _labels(parameters: Parameters) -> dict[str, Any]:
    return {**_usual(parameters), **further_of(parameters.extra)}


def _sd(covariance: Any) -> Any:
    return None if covariance is None else np.sqrt(np.diag(covariance))

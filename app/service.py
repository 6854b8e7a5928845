"""What the service does, without HTTP: embed, search, recast, over one model and one index."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from app.embedder import Embedded, Embedder, Job
from app.errors import Invalid, ModelMismatch, NotFound
from app.schemas import To, TwinQuery
from app.settings import Settings
from index.open_index import Approximate, open_index
from index.store import Star, open_store
from index.twin_index import Filters
from model.base import Embedding
from model.metric import p_same
from model.spectrum import PARAMETER_UNITS, Parameters

SHORTLIST = 1000
"""Nearest stars by distance that a ranking by likelihood looks at."""

FARTHEST = 1e9
"""No two latents lie so far apart; the square of a larger limit might overflow."""

FE_H_WITHIN = 0.1
"""Default |difference| of [Fe/H] of twins when the model removes [Fe/H] from the latent (paper, 6.2)."""


class Service:
    """A model, a store and the index over it."""

    def __init__(self, settings: Settings) -> None:
        """Raises ModelFileError or StoreError."""
        self.settings = settings
        self.embedder = Embedder(settings)
        self.model = self.embedder.model
        self.further = tuple(name for name in self.model.parameter_names if name not in PARAMETER_UNITS)
        self.store = open_store(settings.place)
        card = self.model.card
        self.index = open_index(self.store, card.identity, card.latent_dim, settings.approximate)

    def close(self) -> None:
        """Close index and store."""
        self.index.close()
        self.store.close()

    def model_name(self) -> dict[str, str]:
        """What every answer says of the model it came from."""
        card = self.model.card
        return {"name": card.name, "version": card.version, "method": card.method}

    def embed(self, jobs: list[Job]) -> list[Embedded | Exception]:
        """Embed spectra together and store those with an id in one transaction, on disk on return.

        A spectrum that cannot be used yields its error and leaves the others alone.
        """
        results = self.embedder.embed(jobs)
        stored = [done for done in results if isinstance(done, Embedded) and done.star is not None]
        stars = [done.star for done in stored if done.star is not None]
        replaced = self.index.upsert(stars, [done.kept for done in stored]) if stars else []
        told = iter(replaced)
        return [
            dataclasses.replace(done, replaced=next(told))
            if isinstance(done, Embedded) and done.star is not None
            else done
            for done in results
        ]

    def embedded_answer(self, job: Job, done: Embedded) -> dict[str, Any]:
        """The answer of POST /embed for one star."""
        return {
            "star_id": job.star_id,
            "latent": done.embedding.latent,
            "latent_sd": _sd(done.embedding.covariance),
            "model": self.model_name(),
            "masked_fraction": done.spectrum.masked_fraction,
            "snr": done.spectrum.snr,
            "chi2": done.embedding.chi2,
            "in_domain": done.embedding.in_domain,
            "warnings": [*job.warnings, *done.embedding.warnings],
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
            **_further(star.others),
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

    def _comparable(self, star_id: str) -> Star:
        star = self.star(star_id)
        if star.model != self.model.card.identity:
            raise ModelMismatch(
                "model_mismatch",
                f"{star_id} was embedded with {star.model}, this service runs {self.model.card.identity}; "
                "embed it again",
            )
        return star

    def twins(self, star_id: str, query: TwinQuery) -> dict[str, Any]:
        """The answer of GET /twins. Raises NotFound or ModelMismatch."""
        star = self._comparable(star_id)
        filters = self._filters(star, query)
        by_likelihood = query.rank == "likelihood"
        wanted = max(query.k, SHORTLIST) if by_likelihood else query.k
        found = self.index.search(star.latent, wanted, filters, without=star_id)
        stars = self.store.get([twin.star_id for twin in found], self.model.card.identity)
        # a twin deleted or embedded with another model between the search and here is left out
        pairs = [
            (twin.distance, stars[twin.star_id])
            for twin in found
            if twin.star_id in stars and stars[twin.star_id].model == star.model
        ]
        ratios: dict[str, float] = {}
        if by_likelihood:
            ratios = self._likelihood_ratios(star, [other for _, other in pairs])
            pairs = sorted(pairs, key=lambda pair: -ratios.get(pair[1].star_id, -np.inf))[: query.k]
        rates = self.index.doppelganger_rates([distance for distance, _ in pairs])
        return {
            "star_id": star_id,
            "k": query.k,
            "model": self.model_name(),
            "metric": self.model.card.metric,
            "searched": len(self.index),
            "exact": not isinstance(found, Approximate) and (not by_likelihood or len(found) < wanted),
            "twins": [
                {
                    "star_id": other.star_id,
                    "distance": distance,
                    "p_same": self._p_same(star, other, distance),
                    **({"log_likelihood_ratio": ratios.get(other.star_id)} if by_likelihood else {}),
                    "doppelganger_rate": None if rates is None else rates[rank],
                    "teff": other.teff,
                    "logg": other.logg,
                    "fe_h": other.fe_h,
                    **_further(other.others),
                    "snr": other.snr,
                }
                for rank, (distance, other) in enumerate(pairs)
            ],
        }

    def _filters(self, star: Star, query: TwinQuery) -> Filters:
        ranges = []
        for name in ("teff", "logg", "fe_h"):
            low, high = getattr(query, f"{name}_min"), getattr(query, f"{name}_max")
            if low is not None or high is not None:
                ranges.append((name, -np.inf if low is None else low, np.inf if high is None else high))
        if query.snr_min is not None:
            ranges.append(("snr", query.snr_min, np.inf))
        within = query.fe_h_within
        if within is None:
            within = FE_H_WITHIN if "fe_h" in self.model.parameter_names else "any"
        if within != "any":
            ranges.append(("fe_h", star.fe_h - within, star.fe_h + within))
        farthest = query.max_distance
        return Filters(tuple(ranges), np.inf if farthest is None or farthest > FARTHEST else farthest)

    def _likelihood_ratios(self, star: Star, others: list[Star]) -> dict[str, float]:
        """Log likelihood ratios by star id; stars without errors have none. Raises Invalid."""
        if star.covariance is None:
            raise Invalid("no_errors", f"{star.star_id} came without ivar or error: rank by distance")
        known = [(other, other.covariance) for other in others if other.covariance is not None]
        latents = np.array([other.latent for other, _ in known], dtype=np.float64)
        covariances = np.array([covariance for _, covariance in known], dtype=np.float64)
        if not known:
            return {}
        ratios = self.model.likelihood_ratios(
            star.latent.astype(np.float64), star.covariance.astype(np.float64), latents, covariances
        )
        if ratios is None:
            raise Invalid("not_ranked_so", f"{self.model.card.method} ranks by distance only")
        return {other.star_id: float(ratio) for (other, _), ratio in zip(known, ratios, strict=True)}

    def _p_same(self, star: Star, other: Star, distance: float) -> float | None:
        if star.covariance is None or other.covariance is None:
            return None
        covariance = self.model.pair_covariance(
            star.covariance[None].astype(np.float64), other.covariance[None].astype(np.float64)
        )
        return None if covariance is None else float(p_same(np.array([distance]), covariance)[0])

    def recast(self, source: str | tuple[Parameters, Embedding], to: To) -> dict[str, Any]:
        """The answer of POST /recast for a stored star's id, or for an embedded spectrum."""
        if isinstance(source, str):
            star = self._comparable(source)
            own = Parameters(star.teff, star.logg, star.fe_h, others=star.others)
            latent, covariance, warnings = star.latent, star.covariance, list(star.warnings)
        else:
            own, embedding = source
            latent, covariance, warnings = embedding.latent, embedding.covariance, list(embedding.warnings)
        wish = to.model_dump(exclude_none=True, exclude={"parameters"})
        target = Parameters(**{**_usual(own), **wish}, others={**own.others, **to.parameters})
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
            "error_floor": card.error_floor,
            "training": card.training,
            "quality": card.quality,
            "stars": len(self.index),
        }


def _usual(parameters: Parameters) -> dict[str, float]:
    return {"teff": parameters.teff, "logg": parameters.logg, "fe_h": parameters.fe_h}


def _further(others: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Further parameters as answers show them: not at all where there are none."""
    return {"parameters": dict(others)} if others else {}


def _labels(parameters: Parameters) -> dict[str, Any]:
    return {**_usual(parameters), **_further(parameters.others)}


def _sd(covariance: Any) -> Any:
    return None if covariance is None else np.sqrt(np.diag(covariance))

"""From a star's observation to its row in the store: one model, without a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from app.errors import Invalid, ServiceError
from app.inference.stored_observation import pack
from app.settings import Settings
from app.values.positions import odd_position
from app.values.star_ids import check_star_id
from index.stores.star import Star
from model.bundle import load_model
from model.errors import ChemtwinError
from model.methods.base import Card, Embedding, Model
from model.spectra.parameters import PARAMETER_UNITS
from model.spectra.spectrum import Observation, Spectrum, prepare_all

MAX_LATENT = 1e6
"""Beyond this a latent is nonsense, and squares of single-precision differences might overflow in a search."""


MOST_CLUSTER = 64
"""Characters of a cluster's name."""

DIGEST = "digest"
"""The key of a star's `meta` by which ingest recognises it."""

OWN_META = {DIGEST, "source", "file"}
"""Keys of a star's `meta` that are written here: they describe its spectrum, all others the star."""


@dataclass(frozen=True)
class Job:
    """A spectrum to embed; without `star_id` it is not stored."""

    observation: Observation
    star_id: str | None = None
    ra: float | None = None
    dec: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def cluster_of(meta: Mapping[str, Any]) -> str | None:
    """The cluster that a star's `meta` names under `cluster` or else `group`: text of 1 to 64 characters."""
    for name in ("cluster", "group"):
        text = meta.get(name)
        if isinstance(text, str) and 1 <= len(text := text.strip()) <= MOST_CLUSTER and text.isprintable():
            return text
    return None


def combined(star: Star, stored: Star) -> Star:
    """A star to store, which replaces another: without a position or `meta` of its own it has the other's."""
    ra, dec, meta, warnings = star.ra, star.dec, star.meta, star.warnings
    if ra is None:
        ra, dec = stored.ra, stored.dec
        warnings = (*warnings, *odd_position(star.star_id, ra, dec))
    if meta.keys() <= OWN_META:
        meta = {name: value for name, value in stored.meta.items() if name not in OWN_META} | meta
    return replace(star, ra=ra, dec=dec, meta=meta, cluster=cluster_of(meta), warnings=warnings)


@dataclass(frozen=True)
class Embedded:
    """An embedded spectrum.

    Attributes
    ----------
    spectrum
        As the model took it: normalised, on its grid.
    embedding
        Its latent and what the model says of it.
    star
        Its row in the store; a spectrum that is not stored has an empty `star_id`.
    packed
        The observation as bytes to store, where spectra are stored.
    replaced
        Whether an earlier star of this id was replaced.
    spectrum_deleted
        Whether the spectrum that was stored with that star was deleted, and none is stored now.
    """

    spectrum: Spectrum
    embedding: Embedding
    star: Star
    packed: bytes | None = None
    replaced: bool = False
    spectrum_deleted: bool = False


def stored_or_refused(result: Embedded | Exception) -> tuple[Star, bytes | None] | str:
    """A star's row and its spectrum's bytes to store, or why the star cannot be used.

    Raises `result` where it is a defect, not an error of the star.
    """
    if isinstance(result, Embedded):
        return result.star, result.packed
    if isinstance(result, (ChemtwinError, ServiceError)):
        return str(result)
    raise result


def conditioned_on(card: Card) -> tuple[str, ...]:
    """The extra parameters of a model: those that it is conditioned on beside teff, logg and fe_h."""
    return tuple(name for name in card.parameters if name not in PARAMETER_UNITS)


class Embedder:
    """The settings' model."""

    def __init__(self, settings: Settings, model: Model | None = None) -> None:
        """Load the settings' model, unless it is given. Raises ModelFileError."""
        threadpool_limits(1, user_api="blas")  # one star's products are too small to share among threads
        self.model = model or load_model(settings.model)
        self.identity = self.model.card.identity
        self.extra = conditioned_on(self.model.card)
        self._keep = settings.store_spectra

    def embed(self, jobs: list[Job]) -> list[Embedded | Exception]:
        """Embed spectra together.

        Returns
        -------
        list
            A result for each job in order, or the error of one that cannot be used.
        """
        results: list[Embedded | Exception | None] = [None] * len(jobs)
        sound: list[int] = []
        for row, job in enumerate(jobs):
            try:
                if job.star_id is not None:
                    check_star_id(job.star_id)
                job.observation.parameters.check(self.model.parameter_names)
                sound.append(row)
            except Exception as error:
                results[row] = error
        prepared = prepare_all([jobs[row].observation for row in sound], self.model.grid, self.model.normaliser)
        spectra: dict[int, Spectrum] = {}
        for row, spectrum in zip(sound, prepared, strict=True):
            if isinstance(spectrum, Exception):
                results[row] = spectrum
            else:
                spectra[row] = self.model.with_typical_errors(spectrum)
        embeddings = self.model.embed(list(spectra.values())) if spectra else []
        for (row, spectrum), embedding in zip(spectra.items(), embeddings, strict=True):
            if np.all(np.abs(embedding.latent) < MAX_LATENT):
                results[row] = self._embedded(jobs[row], spectrum, embedding)
            else:
                results[row] = Invalid("no_latent", "the spectrum leads to no sensible latent")
        return [result for result in results if result is not None]

    def _embedded(self, job: Job, spectrum: Spectrum, embedding: Embedding) -> Embedded:
        parameters, star_id = spectrum.parameters, job.star_id or ""
        star = Star(
            star_id=star_id,
            model=self.identity,
            latent=embedding.latent,
            covariance=embedding.covariance,
            teff=parameters.teff,
            logg=parameters.logg,
            fe_h=parameters.fe_h,
            snr=spectrum.snr,
            chi2=embedding.chi2,
            masked_fraction=spectrum.masked_fraction,
            in_domain=embedding.in_domain,
            warnings=(*job.warnings, *odd_position(star_id, job.ra, job.dec), *embedding.warnings),
            ra=job.ra,
            dec=job.dec,
            meta=job.meta,
            extra=dict(parameters.extra),
            fe_h_err=parameters.fe_h_err,
            cluster=cluster_of(job.meta),
        )
        packed = None
        if self._keep and job.star_id is not None:
            packed = pack(job.observation, self.model.grid, job.warnings)
        return Embedded(spectrum, embedding, star, packed)

"""A star's spectrum, normalised and on the model's grid, beside the model's reconstruction of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import NoSpectrum
from app.inference.embedder import Embedded, Job
from app.inference.service import Service
from app.inference.stars import star_fields
from app.inference.stored_observation import unpack
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum, prepare

DECIMALS = 5
"""Of a flux over the continuum: far below any noise, and half the characters."""


def observed_spectrum(service: Service, star_id: str) -> Spectrum | None:
    """A star's stored spectrum, normalised and on the model's grid; None where it is not stored.

    Raises
    ------
    StoreError, ChemtwinError
        The stored spectrum cannot be read, or the model cannot use it.
    """
    packed = service.store.spectrum(star_id)
    if packed is None:
        return None
    observation, _ = unpack(packed)
    return prepare(observation, service.model.grid, service.model.normaliser)


def stored_spectrum(service: Service, star_id: str, observed: bool) -> dict[str, Any]:
    """The response of GET /stars/{star_id}/spectrum; where no spectrum is stored `flux` and `error` are None.

    Raises
    ------
    NotFound, ModelMismatch
        There is no such star, or another model embedded it.
    NoSpectrum
        No spectrum is stored, and it must be `observed`.
    StoreError, ChemtwinError
        The stored spectrum cannot be read, or the model cannot use it.
    """
    star = service.comparable(star_id)
    spectrum = observed_spectrum(service, star_id)
    if observed and spectrum is None:
        raise NoSpectrum(star_id)
    own = Parameters(star.teff, star.logg, star.fe_h, extra=star.extra)
    return _with_spectra(service, star_fields(star), star.latent, own, spectrum)


def unstored_spectrum(service: Service, job: Job, done: Embedded) -> dict[str, Any]:
    """The response of POST /spectrum."""
    fields = star_fields(done.star) | {"star_id": job.star_id}
    return _with_spectra(service, fields, done.star.latent, done.spectrum.parameters, done.spectrum)


def _with_spectra(
    service: Service,
    fields: dict[str, Any],
    latent: NDArray[np.float32],
    own: Parameters,
    spectrum: Spectrum | None,
) -> dict[str, Any]:
    model = service.model
    flux = error = None
    if spectrum is not None:
        good = spectrum.ivar > 0
        flux = rounded(np.where(good, spectrum.flux, np.nan))
        if spectrum.has_errors:
            error = rounded(np.divide(1, np.sqrt(spectrum.ivar), out=np.full(len(good), np.nan), where=good))
    values = own.values(model.parameter_names)
    return {
        **fields,
        "model": service.model_name(),
        "wavelength": model.grid.wavelength,
        "flux": flux,
        "error": error,
        "reconstruction": rounded(model.decode(latent[None].astype(np.float64), values[None])[0]),
        "processing": [] if spectrum is None else list(spectrum.history),
    }


def rounded(flux: NDArray[Any]) -> NDArray[np.float32]:
    """A flux over the continuum (P,) with the digits that are sent."""
    return np.round(flux, DECIMALS).astype(np.float32)

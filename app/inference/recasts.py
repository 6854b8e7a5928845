"""Recasts: the spectrum that a star would show at other stellar parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.error_responses import error_result
from app.errors import Invalid, NoSpectrum
from app.inference.embedder import MAX_LATENT, Embedded
from app.inference.service import Service
from app.inference.spectra import observed_spectrum, rounded
from app.inference.stars import label_fields
from app.schemas.bodies import LatentIn, To
from model.methods.base import Model
from model.spectra.grid import Array
from model.spectra.parameters import PARAMETER_UNITS, Parameters
from model.spectra.spectrum import Spectrum

FARTHEST = 20.0
"""Most standard deviations of the prior from its mean: those of `make serve` have up to 16."""


@dataclass(frozen=True)
class Origin:
    """A star to recast: its own parameters, latent (D,) and covariance (D, D); with an id if it is stored.

    `spectrum` is the observed one of a star that is not stored.
    """

    parameters: Parameters
    latent: NDArray[np.float32]
    covariance: NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()
    star_id: str | None = None
    spectrum: Spectrum | None = None


def stored_origin(service: Service, star_id: str) -> Origin:
    """A stored star to recast. Raises NotFound or ModelMismatch."""
    star = service.comparable(star_id)
    own = Parameters(star.teff, star.logg, star.fe_h, extra=star.extra)
    return Origin(own, star.latent, star.covariance, tuple(star.warnings), star_id)


def spectrum_origin(done: Embedded) -> Origin:
    """A spectrum to recast, just embedded."""
    embedding = done.embedding
    return Origin(
        done.spectrum.parameters,
        embedding.latent,
        embedding.covariance,
        tuple(embedding.warnings),
        spectrum=done.spectrum,
    )


def latent_origin(service: Service, star: LatentIn) -> Origin:
    """A latent to recast, and its star's own parameters. Raises Invalid or ParameterError."""
    latent = np.array(star.latent, dtype=np.float32)
    dimension = service.model.card.latent_dim
    if latent.shape != (dimension,) or not np.all(np.abs(latent) < MAX_LATENT):
        raise Invalid(
            "bad_latent",
            f"a latent of this model is {dimension} numbers below {MAX_LATENT:g}, as /embed gives them",
        )
    own = star.own.as_parameters()
    own.check(service.model.parameter_names)
    return Origin(own, latent)


def recast(service: Service, origin: Origin, to: To, residual: bool = False) -> dict[str, Any]:
    """The response of POST /recast.

    Parameters
    ----------
    service
        Its model decodes the latent.
    origin
        The star to recast.
    to
        The parameters that change; the others stay the star's own.
    residual
        Add the observed flux less the reconstruction at the star's own parameters; `flux_sd` includes its
        noise. Both are NaN in masked pixels.

    Returns
    -------
    dict
        The response's fields, with `wavelength`, `flux` and `flux_sd` as arrays (P,).

    Raises
    ------
    Invalid
        The model is not conditioned on a parameter, its spectrum is not finite there, or the residual of a
        latent alone was asked for.
    NoSpectrum
        The star's residual is not known: its spectrum is not stored.
    """
    model, own = service.model, origin.parameters
    names, target = model.parameter_names, _target(service, own, to)
    latent, values = origin.latent.astype(np.float64), target.values(names)
    outside = [*model.outside(target), *_far(model, latent)]
    computed_at = _at(target, names, model.nearest(values[None])[0])
    flux = model.decode(latent[None], values[None])[0]
    if not np.all(np.isfinite(flux)):
        raise Invalid("no_recast", "the model has no finite spectrum at these parameters", outside)
    sd = None
    if origin.covariance is not None:
        sd = model.decode_sd(latent, values, origin.covariance.astype(np.float64)).astype(np.float32)
    if residual:
        own_residual, noise = _residual(service, origin)
        flux = flux + own_residual
        sd = None if sd is None else np.hypot(sd, noise).astype(np.float32)
    return {
        "star_id": origin.star_id,
        "model": service.model_name(),
        "wavelength": model.grid.wavelength,
        "flux": flux.astype(np.float32),
        "flux_sd": sd,
        "from": label_fields(own),
        "to": label_fields(target),
        "computed_at": label_fields(computed_at),
        "in_domain": not outside,
        "residual": residual,
        "warnings": [
            *outside,
            *_moved(service, target, computed_at),
            *(f"of the star itself: {warning}" for warning in origin.warnings),
        ],
    }


def _far(model: Model, latent: Array) -> list[str]:
    """A sentence about a latent (D,) that no star has."""
    offset = model.prior_offset(latent)
    if offset is None or offset <= FARTHEST:
        return []
    return [
        f"the latent is {offset:.0f} standard deviations from the mean of the model's stars, where no star is: "
        "its spectrum means nothing"
    ]


def _residual(service: Service, origin: Origin) -> tuple[Array, Array]:
    """Observed flux less the reconstruction at the star's own parameters, and its noise (P,); NaN where masked.

    Raises Invalid or NoSpectrum.
    """
    observed, model = _observed(service, origin), service.model
    good = observed.ivar > 0
    values = origin.parameters.values(model.parameter_names)
    reconstruction = model.decode(origin.latent[None].astype(np.float64), values[None])[0]
    noise = np.divide(1.0, np.sqrt(observed.ivar), out=np.full(len(good), np.nan), where=good)
    return np.where(good, observed.flux - reconstruction, np.nan), noise


def _observed(service: Service, origin: Origin) -> Spectrum:
    """The observed spectrum of a star to recast. Raises Invalid or NoSpectrum."""
    if origin.star_id is None:
        if origin.spectrum is None:
            raise Invalid(
                "no_spectrum", "a latent has no residual: send star_id or spectrum, or leave residual out"
            )
        return origin.spectrum
    spectrum = observed_spectrum(service, origin.star_id)
    if spectrum is None:
        raise NoSpectrum(origin.star_id)
    return spectrum


def _target(service: Service, own: Parameters, to: To) -> Parameters:
    """The parameters asked for. Raises Invalid or ParameterError."""
    names = service.model.parameter_names
    unused = [name for name in to.model_fields_set - {"parameters"} if name not in names]
    unused += [name[:40] for name in to.parameters if name not in service.extra]
    if unused:
        raise Invalid(
            "not_conditioned", f"this model does not know {', '.join(unused[:10])}: it has {', '.join(names)}"
        )
    changed = {name: value for name in PARAMETER_UNITS if (value := getattr(to, name)) is not None}
    usual = {name: getattr(own, name) for name in PARAMETER_UNITS}
    return Parameters(**{**usual, **changed}, extra={**own.extra, **to.parameters})


def _at(target: Parameters, names: Sequence[str], values: Array) -> Parameters:
    """The parameters at which a model computes the flux: `target`, with the `values` (U,) of those `names`."""
    changed = dict(zip(names, values.tolist(), strict=True))
    usual = {name: changed.pop(name, getattr(target, name)) for name in PARAMETER_UNITS}
    return Parameters(**usual, extra={**target.extra, **changed})


def _moved(service: Service, target: Parameters, computed_at: Parameters) -> list[str]:
    """A warning that says at which parameters the flux is computed, where those are not the wanted ones."""
    units = PARAMETER_UNITS | service.extra_units
    moved = [
        f"{name} = {computed_at.value(name):.5g} {units[name]}".rstrip()
        for name in service.model.parameter_names
        if computed_at.value(name) != target.value(name)
    ]
    if not moved:
        return []
    return [
        f"the flux is computed at {', '.join(moved)}: the model cannot go farther outside its training range"
    ]


def recast_several(
    service: Service, first: Sequence[Origin], star_ids: Sequence[str], to: To, residual: bool = False
) -> dict[str, Any]:
    """The response of POST /recast for several stars: each its recast or its error, the wavelengths once.

    Parameters
    ----------
    service
        Its model decodes the latents.
    first
        Stars that come before the stored ones.
    star_ids
        Stored stars.
    to
        The parameters that change.
    residual
        As of `recast`.
    """

    def result(origin: Origin | str) -> dict[str, Any]:
        try:
            found = stored_origin(service, origin) if isinstance(origin, str) else origin
            done = recast(service, found, to, residual)
        except Exception as error:
            return error_result(error)
        names = ("star_id", "from", "to", "computed_at", "in_domain", "warnings")
        shown = {name: done[name] for name in names}
        return {"status": 200, **shown, "flux": rounded(done["flux"])}

    results = [*map(result, first), *map(result, star_ids)]
    return {"model": service.model_name(), "wavelength": service.model.grid.wavelength, "results": results}

"""The forms of JSON responses, for the OpenAPI document.

Responses are written without these models: validating thousands of fluxes takes longer than computing them.
tests/app/routes/test_openapi.py compares them with responses of every route.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from model.similarity.p_same import P_SAME_LIMIT, Verdict

EXTRA = "extra parameters that the model is conditioned on, by name; absent where there are none"
VERDICT = (
    f"what p_same says: '{Verdict.SAME}' from {P_SAME_LIMIT} on, '{Verdict.DIFFERENT}' below; "
    f"'{Verdict.UNKNOWN}' where p_same is null or one of the two stars is outside the model's domain"
)


class Form(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Problem(Form):
    """What was wrong."""

    code: str = Field(description="stable, for programs")
    message: str = Field(description="what is wrong and what to do")
    detail: list[str] = Field(max_length=10, description="the problems one by one, without the values sent")


class ErrorResponse(Form):
    """An error: the same form whatever raised it."""

    error: Problem


class ModelName(Form):
    """The model that a response depends on."""

    name: str
    version: str
    method: str | None = None


class EmbeddedResponse(Form):
    """A star that was stored."""

    star_id: str
    latent: list[float]
    latent_sd: list[float] | None = Field(description="null without ivar or error")
    model: ModelName
    masked_fraction: float = Field(ge=0, le=1)
    snr: float | None
    chi2: float | None
    in_domain: bool
    warnings: list[str]
    replaced: bool
    processing: list[str]


class SeveralResponse(Form):
    """The results of several stars, in order."""

    results: list[dict[str, Any]] = Field(
        description="each with its status, and EmbeddedResponse's fields or an error"
    )


class StarResponse(Form):
    """A stored star."""

    star_id: str
    teff: float
    logg: float
    fe_h: float
    parameters: dict[str, float] = Field({}, description=EXTRA)
    latent: list[float]
    latent_sd: list[float] | None
    model: ModelName
    snr: float | None
    chi2: float | None
    masked_fraction: float
    in_domain: bool
    warnings: list[str]
    ra: float | None
    dec: float | None
    cluster: str | None = Field(description="of `meta`: its text `cluster`, or else `group`")
    meta: dict[str, Any]


class SpectrumResponse(StarResponse):
    """A star with its spectrum as the model sees it, normalised and on the model's grid."""

    star_id: str | None  # type: ignore[assignment]
    wavelength: list[float]
    flux: list[float | None] | None = Field(
        description="as observed; null where masked, null altogether when the service stored no spectrum"
    )
    error: list[float | None] | None = Field(description="of flux, 1 sigma; null without ivar or error")
    reconstruction: list[float] = Field(description="the model's spectrum of the star at its own parameters")
    processing: list[str]


class MapResponse(Form):
    """Stars of the catalogue on the two principal axes of their latents."""

    model: ModelName
    stars: int = Field(ge=0, description="in the catalogue")
    mean: list[float] = Field(description="a latent stands at axes @ (latent - mean)")
    axes: list[list[float]] = Field(min_length=2, max_length=2)
    explained: list[float] = Field(description="fraction of the latents' variance along each axis")
    points: dict[str, list[Any]] = Field(
        description="star_id, x, y, teff, logg, fe_h, snr, cluster of about 3,000 stars drawn at random"
    )
    abundances: dict[str, list[float]] = Field(description="[X/Fe] of these stars by element, read out")


class StarsResponse(Form):
    """A page of stars."""

    stars: list[StarResponse]
    next: str | None = Field(description="`after` of the next page")


class Abundance(Form):
    """One element's abundance."""

    element: str
    x_fe: float = Field(description="[X/Fe], dex")
    x_fe_err: float | None = Field(ge=0, description="null without ivar or error")


class AbundancesResponse(Form):
    """A star's abundances, read out of its latent."""

    star_id: str
    model: ModelName
    unit: str
    abundances: list[Abundance]
    in_domain: bool
    warnings: list[str]


class DeletedResponse(Form):
    """A star that was deleted."""

    star_id: str
    deleted: bool


class Twin(Form):
    """A star near the one asked for."""

    star_id: str
    distance: float = Field(ge=0)
    p_same: float | None = Field(
        ge=0, le=1, description="how often stars of one chemistry lie at least this far apart; a p-value"
    )
    verdict: Verdict = Field(description=VERDICT)
    doppelganger_rate: float | None = Field(
        ge=0, le=1, description="fraction of random pairs at most this far apart; null below 1,000 stars"
    )
    teff: float
    logg: float
    fe_h: float
    fe_h_err: float | None = Field(ge=0, description="1-sigma error of fe_h, dex; null where it is not known")
    parameters: dict[str, float] = Field({}, description=EXTRA)
    snr: float | None
    in_domain: bool = Field(description="whether the model knows such stars; false: distance may be wrong")
    ra: float | None
    dec: float | None
    cluster: str | None = Field(description="the cluster or group that the star belongs to")
    log_likelihood_ratio: float | None = Field(None, description="with rank=likelihood")


class TwinsResponse(Form):
    """The nearest stars."""

    star_id: str | None = Field(description="null for a spectrum without an id")
    k: int
    model: ModelName
    metric: str
    searched: int = Field(ge=0)
    fe_h_within: float | None = Field(description="largest |difference| of [Fe/H], dex; null for no limit")
    exact: bool
    twins: list[Twin] = Field(max_length=1000)
    in_domain: bool = Field(description="whether the model knows the star; false: no twin has a verdict")
    warnings: list[str] = Field(description="what to mind of the star")


class LabelsResponse(Form):
    """Stellar parameters; extra ones of the model under `parameters`."""

    teff: float
    logg: float
    fe_h: float
    parameters: dict[str, float] = Field({}, description=EXTRA)


class RecastResponse(Form):
    """A star's spectrum at other parameters."""

    star_id: str | None
    model: ModelName
    wavelength: list[float]
    flux: list[float | None] = Field(description="over the continuum; null in masked pixels with `residual`")
    flux_sd: list[float | None] | None = Field(
        description="standard deviation by that of the latent, with `residual` also by the noise; not what the "
        "model misses of real stars; null for a star without errors, and in masked pixels with `residual`"
    )
    source: LabelsResponse = Field(alias="from")
    to: LabelsResponse
    computed_at: LabelsResponse = Field(
        description="where the flux is computed: `to`, or the nearest that the model can, with a warning"
    )
    in_domain: bool
    residual: bool = Field(description="whether the star's own residual is included")
    warnings: list[str]


class SeveralRecastResponse(Form):
    """Several stars' spectra at other parameters."""

    model: ModelName
    wavelength: list[float]
    results: list[dict[str, Any]] = Field(
        description="in order, each with its status, and error or what one star's response has, without flux_sd"
    )


class DriftResponse(Form):
    """How far the catalogue's stars are from what the model expects."""

    stars_checked: int = Field(ge=0, description="at most 10,000, drawn at random")
    outside_domain: float | None = Field(ge=0, le=1, description="fraction of them; null of no stars")
    outside_range: int = Field(
        ge=0, description="stars checked whose Teff, log g or [Fe/H] is outside the training range"
    )
    unlike_spectra: int = Field(
        ge=0, description="the others outside the domain: spectra unlike those that the model was made for"
    )
    latent_offset: float | None = Field(
        ge=0, description="of their mean latent from the prior's, in sigma; null where the model has no prior"
    )
    message: str = Field(description="the same in words, with what to do about it")


class ModelResponse(Form):
    """The model card."""

    model: ModelName
    method: str
    latent_dim: int
    parameters: dict[str, dict[str, Any]]
    logg_limits: list[dict[str, float]] = Field(
        description="least and greatest log g at some Teff, linear between; empty if Teff does not matter"
    )
    grid: dict[str, Any]
    normalisation: dict[str, Any]
    metric: str
    abundances: list[str] | None
    error_floor: float | None
    typical_errors: dict[str, float] = Field(
        description="errors of parameters that are used where a spectrum with errors comes without them"
    )
    training: dict[str, Any]
    quality: dict[str, Any]
    stars: int
    drift: DriftResponse


class HealthResponse(Form):
    """The service is alive."""

    status: str


class ReadyResponse(Form):
    """The service is ready."""

    status: str
    model: ModelName
    stars: int

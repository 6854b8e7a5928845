"""The forms of the answers, for the OpenAPI document; what fills them is in app/inference/service.py."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """What was wrong."""

    code: str = Field(description="stable, for programs")
    message: str = Field(description="what is wrong and what to do")
    detail: list[str] = Field(max_length=10, description="the problems one by one, without the values sent")


class Refusal(BaseModel):
    """The one shape of every error."""

    model_config = ConfigDict(extra="forbid")

    error: Problem


class ModelName(BaseModel):
    """The model that an answer depends on."""

    name: str
    version: str
    method: str | None = None


class EmbeddedAnswer(BaseModel):
    """A star that is on disk now."""

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


class ManyAnswer(BaseModel):
    """What became of each star of several, in order."""

    results: list[dict[str, Any]] = Field(
        description="each with its status, and EmbeddedAnswer's fields or an error"
    )


class StarAnswer(BaseModel):
    """A stored star."""

    star_id: str
    teff: float
    logg: float
    fe_h: float
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
    meta: dict[str, Any]


class SpectrumAnswer(StarAnswer):
    """A star with its spectrum as the model sees it, normalised and on the model's grid."""

    star_id: str | None  # type: ignore[assignment]
    wavelength: list[float]
    flux: list[float | None] | None = Field(
        description="as observed; null where masked, null altogether when the service kept no spectrum"
    )
    error: list[float | None] | None = Field(description="of flux, 1 sigma; null without ivar or error")
    reconstruction: list[float] = Field(description="the model's spectrum of the star at its own parameters")
    processing: list[str]


class MapAnswer(BaseModel):
    """Stars of the catalogue on the two principal axes of their latents."""

    model: ModelName
    stars: int = Field(ge=0, description="in the catalogue")
    mean: list[float] = Field(description="a latent stands at axes @ (latent - mean)")
    axes: list[list[float]] = Field(min_length=2, max_length=2)
    explained: list[float] = Field(description="share of the latents' variance along each axis")
    points: dict[str, list[Any]] = Field(
        description="star_id, x, y, teff, logg, fe_h, snr of about 3,000 stars drawn at random"
    )
    abundances: dict[str, list[float]] = Field(description="[X/Fe] of these stars by element, read out")


class StarsAnswer(BaseModel):
    """A page of stars."""

    stars: list[StarAnswer]
    next: str | None = Field(description="`after` of the next page")


class Abundance(BaseModel):
    """One element's abundance."""

    element: str
    x_fe: float = Field(description="[X/Fe], dex")
    x_fe_err: float | None = Field(ge=0, description="null without ivar or error")


class AbundancesAnswer(BaseModel):
    """What a star is made of, by its latent."""

    star_id: str
    model: ModelName
    unit: str
    abundances: list[Abundance]
    in_domain: bool
    warnings: list[str]


class DeletedAnswer(BaseModel):
    """A star that is gone."""

    star_id: str
    deleted: bool


class Twin(BaseModel):
    """A star near the one asked for."""

    star_id: str
    distance: float = Field(ge=0)
    p_same: float | None = Field(ge=0, le=1)
    doppelganger_rate: float | None = Field(
        ge=0, le=1, description="fraction of random pairs at most this far apart; null below 1,000 stars"
    )
    teff: float
    logg: float
    fe_h: float
    snr: float | None
    in_domain: bool = Field(description="whether the model knows such stars; false: distance may be wrong")
    ra: float | None
    dec: float | None
    log_likelihood_ratio: float | None = Field(None, description="with rank=likelihood")


class TwinsAnswer(BaseModel):
    """The nearest stars."""

    star_id: str | None = Field(description="null for a spectrum without an id")
    k: int
    model: ModelName
    metric: str
    searched: int = Field(ge=0)
    exact: bool
    twins: list[Twin] = Field(max_length=1000)


class LabelsAnswer(BaseModel):
    """Stellar parameters; further ones of the model under `parameters`."""

    teff: float
    logg: float
    fe_h: float
    parameters: dict[str, float] = {}


class RecastAnswer(BaseModel):
    """A star's spectrum at other parameters."""

    model_config = ConfigDict(populate_by_name=True)

    star_id: str | None
    model: ModelName
    wavelength: list[float]
    flux: list[float]
    flux_sd: list[float] | None
    source: LabelsAnswer = Field(alias="from")
    to: LabelsAnswer
    in_domain: bool
    warnings: list[str]


class SeveralRecastAnswer(BaseModel):
    """Several stars' spectra at other parameters."""

    model: ModelName
    wavelength: list[float]
    results: list[dict[str, Any]] = Field(
        description="in order, each with its status, and star_id, from, to, flux, in_domain, warnings or error"
    )


class CardAnswer(BaseModel):
    """The model card."""

    model: ModelName
    method: str
    latent_dim: int
    parameters: dict[str, dict[str, Any]]
    grid: dict[str, Any]
    normalisation: dict[str, Any]
    metric: str
    abundances: list[str] | None
    error_floor: float | None
    training: dict[str, Any]
    quality: dict[str, Any]
    stars: int


class HealthAnswer(BaseModel):
    """Alive."""

    status: str


class ReadyAnswer(BaseModel):
    """Ready."""

    status: str
    model: ModelName
    stars: int

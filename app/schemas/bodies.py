"""JSON bodies of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.schemas.fields import Flags, Floats, StarId
from model.errors import SpectrumError
from model.spectra.parameters import PARAMETER_UNITS, POSSIBLE, Parameters
from model.spectra.pixels import bad_pixels, ivar_of
from model.spectra.spectrum import Observation

META_BYTES = 4096
MOST_RECAST = 100
"""Stars that one request may recast."""

ERRORS = tuple(f"{name}_err" for name in PARAMETER_UNITS)


class Strict(BaseModel):
    """No unknown fields, no strings for numbers, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Extra = dict[str, float]
ExtraErrors = dict[str, Annotated[float, Field(ge=0)] | None]


def _between(name: str) -> dict[str, Any]:
    """The possible values of a parameter, for the document: `Parameters.check` checks the value."""
    low, high = POSSIBLE[name]
    return {"minimum": low, "maximum": high}


def _error(name: str, unit: str) -> Any:
    """The field of a parameter's error, with its largest possible value for the document."""
    low, high = POSSIBLE[name]
    text = f"1-sigma error, {unit}; 0: exact; null: not known, and the typical error of GET /model is used"
    return Field(None, ge=0, description=text, json_schema_extra={"maximum": high - low})


def _known(errors: Mapping[str, float | None]) -> dict[str, float]:
    """The errors that are not null."""
    return {name: error for name, error in errors.items() if error is not None}


class Labels(Strict):
    """A star's parameters as the sender knows them."""

    teff: float = Field(description="effective temperature, K", json_schema_extra=_between("teff"))
    logg: float = Field(description="surface gravity, dex (cgs)", json_schema_extra=_between("logg"))
    fe_h: float = Field(description="[Fe/H], dex", json_schema_extra=_between("fe_h"))
    teff_err: float | None = _error("teff", "K")
    logg_err: float | None = _error("logg", "dex")
    fe_h_err: float | None = _error("fe_h", "dex")
    parameters: Extra = Field({}, description="extra parameters that the model is conditioned on, by name")
    parameters_err: ExtraErrors = Field({}, description="1-sigma errors of those; 0: exact; null: not known")

    def as_parameters(self) -> Parameters:
        """As the model takes them."""
        values = {name: getattr(self, name) for name in (*PARAMETER_UNITS, *ERRORS)}
        return Parameters(
            **{name: value for name, value in values.items() if value is not None},
            extra=self.parameters,
            extra_err=_known(self.parameters_err),
        )


class SpectrumIn(Labels):
    """A spectrum with its labels."""

    flux: Floats = Field(description="flux per pixel; null only where ivar is 0 or the mask is bad")
    wavelength: Floats | None = Field(None, description="Angstrom, vacuum, rest frame")
    ivar: Floats | None = Field(None, description="inverse variance; 0 or null: ignore the pixel")
    error: Floats | None = Field(None, description="1-sigma error; null, 0 or negative: ignore the pixel")
    bitmask: Flags | None = Field(
        None, description="APOGEE pixel mask: integers; true counts as bit 0, null as no flag known"
    )
    normalized: bool = Field(True, description="false: flux is not divided by a continuum")

    @model_validator(mode="after")
    def _one_error(self) -> SpectrumIn:
        if self.ivar is not None and self.error is not None:
            raise ValueError("send ivar or error, not both")
        return self

    def observation(self, bad_bits: int) -> Observation:
        """As the model takes it.

        Parameters
        ----------
        bad_bits
            Bits of the pixel mask that make a pixel unusable.

        Raises
        ------
        SpectrumError, ParameterError
            The bitmask or the parameters cannot be used.
        """
        if self.error is not None and self.error.shape != self.flux.shape:
            raise SpectrumError(
                "lengths_disagree", f"error has {self.error.size} values but flux has {self.flux.size}"
            )
        return Observation(
            flux=self.flux,
            parameters=self.as_parameters(),
            ivar=self.ivar if self.error is None else ivar_of(self.error),
            bad=None if self.bitmask is None else bad_pixels(self.bitmask, bad_bits),
            wavelength=self.wavelength,
            normalized=self.normalized,
        )


class UnstoredIn(SpectrumIn):
    """A star as for /embed that is not stored, and need have no id."""

    star_id: StarId | None = None
    ra: float | None = Field(None, ge=0, le=360, description="degrees")
    dec: float | None = Field(None, ge=-90, le=90, description="degrees")
    meta: dict[str, Any] = Field({}, description="anything, at most 4 kB as JSON")

    @field_validator("meta")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(orjson.dumps(value))
        except TypeError:
            raise ValueError("is nested too deeply") from None
        if size > META_BYTES:
            raise ValueError(f"must be at most {META_BYTES} bytes as JSON")
        return value


class StarIn(UnstoredIn):
    """A star to store."""

    star_id: StarId


class StoredIn(Strict):
    """Stored stars whose twins are asked for."""

    star_ids: list[StarId] = Field(min_length=1)
    k: int | None = Field(None, ge=1, le=1000)


class SeveralIn(Strict):
    """Several stars, each with its own result."""

    stars: list[Any] = Field(
        description="each as one star's body; one that is not gets its own error",
        json_schema_extra={"minItems": 1},
    )


class To(Strict):
    """Parameters to recast to; what is left out stays the star's own.

    To compare siblings, give all a common teff and logg, and leave fe_h out: it is part of their chemistry.
    """

    teff: float | None = None
    logg: float | None = None
    fe_h: float | None = None
    parameters: Extra = Field({}, description="extra parameters that the model is conditioned on, by name")


class LatentIn(Strict):
    """A star by its latent, as /embed and /spectrum give it, and its own parameters."""

    latent: list[float] = Field(min_length=1, max_length=1000)
    own: Labels = Field(alias="from", description="what the latent was embedded at")


class RecastIn(Strict):
    """A stored star, a spectrum or a latent, or several stored stars, and where to recast to."""

    star_id: StarId | None = None
    spectrum: SpectrumIn | None = None
    star: LatentIn | None = Field(None, description="in place of star_id: a star that is not stored")
    star_ids: list[StarId] | None = Field(
        None, max_length=MOST_RECAST, description="several, alone or after one of the others"
    )
    to: To
    residual: bool = Field(
        False, description="add the star's own residual: its observed flux less the model's reconstruction"
    )

    @model_validator(mode="after")
    def _one_source(self) -> RecastIn:
        sources = [self.star_id, self.spectrum, self.star]
        given = sum(source is not None for source in sources)
        if given > 1 or (given == 0 and not self.star_ids):
            raise ValueError("send star_id, spectrum or star, one of them; or star_ids")
        return self

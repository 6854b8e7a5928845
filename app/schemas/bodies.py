"""What comes in as JSON, and what goes out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from app.service_errors import Invalid
from app.values.columns import UNKNOWN, lost_digits
from model.spectra.grid import MAX_PIXELS, Array
from model.spectra.pixels import bad_pixels, ivar_of
from model.spectra.spectrum import PARAMETER_UNITS, POSSIBLE, Observation, Parameters

STAR_ID = r"^[A-Za-z0-9][A-Za-z0-9+._:-]{0,63}\Z"
STAR_IDS = r"^{id}(,{id}){{0,999}}\Z".format(id="[A-Za-z0-9][A-Za-z0-9+._:-]{0,63}")
META_BYTES = 4096
_STAR_ID = re.compile(STAR_ID)

ERRORS = tuple(f"{name}_err" for name in PARAMETER_UNITS)
PLAIN_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def _text_id(value: Any) -> Any:
    """JSON's numbers lose digits, and zeros at their beginning."""
    if isinstance(value, (int, float)):
        raise ValueError('an id is text, digit for digit: send it in quotes, as in "2M17335483-2753043"')
    return value


StarId = Annotated[
    str,
    StringConstraints(pattern=_STAR_ID),
    BeforeValidator(_text_id),
    WithJsonSchema({"type": "string", "pattern": STAR_ID.replace(r"\Z", "$")}),
]


def _plus(value: Any) -> Any:
    """An unescaped + of an id in a query string arrives as a space."""
    return value.replace(" ", "+") if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """Of the texts that pydantic takes for an integer, those of digits only."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise ValueError("must be an integer, in digits")
    return value


def _number(value: Any) -> Any:
    """Of the texts that pydantic takes for a number, those that are one to everybody."""
    if isinstance(value, str) and not PLAIN_NUMBER.fullmatch(value.strip()):
        raise ValueError(
            "must be a plain number such as 4705 or -0.12: no unit, no comma, no nan or inf; "
            "leave out what is not known"
        )
    return value


def _true_or_false(value: Any) -> Any:
    """Of the texts that pydantic takes for a truth value, those that JSON has."""
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


def is_star_id(value: str) -> bool:
    """Whether a star may be called so."""
    return _STAR_ID.match(value) is not None


def check_star_id(star_id: str) -> None:
    """Raise Invalid for an id that no star may have, or that stands for none or for a rounded number."""
    if not is_star_id(star_id):
        raise Invalid("bad_star_id", f"{star_id[:64]!r} is no star id: it must match {STAR_ID}")
    if star_id.lower() in UNKNOWN or lost_digits(star_id):
        raise Invalid(
            "bad_star_id",
            f"{star_id!r} is no star id: it stands for none, or for a floating-point number that has lost "
            "digits. Write ids as text.",
        )


QueryId = Annotated[StarId, BeforeValidator(_plus)]
QueryIds = Annotated[
    str,
    StringConstraints(pattern=re.compile(STAR_IDS), max_length=66_000),
    WithJsonSchema({"type": "string", "pattern": STAR_IDS.replace(r"\Z", "$")}),
    BeforeValidator(_plus),
]
Count = Annotated[int, BeforeValidator(_plain)]
QueryNumber = Annotated[float, BeforeValidator(_number)]
QueryPositive = Annotated[float, Field(ge=0), BeforeValidator(_number)]
QueryBool = Annotated[bool, BeforeValidator(_true_or_false)]


def _array(value: list[Any], kinds: set[type], wanted: str) -> NDArray[Any]:
    """An array (n,) of a JSON list of these types, null becoming NaN."""
    if len(value) > MAX_PIXELS:
        raise ValueError(f"has {len(value)} values; at most {MAX_PIXELS} are taken")
    if not value or not set(map(type, value)) <= kinds:
        raise ValueError(f"must hold {wanted} only, at least one")
    try:
        return np.array(value, dtype=np.float64 if kinds & {float} else np.int64)
    except OverflowError:
        raise ValueError("holds an integer that is too large") from None


def _floats(value: Any) -> Array:
    """An array (n,) of a JSON list of numbers, null becoming NaN."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64)
    if not isinstance(value, list):
        raise ValueError("must be a list of numbers")
    return _array(value, {float, int, type(None)}, "numbers and nulls")


def _flags(value: Any) -> NDArray[Any]:
    """An array (n,) of a JSON list of integers; or of what `model.spectra.pixels.bad_pixels` takes for them."""
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a list of integers")
    kinds = set(map(type, value))
    if kinds == {bool}:
        return np.array(value)
    return _array(value, {int} if kinds == {int} else {float, int, type(None)}, "integers")


def _numbers(function: Any, kind: str) -> GetPydanticSchema:
    items = (
        core_schema.nullable_schema(core_schema.float_schema())
        if kind == "number"
        else core_schema.int_schema()
    )
    documented = core_schema.list_schema(items, min_length=1, max_length=MAX_PIXELS)
    return GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_plain_validator_function(
            function, json_schema_input_schema=documented
        )
    )


Floats = Annotated[Any, _numbers(_floats, "number")]
Flags = Annotated[Any, _numbers(_flags, "integer")]


class Strict(BaseModel):
    """No unknown fields, no strings for numbers, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Others = dict[str, float]
Errors = dict[str, Annotated[float, Field(ge=0)] | None]


def _between(name: str) -> dict[str, Any]:
    """What is possible of a parameter, for the document: model.spectrum.Parameters looks at the value."""
    low, high = POSSIBLE[name]
    return {"minimum": low, "maximum": high}


def _error(name: str, unit: str) -> Any:
    """The field of a parameter's error; what is possible of it, for the document."""
    low, high = POSSIBLE[name]
    text = f"1-sigma error, {unit}; null: not known"
    return Field(None, ge=0, description=text, json_schema_extra={"maximum": high - low})


def known_errors(errors: Mapping[str, float | None]) -> dict[str, float]:
    """Those of some errors that are known."""
    return {name: error for name, error in errors.items() if error is not None}


class Labels(Strict):
    """A star's parameters as the sender knows them."""

    teff: float = Field(description="effective temperature, K", json_schema_extra=_between("teff"))
    logg: float = Field(description="surface gravity, dex (cgs)", json_schema_extra=_between("logg"))
    fe_h: float = Field(description="[Fe/H], dex", json_schema_extra=_between("fe_h"))
    teff_err: float | None = _error("teff", "K")
    logg_err: float | None = _error("logg", "dex")
    fe_h_err: float | None = _error("fe_h", "dex")
    parameters: Others = Field({}, description="what else the model is conditioned on, by name")
    parameters_err: Errors = Field({}, description="1-sigma errors of those; null: not known")

    def known(self) -> Parameters:
        """As the model wants them."""
        values = {name: getattr(self, name) for name in (*PARAMETER_UNITS, *ERRORS)}
        return Parameters(
            **{name: value for name, value in values.items() if value is not None},
            others=self.parameters,
            others_err=known_errors(self.parameters_err),
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
        """As the model wants it. Raises SpectrumError or ParameterError."""
        return Observation(
            flux=self.flux,
            parameters=self.known(),
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


class FitsQuery(BaseModel):
    """The query string that goes with a FITS body; `of` gathers the model's further parameters."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    star_id: QueryId | None = None
    teff: QueryNumber | None = None
    logg: QueryNumber | None = None
    fe_h: QueryNumber | None = None
    teff_err: QueryPositive | None = None
    logg_err: QueryPositive | None = None
    fe_h_err: QueryPositive | None = None
    parameters: dict[str, QueryNumber] = {}
    parameters_err: dict[str, QueryPositive] = {}

    @classmethod
    def of(cls, query: Mapping[str, str], further: Sequence[str]) -> FitsQuery:
        """A query string in which the parameters `further` stand by their names, their errors as <name>_err."""
        errors = {f"{name}_err": name for name in further}
        usual = {name: value for name, value in query.items() if name not in further and name not in errors}
        given = {name: query[name] for name in further if name in query}
        told = {name: query[key] for key, name in errors.items() if key in query}
        further_ones = {"parameters": given, "parameters_err": told}
        return cls.model_validate({name: those for name, those in further_ones.items() if those} | usual)


def _possible(name: str) -> Any:
    """What a limit of a parameter must satisfy: it lies where a star may be."""
    low, high = POSSIBLE[name]
    return Field(ge=low, le=high)


TeffLimit = Annotated[float, _possible("teff"), BeforeValidator(_number)]
LoggLimit = Annotated[float, _possible("logg"), BeforeValidator(_number)]
FeHLimit = Annotated[float, _possible("fe_h"), BeforeValidator(_number)]


class TwinQuery(BaseModel):
    """The query string of /twins."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    k: Count = Field(10, ge=1, le=1000)
    format: Literal["json", "csv", "votable"] | None = None
    teff_min: TeffLimit | None = None
    teff_max: TeffLimit | None = None
    logg_min: LoggLimit | None = None
    logg_max: LoggLimit | None = None
    fe_h_min: FeHLimit | None = None
    fe_h_max: FeHLimit | None = None
    snr_min: QueryNumber | None = None
    fe_h_within: QueryPositive | Literal["any"] | None = None
    max_distance: QueryPositive | None = None
    in_domain: QueryBool | None = Field(None, description="only stars that the model knows, or only others")
    rank: Literal["distance", "likelihood"] = "distance"


class StoredIn(Strict):
    """Stored stars whose twins are asked for."""

    star_ids: list[StarId] = Field(min_length=1)
    k: int | None = Field(None, ge=1, le=1000)


class SeveralIn(Strict):
    """Several stars, each of which has its own fate."""

    stars: list[Any] = Field(
        description="each as one star's body; one that is not is refused by itself",
        json_schema_extra={"minItems": 1},
    )


class To(Strict):
    """Parameters to recast to; what is left out stays the star's own."""

    teff: float | None = None
    logg: float | None = None
    fe_h: float | None = None
    parameters: Others = Field({}, description="what else the model is conditioned on, by name")


class LatentIn(Strict):
    """A star by its latent, as /embed and /spectrum give it, and its own parameters."""

    latent: list[float] = Field(min_length=1, max_length=1000)
    own: Labels = Field(alias="from", description="what the latent was embedded at")


MOST_RECAST = 100
"""Stars that one request may recast."""


class RecastIn(Strict):
    """A stored star, a spectrum or a latent, or several stored stars, and where to recast to."""

    star_id: StarId | None = None
    spectrum: SpectrumIn | None = None
    star: LatentIn | None = Field(None, description="in place of star_id: a star that is not stored")
    star_ids: list[StarId] | None = Field(
        None, max_length=MOST_RECAST, description="several, alone or after one of the others"
    )
    to: To

    @model_validator(mode="after")
    def _one_source(self) -> RecastIn:
        sources = [self.star_id, self.spectrum, self.star]
        given = sum(source is not None for source in sources)
        if given > 1 or (given == 0 and not self.star_ids):
            raise ValueError("send star_id, spectrum or star, one of them; or star_ids")
        return self


class RecastQuery(BaseModel):
    """The query string of POST /recast."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "csv", "fits", "png", "votable"] | None = None


class TableQuery(BaseModel):
    """A query string that says no more than the form of a table."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "csv", "votable"] | None = None


class StarsQuery(BaseModel):
    """The query string of GET /stars."""

    model_config = ConfigDict(extra="forbid")

    after: QueryId | Literal[""] = ""
    prefix: QueryId | Literal[""] = Field("", description="only ids that begin so; case matters")
    star_ids: QueryIds | None = Field(None, description="only these ids, separated by commas")
    limit: Count = Field(100, ge=1, le=1000)
    format: Literal["json", "csv", "votable"] | None = None

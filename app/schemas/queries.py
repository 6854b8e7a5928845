"""Query strings, one model for each kind; routes declare them as `Annotated[..., Query()]`."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator

from app.errors import Invalid
from app.schemas.fields import (
    Absent,
    ClusterName,
    Count,
    FeHLimit,
    LoggLimit,
    QueryBool,
    QueryId,
    QueryIds,
    QueryNumber,
    QueryPositive,
    TeffLimit,
)

TableForm = Literal["json", "csv", "votable"]
NUMBERS = TypeAdapter(dict[str, QueryNumber], config=ConfigDict(allow_inf_nan=False))
ERRORS = TypeAdapter(dict[str, QueryPositive], config=ConfigDict(allow_inf_nan=False))


class TwinQuery(BaseModel):
    """How many twins, which stars may be twins, how they are ranked, and in which form they are sent."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    k: Count = Field(10, ge=1, le=1000)
    format: TableForm | Absent = None
    teff_min: TeffLimit | Absent = None
    teff_max: TeffLimit | Absent = None
    logg_min: LoggLimit | Absent = None
    logg_max: LoggLimit | Absent = None
    fe_h_min: FeHLimit | Absent = None
    fe_h_max: FeHLimit | Absent = None
    snr_min: QueryNumber | Absent = None
    fe_h_within: QueryPositive | Literal["any"] | Absent = Field(
        None,
        description="largest |difference| of [Fe/H], dex; by default 0.1, wider by the error of [Fe/H], "
        "if the model removes [Fe/H] from the latent",
    )
    max_distance: QueryPositive | Absent = None
    cluster: ClusterName | Absent = Field(None, description="only stars of this cluster or group")
    not_cluster: ClusterName | Absent = Field(None, description="no stars of this cluster or group")
    in_domain: QueryBool | Absent = Field(None, description="only stars that the model knows, or only others")
    rank: Literal["distance", "likelihood", "p_same"] = "distance"

    @field_validator("teff_max", "logg_max", "fe_h_max")
    @classmethod
    def _not_below_the_least(cls, greatest: float | None, given: ValidationInfo) -> float | None:
        least = given.data.get(str(given.field_name).replace("_max", "_min"))
        if greatest is not None and least is not None and greatest < least:
            raise ValueError(f"{greatest:g} is below the minimum, {least:g}")
        return greatest


def _with_fits() -> Any:
    return Field(None, description="with FITS only")


class FitsQuery(BaseModel):
    """What goes with a FITS body: the star's id and labels, and the model's extra parameters by their names."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    star_id: QueryId | Absent = _with_fits()
    teff: QueryNumber | Absent = _with_fits()
    logg: QueryNumber | Absent = _with_fits()
    fe_h: QueryNumber | Absent = _with_fits()
    teff_err: QueryPositive | Absent = _with_fits()
    logg_err: QueryPositive | Absent = _with_fits()
    fe_h_err: QueryPositive | Absent = _with_fits()

    def extra(self, names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
        """The model's extra parameters and their errors.

        Parameters
        ----------
        names
            The extra parameters that the model is conditioned on.

        Returns
        -------
        values, errors
            Those that the query string gives, by the parameter's name.

        Raises
        ------
        Invalid
            The query string has a parameter that is none of these.
        ValidationError
            A value is not a number, or an error is negative.
        """
        given = self.model_extra or {}
        errors = {f"{name}_err": name for name in names}
        if unknown := [name[:80] for name in given if name not in names and name not in errors]:
            near = get_close_matches(unknown[0], [*FitsQuery.model_fields, *names, *errors], 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise Invalid(
                "invalid_request",
                f"this call takes no parameter {unknown[0]!r} in its query string{hint}",
                unknown,
            )
        return (
            NUMBERS.validate_python({name: given[name] for name in names if name in given}),
            ERRORS.validate_python({name: given[key] for key, name in errors.items() if key in given}),
        )

    def check_body(self, *, fits: bool, names: Sequence[str]) -> None:
        """Raise Invalid for a parameter that no call takes, or for labels beside a body that is not FITS."""
        self.extra(names)
        if not fits and (self.model_extra or self.model_fields_set & set(FitsQuery.model_fields)):
            raise Invalid("invalid_request", "labels in the query string go with a FITS body only")


class TwinsOfBodyQuery(TwinQuery, FitsQuery):
    """As for the twins of a stored star, and the labels that go with a FITS body."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class RecastQuery(BaseModel):
    """The form in which a recast is sent."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "csv", "fits", "png", "votable"] | Absent = None


class SpectrumQuery(BaseModel):
    """Whether an observed spectrum is needed, and the form in which it is sent."""

    model_config = ConfigDict(extra="forbid")

    observed: QueryBool = Field(False, description="true: 404 where the service stored no spectrum")
    format: Literal["json", "csv", "fits", "votable"] | Absent = None


class TableQuery(BaseModel):
    """The form in which a table is sent."""

    model_config = ConfigDict(extra="forbid")

    format: TableForm | Absent = None


class StarsQuery(BaseModel):
    """A page of the stored stars, and in which form it is sent."""

    model_config = ConfigDict(extra="forbid")

    after: QueryId | Literal[""] = ""
    prefix: QueryId | Literal[""] = Field("", description="only ids that begin so; case matters")
    star_ids: QueryIds | Absent = Field(None, description="only these ids, separated by commas")
    cluster: ClusterName | Absent = Field(None, description="only stars of this cluster or group")
    limit: Count = Field(100, ge=1, le=1000)
    format: TableForm | Absent = None


class ConeQuery(BaseModel):
    """A Simple Cone Search. Names stand in any case, and unknown ones are passed over, as the standard says."""

    model_config = ConfigDict(allow_inf_nan=False)

    RA: QueryNumber = Field(ge=0, le=360, description="right ascension, ICRS, degrees")
    DEC: QueryNumber = Field(ge=-90, le=90, description="declination, ICRS, degrees")
    SR: QueryNumber = Field(ge=0, le=180, description="search radius, degrees; 0 asks for the columns alone")
    VERB: Count = Field(2, ge=1, le=3, description="how many columns: 1 few, 3 the latents too")

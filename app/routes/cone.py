"""Simple Cone Search 1.03 of the Virtual Observatory: the stars around a position, as a VOTable.

TOPCAT, Aladin, pyvo and STILTS ask so. The standard wants the first words for what a column means (UCD1) in the
three that it names, and has errors told in a VOTable too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from anyio import CapacityLimiter
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import problems
from app.formats.responses import votable_file
from app.formats.tables import Column, star_columns, votable_bytes, votable_error
from app.inference.service import Service
from app.schemas.requests import Count, QueryNumber
from index.stores.sky import Circle
from index.stores.star import Star

MOST = 10_000
"""Stars in one answer; of a circle with more, the answer says OVERFLOW."""

CONES = CapacityLimiter(1)
"""Circles are answered one at a time: a full one takes seconds, for which other requests do not wait."""

UCD1 = {"star_id": "ID_MAIN", "ra": "POS_EQ_RA_MAIN", "dec": "POS_EQ_DEC_MAIN"}
BRIEF = ("star_id", "ra", "dec", "separation", "teff", "logg", "fe_h")
VECTORS = ("latent", "latent_sd")

SEPARATION = Column(
    "separation", "angle from the position that was asked for", lambda s: s[1], "deg", "pos.angDistance"
)


class Cone(BaseModel):
    """The parameters of a cone search, whose names stand in any case; others are passed over."""

    model_config = ConfigDict(allow_inf_nan=False)

    RA: QueryNumber = Field(ge=0, le=360, description="right ascension, ICRS, degrees")
    DEC: QueryNumber = Field(ge=-90, le=90, description="declination, ICRS, degrees")
    SR: QueryNumber = Field(ge=0, le=180, description="search radius, degrees; 0 asks for the columns alone")
    VERB: Count = Field(2, ge=1, le=3, description="how many columns: 1 few, 3 the latents too")


def cone_answer(service: Service, parameters: dict[str, str]) -> Response:
    """The stars in a circle on the sky, nearest first, or what is wrong with the parameters."""
    try:
        cone = Cone.model_validate({name.upper(): value for name, value in parameters.items()})
    except ValidationError as error:
        return votable_file(votable_error("; ".join(problems(error.errors()))), "cone-error")
    circle = Circle(cone.RA, cone.DEC, cone.SR)
    card = service.model.card
    found = service.store.within(circle, MOST + 1, card.identity) if cone.SR else []
    content = votable_bytes(
        _columns(cone.VERB, card.latent_dim, service.further_units),
        found[:MOST],
        "cone",
        overflow=len(found) > MOST,
        version="1.1",  # later ones know UCD1+ alone
    )
    return votable_file(content, f"cone-{cone.RA:g}-{cone.DEC:g}-{cone.SR:g}")


def _columns(verbosity: int, dimension: int, further: dict[str, str]) -> list[Column]:
    columns = [_of_star(column) for column in star_columns(dimension, further)]
    named = {column.name: column for column in columns}
    first = [SEPARATION if name == "separation" else named[name] for name in BRIEF]
    if verbosity == 1:
        return first
    rest = [column for column in columns if column.name not in BRIEF]
    return first + [column for column in rest if verbosity == 3 or column.name not in VECTORS]


def _of_star(column: Column) -> Column:
    def value(row: tuple[Star, float]) -> Any:
        return column.value(row[0])

    return replace(column, value=value, ucd=UCD1.get(column.name, column.ucd))

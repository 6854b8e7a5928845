"""GET /cone: Simple Cone Search 1.03 of the Virtual Observatory, the stars around a position as a VOTable.

TOPCAT, Aladin, pyvo and STILTS send such requests. The standard wants the older UCD1 for the three columns that
it names, and reports errors in a VOTable too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from app.error_responses import problems
from app.formats.file_response import file_name, file_response
from app.formats.table_columns import Column, star_columns, votable_bytes, votable_error
from app.inference.service import Service
from app.openapi import loose_parameters, votable_responses
from app.routes.dependencies import ServiceDep
from app.schemas.queries import ConeQuery
from index.stores.sky import Circle
from index.stores.star import Star

router = APIRouter(tags=["stars"])

MOST = 10_000
"""Stars in one response; of a circle with more, the response says OVERFLOW."""

CONES = CapacityLimiter(1)
"""Circles are searched one at a time: a full one takes seconds, for which other requests do not wait."""

UCD1 = {"star_id": "ID_MAIN", "ra": "POS_EQ_RA_MAIN", "dec": "POS_EQ_DEC_MAIN"}
BRIEF = ("star_id", "ra", "dec", "separation", "teff", "logg", "fe_h")
VECTORS = ("latent", "latent_sd")

SEPARATION = Column(
    "separation", "angle from the position that was asked for", lambda s: s[1], "deg", "pos.angDistance"
)


@router.get(
    "/cone", responses=votable_responses(), response_class=Response, openapi_extra=loose_parameters(ConeQuery)
)
async def cone(request: Request, service: ServiceDep) -> Response:
    """The stars around a position, by Simple Cone Search; errors are reported in a VOTable too."""
    # read by hand: the standard's names stand in any case, and what is wrong with them has status 200
    parameters = {name.upper(): value for name, value in request.query_params.items()}
    return await to_thread.run_sync(_search, service, parameters, limiter=CONES)


def _search(service: Service, parameters: dict[str, str]) -> Response:
    """The stars in a circle on the sky, nearest first, or what is wrong with the parameters."""
    try:
        query = ConeQuery.model_validate(parameters)
    except ValidationError as error:
        return file_response(votable_error("; ".join(problems(error.errors()))), "votable", "cone-error")
    circle = Circle(query.RA, query.DEC, query.SR)
    card = service.model.card
    found = service.store.within(circle, MOST + 1, card.identity) if query.SR else []
    content = votable_bytes(
        _columns(query.VERB, card.latent_dim, service.extra_units),
        found[:MOST],
        "cone",
        overflow=len(found) > MOST,
        version="1.1",  # later ones know UCD1+ alone
    )
    return file_response(content, "votable", file_name(f"cone-{query.RA:g}-{query.DEC:g}-{query.SR:g}"))


def _columns(verbosity: int, latent_dim: int, extra_units: dict[str, str]) -> list[Column]:
    columns = [_of_star(column) for column in star_columns(latent_dim, extra_units)]
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

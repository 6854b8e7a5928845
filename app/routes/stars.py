"""Stored stars: GET /stars, GET and DELETE /stars/{star_id}, GET /stars/{star_id}/abundances."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.errors import NotFound
from app.formats.file_response import varying
from app.formats.negotiation import TABLE, negotiated
from app.formats.table_responses import abundances_response, stars_response
from app.inference.abundances import abundances_of
from app.inference.stars import star_fields, stars_page
from app.json_response import json_response
from app.openapi import responses
from app.routes.dependencies import NO_QUERY, ServiceDep, StarPath
from app.schemas.queries import StarsQuery, TableQuery
from app.schemas.responses import AbundancesResponse, DeletedResponse, StarResponse, StarsResponse

router = APIRouter(tags=["stars"])
deletion = APIRouter(tags=["stars"])
"""What needs a key that may write."""


@router.get("/stars", responses=responses(StarsResponse, forms=TABLE))
def stars(query: Annotated[StarsQuery, Query()], request: Request, service: ServiceDep) -> Response:
    """Stored stars in the order of their ids; `next` is the `after` of the next page, null at the end."""
    form = negotiated(request, query.format, TABLE)
    page, more = stars_page(service, query)
    if form != "json":
        latent_dim = service.model.card.latent_dim
        return stars_response(form, page, query, more, latent_dim, service.extra_units)
    shown = [star_fields(star) for star in page]
    return varying(json_response({"stars": shown, "next": shown[-1]["star_id"] if more else None}))


@router.get("/stars/{star_id}", dependencies=NO_QUERY, responses=responses(StarResponse, 404))
def star(star_id: StarPath, service: ServiceDep) -> Response:
    """A stored star."""
    return json_response(star_fields(service.star(star_id)))


@router.get("/stars/{star_id}/abundances", responses=responses(AbundancesResponse, 404, 409, forms=TABLE))
def abundances(
    star_id: StarPath, query: Annotated[TableQuery, Query()], request: Request, service: ServiceDep
) -> Response:
    """[X/Fe] of a stored star by a linear readout of its latent, with errors."""
    form = negotiated(request, query.format, TABLE)
    return abundances_response(form, abundances_of(service, star_id))


@deletion.delete("/stars/{star_id}", dependencies=NO_QUERY, responses=responses(DeletedResponse, 404))
def delete(star_id: StarPath, service: ServiceDep) -> Response:
    """Delete a star; it is deleted on disk when the response is sent."""
    if not service.index.delete(star_id):
        raise NotFound(star_id)
    return json_response({"star_id": star_id, "deleted": True})

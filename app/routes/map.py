"""GET /map: the catalogue's latents on two axes."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.json_response import JSON
from app.openapi import responses
from app.routes.dependencies import NO_QUERY, LatentMapDep
from app.schemas.responses import MapResponse

router = APIRouter(tags=["stars"])


@router.get("/map", dependencies=NO_QUERY, responses=responses(MapResponse))
def latent_map(drawn: LatentMapDep) -> Response:
    """The catalogue's latents on their two principal axes, for about 3,000 stars, with labels."""
    return Response(drawn.json(), media_type=JSON)

"""GET /model: the model card."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.inference.model_card import model_card
from app.json_response import json_response
from app.openapi import responses
from app.routes.dependencies import NO_QUERY, ServiceDep
from app.schemas.responses import ModelResponse

router = APIRouter(tags=["service"])


@router.get("/model", dependencies=NO_QUERY, responses=responses(ModelResponse))
def model(service: ServiceDep) -> Response:
    """The model card."""
    return json_response(model_card(service))

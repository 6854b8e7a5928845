"""What machines ask of the service itself: /healthz, /readyz, /metrics."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app import metrics
from app.errors import Busy
from app.json_response import json_response
from app.openapi import responses, text_responses
from app.routes.dependencies import BatcherDep, ServiceDep
from app.schemas.responses import HealthResponse, ReadyResponse
from index.errors import StoreError

health = APIRouter(tags=["service"])
"""What needs no key."""

router = APIRouter(tags=["service"])


@health.get("/healthz", responses=responses(HealthResponse))
async def healthz() -> Response:
    """Alive. It takes no thread, so that a service with much to do still responds."""
    return json_response({"status": "ok"})


@health.get("/readyz", responses=responses(ReadyResponse))
def readyz(service: ServiceDep, batcher: BatcherDep) -> Response:
    """Ready: the model is loaded, inference works, and the search has caught up with the store."""
    if trouble := batcher.trouble():
        raise Busy("stuck", f"{trouble}; restart the service")
    service.index.catch_up()
    return json_response({"status": "ready", "model": service.model_name(), "stars": len(service.index)})


@router.get("/metrics", responses=text_responses(), response_class=Response)
def prometheus(service: ServiceDep) -> Response:
    """Metrics in Prometheus' text format."""
    with suppress(Busy, StoreError):  # what is wrong with the store is among the numbers
        service.index.catch_up()
        metrics.STARS.set(len(service.index))
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

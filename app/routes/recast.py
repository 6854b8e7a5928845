"""POST /recast: the spectrum of a star, or of several, at other stellar parameters."""

from __future__ import annotations

from functools import partial

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from app.formats.bodies import check_content_type, parse_json, parsed, read_body
from app.formats.negotiation import RECAST, negotiated
from app.formats.recast_responses import recast_picture, recast_response
from app.inference import recasts
from app.inference.batcher import Batcher
from app.inference.embedder import Embedded, Job
from app.inference.recasts import Origin
from app.inference.service import Service
from app.json_response import JSON, json_response
from app.openapi import OF_BODIES, query_parameters, request_body, responses
from app.operations.threads import Threads
from app.routes.dependencies import query_of
from app.schemas.bodies import RecastIn, To
from app.schemas.queries import RecastQuery
from app.schemas.responses import RecastResponse, SeveralRecastResponse
from model.spectra.spectrum import Observation

router = APIRouter(tags=["twins"])

DRAWING = CapacityLimiter(1)
"""Pictures are drawn one at a time, in a thread that other requests do not wait for."""


@router.post(
    "/recast",
    responses=responses(RecastResponse | SeveralRecastResponse, 404, 409, *OF_BODIES, forms=RECAST),
    openapi_extra=request_body([RecastIn]) | query_parameters(RecastQuery),
)
async def recast(request: Request) -> Response:
    """The spectrum that a star, or each of several, would show at other stellar parameters."""
    query = query_of(RecastQuery, request)
    service: Service = request.app.state.service
    batcher: Batcher[Job, Embedded, Embedded] = request.app.state.batcher
    form = negotiated(request, query.format, RECAST)
    check_content_type(request, JSON)
    settings = service.settings
    content = await read_body(request, settings.max_body_bytes)
    threads: Threads = request.app.state.threads
    body, observation = await parsed(content, partial(_parse, bad_bits=settings.bad_bits), threads)
    unstored = None
    if observation is not None:
        unstored = recasts.spectrum_origin(await batcher.submit(Job(observation)))
    elif body.star is not None:
        unstored = recasts.latent_origin(service, body.star)
    if body.star_ids is not None:
        negotiated(request, query.format, ("json",))
        first = [] if unstored is None else [unstored]
        stored = [*([] if body.star_id is None else [body.star_id]), *body.star_ids]
        return json_response(
            await run_in_threadpool(recasts.recast_several, service, first, stored, body.to, body.residual)
        )
    if form == "png":
        return await to_thread.run_sync(_picture, service, unstored, body, limiter=DRAWING)
    if form == "json":
        return await threads.run(lambda: _response(form, service, unstored, body))
    return await run_in_threadpool(_response, form, service, unstored, body)


def _parse(content: bytes, bad_bits: int) -> tuple[RecastIn, Observation | None]:
    body = RecastIn.model_validate(parse_json(content))
    return body, None if body.spectrum is None else body.spectrum.observation(bad_bits)


def _origin(service: Service, unstored: Origin | None, body: RecastIn) -> Origin:
    if unstored is not None:
        return unstored
    assert body.star_id is not None
    return recasts.stored_origin(service, body.star_id)


def _response(form: str, service: Service, unstored: Origin | None, body: RecastIn) -> Response:
    return recast_response(
        form, recasts.recast(service, _origin(service, unstored, body), body.to, body.residual)
    )


def _picture(service: Service, unstored: Origin | None, body: RecastIn) -> Response:
    origin = _origin(service, unstored, body)
    changed, own = (recasts.recast(service, origin, to, body.residual) for to in (body.to, To()))
    return recast_picture(own, changed, service.model.grid.detectors, service.extra_units)

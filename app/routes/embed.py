"""POST /embed: store one star or several, and return their latents."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from app.error_responses import error_result
from app.errors import Invalid
from app.formats.bodies import (
    FITS,
    NPZ,
    check_content_type,
    check_number,
    fits_job,
    jobs_of,
    parse_json,
    parsed,
    read_body,
    repeated,
    star_job,
)
from app.formats.npz import npz_stars
from app.inference.batcher import Batcher
from app.inference.embedder import Embedded, Job
from app.inference.service import Service
from app.inference.stars import embedded_fields
from app.json_response import JSON, json_response
from app.openapi import embed_responses, query_parameters, request_body
from app.routes.dependencies import query_of
from app.schemas.bodies import SeveralIn, StarIn
from app.schemas.queries import FitsQuery

router = APIRouter(tags=["stars"])


@router.post(
    "/embed",
    openapi_extra=request_body([StarIn, SeveralIn], *FITS, NPZ) | query_parameters(FitsQuery),
    responses=embed_responses(),
    status_code=201,
)
async def embed(request: Request) -> Response:
    """Store one star or several and return their latents; see the contract for the forms of the body.

    A stored star of the same id is replaced. Its position and `meta` stay unless they are sent too.
    """
    query = query_of(FitsQuery, request)
    service: Service = request.app.state.service
    batcher: Batcher[Job, Embedded, Embedded] = request.app.state.batcher
    kind = check_content_type(request, JSON, *FITS, NPZ)
    query.check_body(fits=kind in FITS, names=service.extra)
    settings = service.settings
    content = await read_body(request, settings.max_body_bytes)
    body: Job | list[Any]
    if kind in FITS:
        body = await run_in_threadpool(fits_job, content, query, settings, service.extra)
    elif kind == NPZ:
        body = await run_in_threadpool(
            npz_stars, content, settings.max_body_bytes, settings.max_stars, service.extra
        )
    else:
        body = await parsed(
            content, partial(_one_or_several, bad_bits=settings.bad_bits), request.app.state.threads
        )
    if isinstance(body, list):
        return await _embed_several(body, service, batcher)
    done = await batcher.submit(body)
    return json_response(embedded_fields(service, body, done), 200 if done.replaced else 201)


def _one_or_several(content: bytes, bad_bits: int) -> Job | list[Any]:
    """The star of a JSON body, or the list of several, which are not yet validated."""
    value = parse_json(content)
    if isinstance(value, dict) and set(value) == {"stars"} and isinstance(value["stars"], list):
        return value["stars"]
    if isinstance(value, list):
        raise Invalid("invalid_request", 'several stars go as {"stars": [...]}, not as a list')
    return star_job(StarIn.model_validate(value), bad_bits)


async def _embed_several(
    stars: list[Any], service: Service, batcher: Batcher[Job, Embedded, Embedded]
) -> Response:
    settings = service.settings
    check_number(len(stars), settings.max_stars)

    async def result(job: Job | Exception) -> dict[str, Any]:
        try:
            if isinstance(job, Exception):
                raise job
            done = await batcher.submit(job)
            return {"status": 200 if done.replaced else 201, **embedded_fields(service, job, done)}
        except Exception as error:
            return error_result(error)

    results: list[dict[str, Any]] = []
    again = repeated(stars)
    duplicate = Invalid("duplicate_id", "an earlier star of this body has the same star_id")
    for start in range(0, len(stars), settings.batch_size):
        part = stars[start : start + settings.batch_size]
        jobs = await run_in_threadpool(jobs_of, part, StarIn, settings.bad_bits)
        jobs = [duplicate if start + row in again else job for row, job in enumerate(jobs)]
        results += await asyncio.gather(*map(result, jobs))
    return json_response({"results": results})

"""POST /spectrum, GET /stars/{star_id}/spectrum: a spectrum as the model takes it and as it reconstructs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.formats.bodies import FITS, check_content_type, fits_job, parse_json, read_body, star_job
from app.formats.negotiation import SPECTRUM, negotiated
from app.formats.spectrum_responses import spectrum_response
from app.inference.embedder import Job
from app.inference.service import Service
from app.inference.spectra import stored_spectrum, unstored_spectrum
from app.json_response import JSON, json_response
from app.openapi import OF_BODIES, request_body, responses
from app.routes.dependencies import BatcherDep, ServiceDep, StarPath
from app.schemas.bodies import UnstoredIn
from app.schemas.queries import FitsQuery, SpectrumQuery
from app.schemas.responses import SpectrumResponse

router = APIRouter(tags=["stars"])


@router.post(
    "/spectrum",
    responses=responses(SpectrumResponse, *OF_BODIES),
    openapi_extra=request_body([UnstoredIn], *FITS),
)
async def reconstruct(
    request: Request, query: Annotated[FitsQuery, Query()], service: ServiceDep, batcher: BatcherDep
) -> Response:
    """What the model makes of a spectrum that is not stored: latent, reconstruction, warnings."""
    fits = check_content_type(request, JSON, *FITS) in FITS
    query.check_body(fits=fits, names=service.extra)
    content = await read_body(request, service.settings.max_body_bytes)
    job = await run_in_threadpool(_job, content, query, service, fits)
    done = await batcher.submit(replace(job, star_id=None))
    return json_response(await run_in_threadpool(unstored_spectrum, service, job, done))


def _job(content: bytes, query: FitsQuery, service: Service, fits: bool) -> Job:
    settings = service.settings
    if fits:
        return fits_job(content, query, settings, service.extra, named=False)
    return star_job(UnstoredIn.model_validate(parse_json(content)), settings.bad_bits)


@router.get("/stars/{star_id}/spectrum", responses=responses(SpectrumResponse, 404, 409, forms=SPECTRUM))
def spectrum(
    star_id: StarPath, query: Annotated[SpectrumQuery, Query()], request: Request, service: ServiceDep
) -> Response:
    """A stored star's spectrum as the model takes it, if it was stored, and as it reconstructs it."""
    form = negotiated(request, query.format, SPECTRUM)
    content = stored_spectrum(service, star_id, observed=query.observed or form != "json")
    return spectrum_response(form, content)

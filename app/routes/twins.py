"""GET and POST /twins: the twins of a stored star, of spectra that are not stored, of several stored stars."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    read_body,
    star_job,
)
from app.formats.negotiation import TABLE, negotiated
from app.formats.npz import npz_stars
from app.formats.table_responses import twins_response
from app.inference.batcher import Batcher
from app.inference.embedder import Embedded, Job
from app.inference.service import Service
from app.inference.twins import shortlist, twins_of_one, twins_of_several
from app.json_response import JSON, json_response
from app.openapi import OF_BODIES, query_parameters, request_body, responses
from app.operations.threads import Threads
from app.routes.dependencies import StarPath, query_of
from app.schemas.bodies import SeveralIn, StoredIn, UnstoredIn
from app.schemas.queries import TwinQuery, TwinsOfBodyQuery
from app.schemas.responses import SeveralResponse, TwinsResponse
from index.stores.star import Star

router = APIRouter(tags=["twins"])

MOST_TWINS = 100_000
"""Neighbours that the stars of one request may be given or ranked among, all together."""

SHORT = 100
"""Neighbours up to which a search takes a few milliseconds."""

Result = dict[str, Any]


@router.get(
    "/twins/{star_id}",
    responses=responses(TwinsResponse, 404, 409, forms=TABLE),
    openapi_extra=query_parameters(TwinQuery),
)
async def twins(star_id: StarPath, request: Request) -> Response:
    """The k chemically nearest stars, nearest first."""
    query = query_of(TwinQuery, request)
    service: Service = request.app.state.service
    form = negotiated(request, query.format, TABLE)

    def search() -> Response:
        found = twins_of_one(service, service.comparable(star_id), query)
        return twins_response(form, found, service.extra_units)

    return await _run(request, query, form, search)


async def _run(request: Request, query: TwinQuery, form: str, search: Callable[[], Response]) -> Response:
    """What `search` returns, in the thread of short functions where it is one."""
    if shortlist(query) > SHORT or form == "votable":
        return await run_in_threadpool(search)
    threads: Threads = request.app.state.threads
    return await threads.run(search)


@router.post(
    "/twins",
    responses=responses(TwinsResponse | SeveralResponse, *OF_BODIES, forms=TABLE),
    openapi_extra=request_body([UnstoredIn, SeveralIn, StoredIn], *FITS, NPZ)
    | query_parameters(TwinsOfBodyQuery),
)
async def twins_of(request: Request) -> Response:
    """The twins of a spectrum that is not stored, of several, or of stored stars (`star_ids`)."""
    query = query_of(TwinsOfBodyQuery, request)
    service: Service = request.app.state.service
    batcher: Batcher[Job, Embedded, Embedded] = request.app.state.batcher
    kind = check_content_type(request, JSON, *FITS, NPZ)
    query.check_body(fits=kind in FITS, names=service.extra)
    settings = service.settings
    content = await read_body(request, settings.max_body_bytes)
    search = _Search(request, service, batcher, query)
    if kind in FITS:
        job = await run_in_threadpool(lambda: fits_job(content, query, settings, service.extra, named=False))
        return await search.one(job, negotiated(request, query.format, TABLE))
    value: Any = None
    if kind == JSON:
        value = await run_in_threadpool(parse_json, content)
        if not isinstance(value, dict) or ("star_ids" not in value and set(value) != {"stars"}):
            job = await run_in_threadpool(lambda: star_job(UnstoredIn.model_validate(value), settings.bad_bits))
            return await search.one(job, negotiated(request, query.format, TABLE))
    negotiated(request, query.format, ("json",))
    if kind == NPZ:
        limits = settings.max_body_bytes, settings.max_stars, service.extra
        stars = await run_in_threadpool(lambda: npz_stars(content, *limits, named=False))
        return await search.several(stars)
    if "star_ids" in value:
        return await search.stored(StoredIn.model_validate(value))
    return await search.several(SeveralIn.model_validate(value).stars)


@dataclass(frozen=True)
class _Search:
    """The searches of one request."""

    request: Request
    service: Service
    batcher: Batcher[Job, Embedded, Embedded]
    query: TwinQuery

    async def one(self, job: Job, form: str) -> Response:
        """The twins of one spectrum."""
        star = await self._embedded(job)

        def search() -> Response:
            found = twins_of_one(self.service, star, self.query)
            return twins_response(form, found, self.service.extra_units)

        return await _run(self.request, self.query, form, search)

    async def several(self, values: list[Any]) -> Response:
        """The twins of several spectra, given as bodies of `UnstoredIn`."""
        settings = self.service.settings
        self._check(len(values), self.query)

        async def star_of(job: Job | Exception) -> Star | Exception:
            try:
                if isinstance(job, Exception):
                    raise job
                return await self._embedded(job)
            except Exception as error:
                return error

        results: list[Result] = []
        for start in range(0, len(values), settings.batch_size):
            part = values[start : start + settings.batch_size]
            jobs = await run_in_threadpool(jobs_of, part, UnstoredIn, settings.bad_bits)
            stars = await asyncio.gather(*map(star_of, jobs))
            results += await run_in_threadpool(self._results, stars, self.query)
        return json_response({"results": results})

    async def stored(self, body: StoredIn) -> Response:
        """The twins of stored stars."""
        query = self.query
        if body.k is not None:
            if "k" in query.model_fields_set:
                raise Invalid("invalid_request", "k: send it in the body or in the query string, not in both")
            query = query.model_copy(update={"k": body.k})
        self._check(len(body.star_ids), query)

        def star_of(star_id: str) -> Star | Exception:
            try:
                return self.service.comparable(star_id)
            except Exception as error:
                return error

        size = self.service.settings.batch_size
        results: list[Result] = []
        for start in range(0, len(body.star_ids), size):
            part = body.star_ids[start : start + size]
            results += await run_in_threadpool(
                lambda star_ids: self._results([star_of(star_id) for star_id in star_ids], query), part
            )
        return json_response({"results": results})

    async def _embedded(self, job: Job) -> Star:
        """The star of a spectrum, which is not stored."""
        done = await self.batcher.submit(replace(job, star_id=None))
        return replace(done.star, star_id=job.star_id or "")

    def _check(self, count: int, query: TwinQuery) -> None:
        check_number(count, self.service.settings.max_stars)
        if count * shortlist(query) > MOST_TWINS:
            raise Invalid(
                "too_many_twins",
                f"{count} stars with {shortlist(query)} neighbours each are more than the {MOST_TWINS} of one "
                f"request: send at most {MOST_TWINS // shortlist(query)}"
                + (", or ask for a smaller k" if query.rank == "distance" else " to rank so"),
            )

    def _results(self, stars: Sequence[Star | Exception], query: TwinQuery) -> list[Result]:
        """The results in order, of stars searched for together; an exception is its own result."""
        sound = [star for star in stars if isinstance(star, Star)]
        found = iter(twins_of_several(self.service, sound, query))
        results = []
        for star in stars:
            twins = star if isinstance(star, Exception) else next(found)
            results.append(error_result(twins) if isinstance(twins, Exception) else {"status": 200, **twins})
        return results

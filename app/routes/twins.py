"""POST /twins: the twins of spectra that are not stored, and of several stored stars at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from app.errors import answer_json, one_of_several
from app.formats.bodies import (
    FITS,
    JSON,
    NPZ,
    check_number,
    content_type,
    fits_job,
    jobs_of,
    no_spectra,
    npz_stars,
    parse_json,
    read_body,
    star_job,
)
from app.formats.negotiation import negotiated
from app.formats.responses import TABLE, answer_twins
from app.inference.embedder import Embedded, Job
from app.inference.service import Service
from app.inference.twins import shortlist, twins_answer, twins_of
from app.operations.request_limits import query_of
from app.schemas.requests import FitsQuery, SeveralIn, StoredIn, TwinQuery, UnstoredIn
from app.service_errors import Invalid, UnsupportedMedia
from index.stores.star import Star

Embed = Callable[[Job], Awaitable[Embedded]]
Result = dict[str, Any]

MOST_TWINS = 100_000
"""Neighbours that the stars of one request may be given or ranked among, all together."""


async def post_twins(request: Request, service: Service, embed: Embed) -> Response:
    """The answer; `embed` gives a spectrum its latent.

    Raises ServiceError, ChemtwinError or ValidationError.
    """
    settings = service.settings
    limit = settings.max_body_mb * 1_000_000
    kind = content_type(request)
    told = query_of(request)
    labels = {name: told.pop(name) for name in set(told) - set(TwinQuery.model_fields)} if kind in FITS else {}
    query = TwinQuery.model_validate(told)
    content = await read_body(request, limit)
    if kind in FITS:
        known = FitsQuery.of(labels, service.further)
        job = await run_in_threadpool(lambda: fits_job(content, known, settings, named=False))
    elif kind == NPZ:
        negotiated(request, query.format, ("json",))
        arrays = (content, limit, settings.max_stars, service.further)
        return await _several(
            await run_in_threadpool(lambda: npz_stars(*arrays, named=False)), service, embed, query
        )
    elif kind == JSON:
        value = await run_in_threadpool(parse_json, content)
        if isinstance(value, dict) and ("star_ids" in value or set(value) == {"stars"}):
            negotiated(request, query.format, ("json",))
            if "star_ids" in value:
                return await _stored(StoredIn.model_validate(value), service, query)
            return await _several(SeveralIn.model_validate(value).stars, service, embed, query)
        job = await run_in_threadpool(lambda: star_job(UnstoredIn.model_validate(value), settings.bad_bits))
    else:
        raise no_spectra()
    form = negotiated(request, query.format, TABLE)
    done = await embed(replace(job, star_id=None))
    return await run_in_threadpool(_answer, form, job, done, service, query)


async def unstored_job(request: Request, service: Service) -> Job:
    """What is to be embedded of a body with one spectrum, JSON or FITS; the query goes with FITS only.

    Raises ServiceError, ChemtwinError or ValidationError.
    """
    settings, kind = service.settings, content_type(request)
    known = FitsQuery.of(query_of(request), service.further)
    if kind not in (JSON, *FITS):
        raise UnsupportedMedia("unsupported_media_type", f"Content-Type must be {JSON} or {FITS[0]}")
    if kind == JSON and known.model_fields_set:
        raise Invalid("invalid_request", "parameters in the query string go with a FITS body only")
    content = await read_body(request, settings.max_body_mb * 1_000_000)
    if kind == JSON:
        return await run_in_threadpool(
            lambda: star_job(UnstoredIn.model_validate(parse_json(content)), settings.bad_bits)
        )
    return await run_in_threadpool(lambda: fits_job(content, known, settings, named=False))


def _answer(form: str, job: Job, done: Embedded, service: Service, query: TwinQuery) -> Response:
    star = service.unstored(job, done)
    answer = twins_answer(service, star, query)
    return answer_twins(form, answer | _doubts(star), service.further_units)


def _doubts(star: Star) -> Result:
    """What a star that is stored was told when it was."""
    return {"in_domain": star.in_domain, "warnings": list(star.warnings)}


async def _several(values: list[Any], service: Service, embed: Embed, query: TwinQuery) -> Response:
    _check(len(values), service, query)

    async def embedded(job: Job | Exception) -> tuple[Star, Result] | Exception:
        if isinstance(job, Exception):
            return job
        try:
            done = await embed(replace(job, star_id=None))
        except Exception as error:
            return error
        star = service.unstored(job, done)
        return star, _doubts(star)

    results: list[Result] = []
    size = service.settings.batch_size
    for start in range(0, len(values), size):
        jobs = await run_in_threadpool(
            jobs_of, values[start : start + size], UnstoredIn, service.settings.bad_bits
        )
        asked = await asyncio.gather(*map(embedded, jobs))
        results += await run_in_threadpool(_results, asked, service, query)
    return answer_json({"results": results})


async def _stored(wish: StoredIn, service: Service, query: TwinQuery) -> Response:
    if wish.k is not None:
        if "k" in query.model_fields_set:
            raise Invalid("invalid_request", "k: send it in the body or in the query string, not in both")
        query = query.model_copy(update={"k": wish.k})
    _check(len(wish.star_ids), service, query)

    def results(star_ids: list[str]) -> list[Result]:
        return _results([_found(star_id, service) for star_id in star_ids], service, query)

    size = service.settings.batch_size
    parts = [wish.star_ids[start : start + size] for start in range(0, len(wish.star_ids), size)]
    done = [result for part in parts for result in await run_in_threadpool(results, part)]
    return answer_json({"results": done})


def _found(star_id: str, service: Service) -> tuple[Star, Result] | Exception:
    try:
        return service.comparable(star_id), {}
    except Exception as error:
        return error


def _check(count: int, service: Service, query: TwinQuery) -> None:
    check_number(count, service.settings.max_stars)
    if count * shortlist(query) > MOST_TWINS:
        raise Invalid(
            "too_many_twins",
            f"{count} stars with {shortlist(query)} neighbours each are more than the {MOST_TWINS} of one "
            "request: send fewer stars, or ask for a smaller k",
        )


def _results(
    asked: Sequence[tuple[Star, Result] | Exception], service: Service, query: TwinQuery
) -> list[Result]:
    """The results in order, of stars searched for together; an exception is its own result."""
    answers = iter(twins_of(service, [one[0] for one in asked if not isinstance(one, Exception)], query))
    results = []
    for one in asked:
        answer = one if isinstance(one, Exception) else next(answers)
        if isinstance(answer, Exception):
            results.append(one_of_several(answer))
        else:
            assert not isinstance(one, Exception)
            results.append({"status": 200, **answer, **one[1]})
    return results

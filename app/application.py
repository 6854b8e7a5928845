"""The HTTP contract: routes, keys, and the life of the service."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, FastAPI, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from app import metrics
from app.errors import answer_json, install, one_of_several
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
    repeated,
    star_in,
    star_job,
    understood,
)
from app.formats.negotiation import negotiated
from app.formats.responses import (
    RECAST,
    TABLE,
    answer_abundances,
    answer_recast,
    answer_stars,
    answer_twins,
    stars_page,
    varying,
)
from app.inference.batcher import Batcher
from app.inference.embedder import Embedded, Job
from app.inference.latent_map import LatentMap
from app.inference.reconstruction import latent_source, recast_several, stored_spectrum, unstored_spectrum
from app.inference.service import Service, Source
from app.inference.twins import twins_answer
from app.openapi import (
    OF_BODIES,
    answers,
    complete,
    embed_answers,
    fits_query,
    loose_parameters,
    query_parameters,
    refuses,
    request_body,
    votable_answers,
)
from app.operations import logs
from app.operations.access import no_query, one_of
from app.operations.logs import RequestLog
from app.operations.request_limits import Guard, query_of
from app.routes import explorer
from app.routes.cone_search import CONES, Cone, cone_answer
from app.routes.direct_route import DirectRoute
from app.routes.post_twins import post_twins, unstored_job
from app.schemas.requests import (
    STAR_ID,
    FitsQuery,
    RecastIn,
    RecastQuery,
    SeveralIn,
    StarIn,
    StarsQuery,
    StoredIn,
    TableQuery,
    TwinQuery,
    UnstoredIn,
)
from app.schemas.responses import (
    AbundancesAnswer,
    CardAnswer,
    DeletedAnswer,
    HealthAnswer,
    ManyAnswer,
    MapAnswer,
    ReadyAnswer,
    RecastAnswer,
    SeveralRecastAnswer,
    SpectrumAnswer,
    StarAnswer,
    StarsAnswer,
    TwinsAnswer,
)
from app.service_errors import Busy, Invalid, NotFound, UnsupportedMedia
from app.settings import Settings, keys
from index.errors import StoreError
from model.spectra.spectrum import Observation

SWITCH = 0.0005
"""Seconds after which a busy thread lets another go on: a tenth of Python's own, for short requests."""

THREADS = 16
"""Requests that are worked on at once, and as many searches: more only wait for the interpreter's lock."""

LAST_BATCH_S = 5.0
"""Seconds for the batch in inference when the service stops, after those that its requests had."""

StarPath = Annotated[str, Path(pattern=STAR_ID.replace(r"\Z", "$"), description="star id")]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application, by default with the environment's settings; it opens model and store when it starts."""
    settings = settings or Settings()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(SWITCH)
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "searches"))
        logs.configure(settings.log_format, settings.log_level)
        service = await run_in_threadpool(Service, settings)
        app.state.service = service
        app.state.latent_map = LatentMap(service)
        app.state.batcher = Batcher(service.embed, settings.queue_size, settings.batch_size)
        card = service.model.card
        metrics.MODEL.labels(card.name, card.version, card.method).set(1)
        metrics.ROOM.set(settings.queue_size)
        gc.collect()
        gc.freeze()  # what is imported stays: no later collection has to look through it
        yield
        await app.state.batcher.stop(LAST_BATCH_S)
        service.close()

    app = FastAPI(
        title="Chemtwin",
        summary="The chemical twins of a star, straight from its spectrum.",
        version=version("chemtwin"),
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        responses=refuses(422, 503),
        generate_unique_id_function=lambda route: route.name,
    )
    install(app)
    complete(app)
    limit = settings.max_body_mb * 1_000_000
    room = max(settings.held_bodies_mb * 1_000_000, limit + 1_000_000)
    app.add_middleware(Guard, timeout=settings.body_timeout_s, room=room)
    app.add_middleware(RequestLog)
    writers, readers = keys(settings.api_keys), keys(settings.read_keys)
    write = one_of(writers) if writers or readers else []
    read = one_of(writers + readers) if writers or readers else []
    bare = Depends(no_query)
    keyed = (401,) if writers or readers else ()

    def service() -> Service:
        found: Service = app.state.service
        return found

    async def run_job(job: Job) -> Embedded:
        batcher: Batcher[Job, Embedded] = app.state.batcher
        with metrics.WAITING.track_inprogress():
            return await batcher.submit(job)

    async def embed_one(job: Job) -> Response:
        done = await run_job(job)
        return answer_json(service().embedded_answer(job, done), 200 if done.replaced else 201)

    def one_or_several(content: bytes) -> Job | list[Any]:
        value = parse_json(content)
        if isinstance(value, dict) and set(value) == {"stars"} and isinstance(value["stars"], list):
            return value["stars"]
        if isinstance(value, list):
            raise Invalid("invalid_request", 'several stars go as {"stars": [...]}, not as a list')
        return star_job(star_in(value), settings.bad_bits)

    async def embed_many(stars: list[Any]) -> Response:
        check_number(len(stars), settings.max_stars)

        async def attempt(job: Job | Exception) -> dict[str, Any]:
            try:
                if isinstance(job, Exception):
                    raise job
                done = await run_job(job)
                return {"status": 200 if done.replaced else 201, **service().embedded_answer(job, done)}
            except Exception as error:
                return one_of_several(error)

        results, again = [], repeated(stars)
        twice = Invalid("duplicate_id", "an earlier star of this body has the same star_id")
        for start in range(0, len(stars), settings.batch_size):
            part = stars[start : start + settings.batch_size]
            jobs = await run_in_threadpool(jobs_of, part, StarIn, settings.bad_bits)
            jobs = [twice if start + row in again else job for row, job in enumerate(jobs)]
            results += await asyncio.gather(*map(attempt, jobs))
        return answer_json({"results": results})

    @app.post(
        "/embed",
        dependencies=write,
        openapi_extra=request_body([StarIn, SeveralIn], *FITS, NPZ) | fits_query(),
        responses=embed_answers() | refuses(*keyed),
        status_code=201,
        tags=["stars"],
    )
    async def embed(request: Request) -> Response:
        """Store one star or several and return their latents; see the contract for the forms of the body."""
        kind = content_type(request)
        query = FitsQuery.of(query_of(request), service().further)
        if kind not in FITS and query.model_fields_set:
            raise Invalid("invalid_request", "parameters in the query string go with a FITS body only")
        content = await read_body(request, limit)
        if kind == JSON:
            found = await understood(content, one_or_several)
            return await (embed_many(found) if isinstance(found, list) else embed_one(found))
        if kind in FITS:
            return await embed_one(await run_in_threadpool(fits_job, content, query, settings))
        if kind == NPZ:
            stars = await run_in_threadpool(npz_stars, content, limit, settings.max_stars, service().further)
            return await embed_many(stars)
        raise no_spectra()

    def twins(star_id: StarPath, request: Request) -> Response:
        """The k chemically nearest stars, nearest first."""
        query = TwinQuery.model_validate(query_of(request))
        form = negotiated(request, query.format, TABLE)
        answer = twins_answer(service(), service().comparable(star_id), query)
        return answer_twins(form, answer, service().further_units)

    app.router.add_api_route(
        "/twins/{star_id}",
        twins,
        dependencies=read,
        responses=answers(TwinsAnswer, 404, 409, *keyed, forms=TABLE),
        openapi_extra=query_parameters(TwinQuery),
        tags=["twins"],
        methods=["GET"],
        route_class_override=DirectRoute,
    )

    @app.post(
        "/twins",
        dependencies=read,
        responses=answers(TwinsAnswer | ManyAnswer, *OF_BODIES, *keyed, forms=TABLE),
        openapi_extra=request_body([UnstoredIn, SeveralIn, StoredIn], *FITS, NPZ) | query_parameters(TwinQuery),
        tags=["twins"],
    )
    async def twins_of(request: Request) -> Response:
        """The twins of a spectrum that is not stored, of several, or of stored stars (`star_ids`)."""
        return await post_twins(request, service(), run_job)

    def recast_wish(content: bytes) -> tuple[RecastIn, Observation | None]:
        wish = RecastIn.model_validate(parse_json(content))
        return wish, None if wish.spectrum is None else wish.spectrum.observation(settings.bad_bits)

    @app.post(
        "/recast",
        dependencies=read,
        responses=answers(RecastAnswer | SeveralRecastAnswer, 404, 409, *OF_BODIES, *keyed, forms=RECAST),
        openapi_extra=request_body([RecastIn]),
        tags=["twins"],
    )
    async def recast(request: Request, query: Annotated[RecastQuery, Query()]) -> Response:
        """The spectrum that a star, or each of several, would show at other stellar parameters."""
        form = negotiated(request, query.format, RECAST)
        if content_type(request) != JSON:
            raise UnsupportedMedia("unsupported_media_type", f"Content-Type must be {JSON}")
        content = await read_body(request, limit)
        wish, observation = await understood(content, recast_wish)
        source: Source | None = wish.star_id
        if observation is not None:
            source = observation.parameters, (await run_job(Job(observation))).embedding
        elif wish.star is not None:
            source = latent_source(service(), wish.star)
        if wish.star_ids is None:
            assert source is not None
            return await answer_recast(form, service(), source, wish.to)
        negotiated(request, query.format, ("json",))
        sources = [*([] if source is None else [source]), *wish.star_ids]
        return answer_json(await run_in_threadpool(recast_several, service(), sources, wish.to))

    @app.post(
        "/spectrum",
        dependencies=read,
        responses=answers(SpectrumAnswer, *OF_BODIES, *keyed),
        openapi_extra=request_body([UnstoredIn], *FITS) | fits_query(),
        tags=["stars"],
    )
    async def seen(request: Request) -> Response:
        """What the model makes of a spectrum that is not stored: latent, reconstruction, doubts."""
        job = await unstored_job(request, service())
        done = await run_job(dataclasses.replace(job, star_id=None))
        return answer_json(await run_in_threadpool(unstored_spectrum, service(), job, done))

    @app.get("/map", dependencies=[*read, bare], responses=answers(MapAnswer, *keyed), tags=["stars"])
    def latent_map() -> Response:
        """The catalogue's latents on their two principal axes, for about 3,000 stars, with labels."""
        drawn: LatentMap = app.state.latent_map
        return Response(drawn.answer(), media_type=JSON)

    @app.get("/stars", dependencies=read, responses=answers(StarsAnswer, *keyed, forms=TABLE), tags=["stars"])
    def stars(query: Annotated[StarsQuery, Query()], request: Request) -> Response:
        """Stored stars in the order of their ids; `next` is the `after` of the next page, null at the end."""
        form = negotiated(request, query.format, TABLE)
        page = stars_page(service(), query)
        more = len(page) > query.limit
        if form != "json":
            dimension = service().model.card.latent_dim
            return answer_stars(form, page[: query.limit], query, more, dimension, service().further_units)
        shown = [service().star_answer(star) for star in page[: query.limit]]
        return varying(answer_json({"stars": shown, "next": shown[-1]["star_id"] if more else None}))

    @app.get(
        "/stars/{star_id}",
        dependencies=[*read, bare],
        responses=answers(StarAnswer, 404, *keyed),
        tags=["stars"],
    )
    def star(star_id: StarPath) -> Response:
        """A stored star."""
        return answer_json(service().star_answer(service().star(star_id)))

    @app.get(
        "/stars/{star_id}/spectrum",
        dependencies=[*read, bare],
        responses=answers(SpectrumAnswer, 404, 409, *keyed),
        tags=["stars"],
    )
    def spectrum(star_id: StarPath) -> Response:
        """A stored star's spectrum as the model sees it, if it was kept, and as it reconstructs it."""
        return answer_json(stored_spectrum(service(), star_id))

    @app.get(
        "/stars/{star_id}/abundances",
        dependencies=read,
        responses=answers(AbundancesAnswer, 404, 409, *keyed, forms=TABLE),
        tags=["stars"],
    )
    def abundances(star_id: StarPath, query: Annotated[TableQuery, Query()], request: Request) -> Response:
        """[X/Fe] of a stored star by a linear readout of its latent, with errors."""
        form = negotiated(request, query.format, TABLE)
        return answer_abundances(form, service().abundances(star_id))

    @app.delete(
        "/stars/{star_id}",
        dependencies=[*write, bare],
        responses=answers(DeletedAnswer, 404, *keyed),
        tags=["stars"],
    )
    def delete(star_id: StarPath) -> Response:
        """Delete a star; it is gone from the disk when this answers."""
        if not service().index.delete(star_id):
            raise NotFound(star_id)
        return answer_json({"star_id": star_id, "deleted": True})

    @app.get(
        "/cone",
        dependencies=read,
        responses=votable_answers(*keyed),
        response_class=Response,
        openapi_extra=loose_parameters(Cone),
        tags=["stars"],
    )
    async def cone(request: Request) -> Response:
        """The stars around a position, by Simple Cone Search; what is wrong is told in a VOTable too."""
        return await to_thread.run_sync(cone_answer, service(), query_of(request), limiter=CONES)

    @app.get("/model", dependencies=[*read, bare], responses=answers(CardAnswer, *keyed), tags=["service"])
    def model() -> Response:
        """The model card."""
        return answer_json(service().card())

    @app.get("/healthz", responses=answers(HealthAnswer), tags=["service"])
    async def healthz() -> Response:
        """Alive; told without a thread, so that a service with much to do is not taken for a dead one."""
        return answer_json({"status": "ok"})

    @app.get("/readyz", responses=answers(ReadyAnswer), tags=["service"])
    def readyz() -> Response:
        """Ready: the model is loaded, inference works, and the search has caught up with the store."""
        batcher: Batcher[Job, Embedded] = app.state.batcher
        if trouble := batcher.trouble():
            raise Busy("stuck", f"{trouble}; restart the service")
        service().index.catch_up()
        return answer_json({"status": "ready", "model": service().model_name(), "stars": len(service().index)})

    @app.get(
        "/metrics",
        dependencies=read,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refuses(*keyed)},
        response_class=Response,
        tags=["service"],
    )
    def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        with suppress(Busy, StoreError):  # what is wrong with the store is among the numbers
            service().index.catch_up()
            metrics.STARS.set(len(service().index))
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    explorer.install(app)
    return app

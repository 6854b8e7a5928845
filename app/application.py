"""The application: its routes, who may use them, and what runs while it serves."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from multiprocessing import parent_process

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from app import error_responses, metrics, openapi
from app.inference.batcher import Batcher
from app.inference.latent_map import LatentMap
from app.inference.service import Service
from app.operations import logs
from app.operations.request_limits import RequestLimits
from app.operations.threads import Threads
from app.routes import cone, embed, explorer, map, model, operations, recast, spectra, stars, twins
from app.routes.dependencies import KeyCheck
from app.routes.direct import DirectRoute, DirectRoutes
from app.settings import Settings, keys
from model.methods.base import Model

LAST_BATCH_S = 5.0
"""Seconds for the batch in inference when the service stops, after those that its requests had."""

LAST_SHORT_S = 1.0
"""Seconds for what the thread of short functions still has when the service stops."""

START_S = 10.0
"""Seconds for which one of several processes leaves connections to the others while its search opens."""

THREADS = 1
"""Searches, recasts and bodies to parse at once. With 1, 2, 4 and 16 threads GET /twins takes 1.3, 1.6, 2.2 and
3.7 ms of processor time at 64 clients: threads that compute wait for the interpreter's lock (1e5 stars)."""

log = logging.getLogger("chemtwin")

READING = (twins.router, recast.router, spectra.router, stars.router, map.router, cone.router, model.router,
           operations.router)  # fmt: skip
WRITING = (embed.router, stars.deletion)
OPEN = (operations.health, explorer.router)


def create_app(settings: Settings | None = None, model: Model | None = None) -> FastAPI:
    """The application, by default with the environment's settings; it opens the store when it starts.

    `model` is the settings' model; it is loaded at the start where it is not given.
    """
    settings = settings or Settings()
    app = FastAPI(
        title="Chemtwin",
        summary="The chemical twins of a star, straight from its spectrum.",
        version=version("chemtwin"),
        lifespan=_running,
        docs_url=None,
        redoc_url=None,
        responses=openapi.errors(422, 503),
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings, app.state.model = settings, model
    error_responses.install(app)
    openapi.add_bodies(app)
    api_keys, read_keys = keys(settings.api_keys), keys(settings.read_keys)
    asked = bool(api_keys or read_keys)
    write, read = (KeyCheck(allowed) if asked else None for allowed in (api_keys, api_keys + read_keys))
    direct = [
        DirectRoute("GET", "/twins/{star_id}", twins.twins, read),
        DirectRoute("POST", "/embed", embed.embed, write),
        DirectRoute("POST", "/recast", recast.recast, read),
    ]
    app.add_middleware(DirectRoutes, routes=direct)
    bodies = max(settings.max_total_body_mb * 1_000_000, settings.max_body_bytes + 1_000_000)
    app.add_middleware(RequestLimits, body_timeout=settings.body_timeout_s, most_bytes=bodies)
    app.add_middleware(logs.RequestLog)
    _add_routes(app, api_keys, read_keys)
    return app


def _add_routes(app: FastAPI, api_keys: list[str], read_keys: list[str]) -> None:
    """Add all routes; without any keys everybody may use them."""
    asked = bool(api_keys or read_keys)
    errors = openapi.errors(401) if asked else {}
    for routers, allowed in ((WRITING, api_keys), (READING, api_keys + read_keys)):
        needed = [Depends(KeyCheck(allowed))] if asked else []
        for router in routers:
            app.include_router(router, dependencies=needed, responses=errors)
    for router in OPEN:
        app.include_router(router)


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """Open the model and the store, and close them at the end."""
    settings: Settings = app.state.settings
    logs.configure(settings.log_format, settings.log_level)
    service = await run_in_threadpool(Service, settings, model=app.state.model)
    if parent_process() is not None:  # others serve meanwhile
        await run_in_threadpool(service.wait_for_search, START_S)
    threads = Threads(THREADS)
    batcher = Batcher(service.embed, service.write, threads, settings.queue_size, settings.batch_size)
    app.state.service, app.state.batcher, app.state.latent_map = service, batcher, LatentMap(service)
    app.state.threads = threads
    card = service.model.card
    metrics.MODEL.labels(card.name, card.version, card.method).set(1)
    metrics.CAPACITY.set(settings.queue_size)
    yield
    await batcher.stop(LAST_BATCH_S)
    if not await threads.close(LAST_SHORT_S):
        log.error("stopped with a search, recast or batch still under way")
    service.close()

"""What the service reports to Prometheus: numbers that an operator would alert on.

With several worker processes each keeps its numbers in files of a folder that all share, named by the variable
PROMETHEUS_MULTIPROC_DIR (`chemtwin serve` sets it), and each reports the numbers of all.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
LATENCIES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

REQUESTS = Counter(
    "chemtwin_requests",
    "Responses sent.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "chemtwin_request_seconds",
    "Time from a request's first byte to its response's last.",
    ["method", "route"],
    buckets=LATENCIES,
    registry=REGISTRY,
)
ERRORS = Counter(
    "chemtwin_errors",
    "Error responses by their code, each star of several counted.",
    ["code"],
    registry=REGISTRY,
)
WAITING = Gauge(
    "chemtwin_queue_spectra",
    "Spectra accepted and not yet embedded.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
CAPACITY = Gauge(
    "chemtwin_queue_capacity_spectra",
    "Spectra that may wait before the response is 503.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
BATCH = Histogram(
    "chemtwin_batch_spectra",
    "Spectra embedded and committed together.",
    buckets=BATCHES,
    registry=REGISTRY,
)
EMBED_SECONDS = Histogram(
    "chemtwin_batch_seconds",
    "Time to embed and commit a batch.",
    buckets=LATENCIES,
    registry=REGISTRY,
)
STARS = Gauge(
    "chemtwin_index_stars",
    "Stars in the search.",
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
MODEL = Gauge(
    "chemtwin_model_info",
    "1 for the model that is served.",
    ["name", "version", "method"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)


@cache
def _of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """The numbers of one kind of response: to look them up by their labels takes longer than to count."""
    return REQUESTS.labels(method, route, status), SECONDS.labels(method, route)


def count_response(method: str, route: str, status: int, seconds: float) -> None:
    """Count a response, and the seconds from the request to its end."""
    count, took = _of(method, route, status)
    count.inc()
    took.observe(seconds)


def exposition() -> bytes:
    """All numbers in Prometheus' text format."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return generate_latest(REGISTRY)
    for path in Path(folder).glob("gauge_live*.db"):
        process = int(path.stem.rpartition("_")[2])
        if not _alive(process):
            with suppress(FileNotFoundError):  # another worker was asked at the same time
                mark_process_dead(process, folder)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True

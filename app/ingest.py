"""Bulk embedding of a source into the store, beside a running service: by processes here, or over a cluster.

A block of stars is read, embedded and written in one transaction by one worker. Stars that the store already
holds by the same model from the same spectrum and labels are left alone. So whatever is interrupted, or done
twice, running it again makes the store what it would have been.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from app import processes
from app.embedder import Embedder, conditioned_on, stored_or_refused
from app.settings import Settings
from app.sources import Place, Read, Source, Unread
from index.store import Store, StoreError, open_store
from model.bundle import load_card

BLOCK = 256
SHOWN = 20
"""Refused stars that are named; the others are counted."""

DIGEST = "digest"
"""The key of a star's `meta` under which ingest knows it again."""


@dataclass(frozen=True)
class Report:
    """What became of stars: numbers, and the first that were refused."""

    stored: int = 0
    there: int = 0
    failed: int = 0
    shown: tuple[Unread, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(
            self.stored + other.stored,
            self.there + other.there,
            self.failed + other.failed,
            (self.shown + other.shown)[:SHOWN],
        )

    def __len__(self) -> int:
        return self.stored + self.there + self.failed


def ingest(
    path: Path,
    settings: Settings,
    labels: Path | None = None,
    workers: int = 1,
    scheduler: str | None = None,
) -> Report:
    """Embed and store every star of a source by `workers` processes, or by those of a dask `scheduler`.

    Raises ValueError for a source that cannot be used.
    """
    place = Place.of(path, labels)
    open_store(settings.place).close()  # is created here, once, if there is none
    count = len(place.open(settings, conditioned_on(load_card(settings.model))))
    blocks = [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    total = Report()
    if scheduler is not None:
        from app.cluster import reports_of_cluster

        reports = reports_of_cluster(scheduler, settings, place, blocks)
    else:
        reports = _reports_of_processes(min(workers, max(len(blocks), 1)), settings, place, blocks)
    with tqdm(total=count, unit="star", desc="ingest", disable=None, smoothing=0.05) as bar:
        for report in reports:
            total += report
            bar.update(len(report))
    return total


def ingest_block(settings: Settings, place: Place, rows: slice) -> Report:
    """Embed and store some rows of a source in one transaction; those already there are left alone."""
    embedder, source, store = _opened(settings, place)
    read = source.read(rows)
    refused = [star for star in read if isinstance(star, Unread)]
    found = {star.job.star_id: star for star in read if isinstance(star, Read) and star.job.star_id is not None}
    held = store.get(list(found), embedder.identity)
    new = [
        star
        for star_id, star in found.items()
        if star_id not in held
        or (held[star_id].model, held[star_id].meta.get(DIGEST)) != (embedder.identity, star.digest)
    ]
    jobs = [replace(star.job, meta=star.job.meta | {DIGEST: star.digest}) for star in new]
    stars, spectra = [], []
    for job, done in zip(jobs, embedder.embed(jobs), strict=True):
        row_or_why = stored_or_refused(done)
        if isinstance(row_or_why, str):
            refused.append(Unread(str(job.star_id), row_or_why))
        else:
            stars.append(row_or_why[0])
            spectra.append(row_or_why[1])
    if stars:
        store.upsert(stars, spectra)
    return Report(len(stars), len(found) - len(new), len(refused), tuple(refused[:SHOWN]))


@lru_cache(maxsize=1)
def _opened(settings: Settings, place: Place) -> tuple[Embedder, Source, Store]:
    """What a worker keeps between blocks; it has one thread, for it has a core."""
    embedder = Embedder(settings)
    threadpool_limits(1)
    gc.freeze()  # what is held for good need not be looked through again and again
    return embedder, place.open(settings, embedder.further), open_store(settings.place)


def _reports_of_processes(
    workers: int, settings: Settings, place: Place, blocks: list[slice]
) -> Iterator[Report]:
    with ProcessPoolExecutor(workers, processes.CONTEXT, processes.end_with_parent) as pool:
        futures: list[Future[Report]] = [pool.submit(ingest_block, settings, place, rows) for rows in blocks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise StoreError("a worker process was killed; run the same command again to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)

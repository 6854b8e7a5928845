"""Bulk embedding of a source into the store, beside a running service: by processes here, or over a cluster.

A block of stars is read, embedded and written in one transaction by one worker. Stars that the store already
holds by the same model from the same spectrum and labels are left alone. So whatever is interrupted, or done
twice, running it again makes the store what it would have been.
"""

from __future__ import annotations

import gc
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from app.bulk import processes
from app.bulk.ingest_report import Note, Outcome, ReportFile
from app.bulk.sources import DIGEST, Place, Read, Source, Unread
from app.inference.embedder import Embedder, conditioned_on, stored_or_refused
from app.settings import Settings
from index.errors import StoreError
from index.stores.open_store import open_store
from index.stores.star import Star
from index.stores.store import Store
from model.bundle import load_card

BLOCK = 256
REPORT = "ingest-report.csv"
"""The list of stars to look at: beside the store, or in the current folder for a store in PostgreSQL."""


@dataclass(frozen=True)
class Report:
    """What became of stars: numbers by outcome, of those in the catalogue how many are `outside` the model's
    domain and how many carry other warnings, and the `notes` of all that should be looked at.

    Of the `stored` some have `replaced` an earlier star of their id.
    """

    stored: int = 0
    replaced: int = 0
    there: int = 0
    refused: int = 0
    repeated: int = 0
    outside: int = 0
    warned: int = 0
    notes: tuple[Note, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(*(mine + its for mine, its in zip(_fields(self), _fields(other), strict=True)))

    def __len__(self) -> int:
        return self.stored + self.there + self.refused + self.repeated


def _fields(report: Report) -> tuple[Any, ...]:
    return tuple(getattr(report, field.name) for field in fields(report))


@dataclass(frozen=True)
class Done:
    """An ingest that came to its end: its numbers, the first stars that failed, and where the rest is listed.

    `extra` are the source's extra columns that went into each star's `meta`, `ignored` those that did not.
    """

    report: Report
    shown: tuple[Note, ...]
    listed: Path | None
    extra: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Rows of a source that are done in one transaction, without those of them that `repeat` an earlier id."""

    rows: slice
    repeat: frozenset[int] = frozenset()


def ingest(
    place: Place,
    settings: Settings,
    workers: int = 1,
    scheduler: str | None = None,
    listed: Path | None = None,
) -> Done:
    """Embed and store every star of a source by `workers` processes, or by those of a dask `scheduler`.

    One worker is this process itself. Of several rows with one id the first is stored, whichever block they
    are in. Stars to be looked at are listed in the CSV file `listed`, by default beside the store. Raises
    InputError for a source that cannot be used.
    """
    target = listed or (Path() if "://" in settings.place else Path(settings.place).parent) / REPORT
    report_file = ReportFile(target)
    open_store(settings.place).close()  # is created here, once, if there is none
    source = place.open(settings, _units(settings))
    ids = source.ids()
    first = _first_rows(ids)
    repeated = [row for row, star_id in enumerate(ids) if star_id and first[star_id] != row]
    blocks = [
        Block(slice(start, min(start + BLOCK, len(ids))), _within(repeated, start))
        for start in range(0, len(ids), BLOCK)
    ]
    notes = (
        Note(
            ids[row],
            "repeated",
            None,
            f"{source.row_name(row)} repeats the id of {source.row_name(first[ids[row]])}",
        )
        for row in repeated
    )
    total = Report(repeated=len(repeated), notes=tuple(notes))
    if scheduler is not None:
        from app.bulk.dask_cluster import reports_of_cluster

        reports = reports_of_cluster(scheduler, settings, place, blocks)
    elif min(workers, len(blocks)) <= 1:
        reports = _reports_of_this_process(settings, place, blocks)
    else:
        reports = _reports_of_processes(min(workers, len(blocks)), settings, place, blocks)
    with (
        tqdm(total=len(ids), unit="star", desc="ingest", disable=None, smoothing=0.05) as bar,
        report_file as file,
    ):
        bar.update(len(total))
        file.write(total.notes)
        for report in reports:
            file.write(report.notes)
            total += replace(report, notes=())
            bar.update(len(report))
    return Done(
        replace(total, notes=()),
        tuple(file.failed),
        target if file.count else None,
        source.extra,
        source.ignored,
    )


def _units(settings: Settings) -> dict[str, str]:
    """The parameters that the settings' model is conditioned on beside the usual, by their units."""
    card = load_card(settings.model)
    return {name: card.units.get(name, "") for name in conditioned_on(card)}


def _first_rows(ids: Sequence[str]) -> dict[str, int]:
    """The first row of each id."""
    first: dict[str, int] = {}
    for row, star_id in enumerate(ids):
        first.setdefault(star_id, row)
    return first


def _within(rows: Sequence[int], start: int) -> frozenset[int]:
    """Those of rising `rows` that are in the block from `start` on."""
    return frozenset(rows[bisect_left(rows, start) : bisect_left(rows, start + BLOCK)])


def ingest_block(settings: Settings, place: Place, block: Block) -> Report:
    """Embed and store some rows of a source in one transaction; those already there are left alone."""
    embedder, source, store = _opened(settings, place)
    numbered = zip(range(block.rows.start, block.rows.stop), source.read(block.rows), strict=True)
    read = [star for row, star in numbered if row not in block.repeat]
    notes = [Note(star.star_id, "refused", None, star.reason) for star in read if isinstance(star, Unread)]
    found = {star.job.star_id: star for star in read if isinstance(star, Read) and star.job.star_id is not None}
    before = store.get(list(found), embedder.identity)
    there = {
        star_id: row
        for star_id, row in before.items()
        if (row.model, row.meta.get(DIGEST)) == (embedder.identity, found[star_id].digest)
    }
    new = [star for star_id, star in found.items() if star_id not in there]
    jobs = [replace(star.job, meta=star.job.meta | {DIGEST: star.digest}) for star in new]
    stars, spectra = [], []
    for job, done in zip(jobs, embedder.embed(jobs), strict=True):
        row_or_why = stored_or_refused(done)
        if isinstance(row_or_why, str):
            notes.append(Note(str(job.star_id), "refused", None, row_or_why))
        else:
            stars.append(row_or_why[0])
            spectra.append(row_or_why[1])
    if stars:
        store.upsert(stars, spectra)
    refused = len(notes)
    earlier = {
        star_id: row
        for star_id, row in before.items()
        if row.model == embedder.identity and star_id not in there
    }
    notes += [note for star in stars if (note := _note(star, earlier.get(star.star_id)))]
    notes += [note for star in there.values() if (note := _note(star, star))]
    known = [*stars, *there.values()]
    outside = sum(not star.in_domain for star in known)
    return Report(
        stored=len(stars),
        replaced=sum(star.star_id in earlier for star in stars),
        there=len(there),
        refused=refused,
        outside=outside,
        warned=sum(bool(star.warnings) and star.in_domain for star in known),
        notes=tuple(notes),
    )


def _note(star: Star, before: Star | None) -> Note | None:
    """What there is to look at of a star in the catalogue; `before` is what was stored under its id."""
    warnings = list(star.warnings)
    outcome: Outcome = "stored" if before is None else "already there" if before is star else "replaced"
    if outcome == "replaced":
        assert before is not None
        warnings.insert(0, f"replaces a star from {before.meta.get('source', 'elsewhere')}")
    if not warnings and star.in_domain:
        return None
    return Note(star.star_id, outcome, star.in_domain, "; ".join(warnings))


@lru_cache(maxsize=1)
def _opened(settings: Settings, place: Place) -> tuple[Embedder, Source, Store]:
    """What a worker keeps between blocks; it has one thread, for it has a core."""
    embedder = Embedder(settings)
    threadpool_limits(1)
    gc.freeze()  # what is held for good need not be looked through again and again
    return embedder, place.open(settings, _units(settings)), open_store(settings.place)


def _reports_of_this_process(settings: Settings, place: Place, blocks: Sequence[Block]) -> Iterator[Report]:
    """One after another: one worker needs no process of its own, which would import everything again."""
    try:
        for block in blocks:
            yield ingest_block(settings, place, block)
    finally:
        if _opened.cache_info().currsize:
            _opened(settings, place)[2].close()
            _opened.cache_clear()


def _reports_of_processes(
    workers: int, settings: Settings, place: Place, blocks: Sequence[Block]
) -> Iterator[Report]:
    with ProcessPoolExecutor(workers, processes.CONTEXT, processes.end_with_parent) as pool:
        futures: list[Future[Report]] = [pool.submit(ingest_block, settings, place, block) for block in blocks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise StoreError("a worker process was killed; run the same command again to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)

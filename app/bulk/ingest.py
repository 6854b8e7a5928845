"""Bulk embedding of a source into the store, beside a running service: by processes here, or over a cluster.

A block of stars is read, embedded and written in one transaction by one worker. Stars that the store already
has by the same model from the same spectrum and labels are left alone. So whatever is interrupted, or done
twice, running it again makes the store what it would have been.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from app.bulk.ingest_block import BLOCK, Block, Report, extra_units, ingest_block, opened
from app.bulk.ingest_report import Note, ReportFile
from app.bulk.readers.open_stars import open_stars
from app.bulk.readers.star_reader import InputFiles, StarReader
from app.operations import processes
from app.settings import Settings
from index.errors import StoreError
from index.stores.open_store import open_store

REPORT = "ingest-report.csv"
"""The list of stars to look at: beside the store, or in the current folder for a store in PostgreSQL."""


@dataclass(frozen=True)
class Done:
    """An ingest that came to its end: its numbers, the first stars that failed, and where the rest is listed.

    `meta_columns` went into each star's `meta`, `ignored_columns` are those that were not stored.
    """

    report: Report
    shown: tuple[Note, ...]
    listed: Path | None
    meta_columns: tuple[str, ...]
    ignored_columns: tuple[str, ...]


def ingest(
    files: InputFiles,
    settings: Settings,
    workers: int = 1,
    scheduler: str | None = None,
    listed: Path | None = None,
) -> Done:
    """Embed the stars of a file or folder into the store.

    Parameters
    ----------
    files
        The file or folder. Of several rows with one id the first is stored, whichever block they are in.
    settings
        They name the model and the store.
    workers
        How many processes do it. A single one is this process itself.
    scheduler
        The address of a dask scheduler whose workers do it instead.
    listed
        The CSV file that lists stars to be looked at, by default beside the store.

    Raises
    ------
    InputError
        The files cannot be used, or `listed` exists and is not a report.
    """
    beside_store = Path() if "://" in settings.store_address else Path(settings.store_address).parent
    target = listed or beside_store / REPORT
    report_file = ReportFile(target)
    reader = open_stars(files, settings, extra_units(settings))
    open_store(settings.store_address).close()  # is created here, once, if there is none
    blocks, repeated = _plan(reader)
    total = Report()
    with (
        tqdm(total=len(reader), unit="star", desc="ingest", disable=None, smoothing=0.05) as bar,
        report_file as file,
    ):
        for report in chain([repeated], _reports(settings, files, blocks, workers, scheduler)):
            file.write(report.notes)
            total += replace(report, notes=())
            bar.update(len(report))
    return Done(
        total, tuple(file.failed), target if file.count else None, reader.meta_columns, reader.ignored_columns
    )


def _plan(reader: StarReader) -> tuple[list[Block], Report]:
    """The blocks of all rows, and the report of the rows that repeat an earlier id and are left out."""
    ids = reader.ids()
    first: dict[str, int] = {}
    for row, star_id in enumerate(ids):
        first.setdefault(star_id, row)
    repeated = [row for row, star_id in enumerate(ids) if star_id and first[star_id] != row]
    blocks = [
        Block(slice(start, min(start + BLOCK, len(ids))), _within(repeated, start))
        for start in range(0, len(ids), BLOCK)
    ]
    notes = [
        Note(
            ids[row],
            "repeated",
            None,
            f"{reader.row_name(row)} repeats the id of {reader.row_name(first[ids[row]])}",
        )
        for row in repeated
    ]
    return blocks, Report(repeated=len(repeated), notes=tuple(notes))


def _within(rows: Sequence[int], start: int) -> frozenset[int]:
    """Those of rising `rows` that are in the block from `start` on."""
    return frozenset(rows[bisect_left(rows, start) : bisect_left(rows, start + BLOCK)])


def _reports(
    settings: Settings, files: InputFiles, blocks: Sequence[Block], workers: int, scheduler: str | None
) -> Iterator[Report]:
    """The report of each block, in the order in which they are done."""
    if scheduler is not None:
        from app.bulk.dask_cluster import reports_of_cluster

        return reports_of_cluster(scheduler, settings, files, blocks)
    workers = min(workers, len(blocks))
    if workers <= 1:
        return _reports_of_this_process(settings, files, blocks)
    return _reports_of_processes(workers, settings, files, blocks)


def _reports_of_this_process(
    settings: Settings, files: InputFiles, blocks: Sequence[Block]
) -> Iterator[Report]:
    """One after another: one worker needs no process of its own, which would import everything again."""
    try:
        for block in blocks:
            yield ingest_block(settings, files, block)
    finally:
        if opened.cache_info().currsize:
            opened(settings, files)[2].close()
            opened.cache_clear()


def _reports_of_processes(
    workers: int, settings: Settings, files: InputFiles, blocks: Sequence[Block]
) -> Iterator[Report]:
    with ProcessPoolExecutor(workers, processes.CONTEXT, processes.end_with_parent) as pool:
        futures: list[Future[Report]] = [pool.submit(ingest_block, settings, files, block) for block in blocks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise StoreError("a worker process was killed; run the same command again to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)

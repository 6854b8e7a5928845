"""Bulk embedding of a source into the store, beside a running service: by processes here, or over a cluster.

A block of stars is read, embedded and written in one transaction by one worker. Stars that the store already
holds by the same model from the same spectrum and labels are left alone. So whatever is interrupted, or done
twice, running it again makes the store what it would have been.
"""

from __future__ import annotations

import csv
import gc
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, cast

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from app import processes
from app.embedder import Embedder, conditioned_on, stored_or_refused
from app.settings import Settings
from app.sources import DIGEST, Place, Read, Source, Unread
from index.store import Store, StoreError, open_store
from model.bundle import load_card

BLOCK = 256
SHOWN = 20
"""Refused stars that are named on the screen; the others are counted, and listed in the report."""

REPORT = "ingest.csv"
"""The list of stars to look at: beside the store, or in the current folder for a store in PostgreSQL."""

Outcome = Literal["stored", "already there", "refused", "repeated"]


@dataclass(frozen=True)
class Note:
    """A star to be looked at: what became of it, if the model knows such stars, and what is wrong or odd.

    `star_id` is "" where it is not known.
    """

    star_id: str
    outcome: Outcome
    in_domain: bool | None
    text: str

    def __str__(self) -> str:
        return f"{self.star_id}: {self.text}" if self.star_id else self.text


@dataclass(frozen=True)
class Report:
    """What became of stars: numbers by outcome, of those in the catalogue how many are `outside` the model's
    domain and how many carry other warnings, and the `notes` of all that should be looked at.
    """

    stored: int = 0
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
        from app.cluster import reports_of_cluster

        reports = reports_of_cluster(scheduler, settings, place, blocks)
    elif min(workers, len(blocks)) <= 1:
        reports = _reports_of_this_process(settings, place, blocks)
    else:
        reports = _reports_of_processes(min(workers, len(blocks)), settings, place, blocks)
    target = listed or (Path() if "://" in settings.place else Path(settings.place).parent) / REPORT
    with (
        tqdm(total=len(ids), unit="star", desc="ingest", disable=None, smoothing=0.05) as bar,
        NoteFile(target) as file,
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


class NoteFile:
    """A CSV file of notes, written under another name and renamed at the end; none where there are no notes."""

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(path.name + ".partial")
        self.count, self.failed = 0, list[Note]()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow([field.name for field in fields(Note)])
        return self

    def write(self, notes: Sequence[Note]) -> None:
        """Add notes; the first `SHOWN` of stars that failed stay in `failed`."""
        self._rows.writerows(map(astuple, notes))
        self.count += len(notes)
        failed = (note for note in notes if note.outcome in ("refused", "repeated"))
        self.failed += islice(failed, SHOWN - len(self.failed))

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self.count:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()
            self._path.unlink(missing_ok=True)


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
    for outcome, rows in (("stored", stars), ("already there", list(there.values()))):
        notes += [
            Note(star.star_id, cast(Outcome, outcome), star.in_domain, "; ".join(star.warnings))
            for star in rows
            if star.warnings or not star.in_domain
        ]
    outside = sum(note.in_domain is False for note in notes)
    return Report(len(stars), len(there), refused, 0, outside, len(notes) - refused - outside, tuple(notes))


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

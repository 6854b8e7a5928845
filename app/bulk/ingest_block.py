"""One block of an ingest: read, embedded and written in one transaction, by whichever worker does it."""

from __future__ import annotations

import gc
import re
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from threadpoolctl import threadpool_limits

from app.bulk.ingest_report import Note, Outcome
from app.bulk.readers.open_stars import open_stars
from app.bulk.readers.star_reader import InputFiles, ReadStar, RejectedStar, StarReader
from app.inference.embedder import DIGEST, Embedder, conditioned_on, stored_or_refused
from app.settings import Settings
from index.stores.open_store import open_store
from index.stores.sql_store import Store
from index.stores.star import Star
from model.bundle import load_card
from model.methods.base import TYPICAL

BLOCK = 256

SPECTRUM_KEPT = "+spectrum"
"""Ends the digest of a star whose spectrum is in the store: without that setting it is left alone later."""

NUMBER = re.compile(r"(?<!\w)-?\d+(\.\d+)?(e[+-]?\d+)?(?!\w)")
"""A number in a warning, but not the digits of a name such as M67."""


@dataclass(frozen=True)
class Report:
    """The numbers of stars by outcome, and the `notes` of all that should be looked at.

    Attributes
    ----------
    stored, unchanged
        Stars written, and stars that the store had from the same spectrum and labels.
    replaced, of_others
        Of the stored ones, those that replaced an earlier star of their id by this model, and by others alone.
    refused, repeated
        Stars that cannot be embedded, and rows whose id an earlier row has.
    outside, warned
        Of the stars in the catalogue, those outside the model's domain, and those with warnings inside it.
    typical
        Of them those that came without errors of some parameters, which is no warning of its own here.
    spectra_deleted
        Of the stored ones, those whose earlier star had a spectrum in the store, and which have none.
    kinds
        How many of them have each kind of warning: its text with "..." for numbers.
    """

    stored: int = 0
    replaced: int = 0
    of_others: int = 0
    unchanged: int = 0
    refused: int = 0
    repeated: int = 0
    outside: int = 0
    warned: int = 0
    typical: int = 0
    spectra_deleted: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    notes: tuple[Note, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(*(one + two for one, two in zip(_fields(self), _fields(other), strict=True)))

    def __len__(self) -> int:
        return self.stored + self.unchanged + self.refused + self.repeated


def _fields(report: Report) -> tuple[Any, ...]:
    return tuple(getattr(report, own.name) for own in fields(report))


@dataclass(frozen=True)
class Block:
    """Rows of a source that are done in one transaction, without those of them that `repeat` an earlier id."""

    rows: slice
    repeat: frozenset[int] = frozenset()


def extra_units(settings: Settings) -> dict[str, str]:
    """The units of the extra parameters that the settings' model is conditioned on, by their names."""
    card = load_card(settings.model)
    return {name: card.units.get(name, "") for name in conditioned_on(card)}


def ingest_block(settings: Settings, files: InputFiles, block: Block) -> Report:
    """Embed and store some rows of a source in one transaction; those stored already are left alone."""
    embedder, source, store = opened(settings, files)
    numbered = zip(range(block.rows.start, block.rows.stop), source.read(block.rows), strict=True)
    read = [star for row, star in numbered if row not in block.repeat]
    notes = [
        Note(star.star_id, "refused", None, star.reason) for star in read if isinstance(star, RejectedStar)
    ]
    found = {
        star.job.star_id: star for star in read if isinstance(star, ReadStar) and star.job.star_id is not None
    }
    kept = SPECTRUM_KEPT if settings.store_spectra else ""
    before = store.get(list(found), embedder.identity)
    unchanged = {
        star_id: row
        for star_id, row in before.items()
        if row.model == embedder.identity
        and row.meta.get(DIGEST) in (found[star_id].digest + kept, found[star_id].digest + SPECTRUM_KEPT)
    }
    new = [star for star_id, star in found.items() if star_id not in unchanged]
    jobs = [replace(star.job, meta=star.job.meta | {DIGEST: star.digest + kept}) for star in new]
    stars, spectra = [], []
    for job, done in zip(jobs, embedder.embed(jobs), strict=True):
        row_or_reason = stored_or_refused(done)
        if isinstance(row_or_reason, str):
            notes.append(Note(str(job.star_id), "refused", None, row_or_reason))
        else:
            stars.append(row_or_reason[0])
            spectra.append(row_or_reason[1])
    written = store.upsert(stars, spectra) if stars else []
    refused = len(notes)
    earlier = {
        star_id: row
        for star_id, row in before.items()
        if row.model == embedder.identity and star_id not in unchanged
    }
    notes += [
        note
        for star, _, deleted in written
        if (note := _note(star, earlier.get(star.star_id), spectrum_deleted=deleted))
    ]
    notes += [note for star in unchanged.values() if (note := _note(star, star))]
    catalogued = [*stars, *unchanged.values()]
    outside = sum(not star.in_domain for star in catalogued)
    return Report(
        stored=len(stars),
        replaced=sum(star.star_id in earlier for star in stars),
        of_others=sum(star.star_id in before.keys() - earlier.keys() for star in stars),
        unchanged=len(unchanged),
        refused=refused,
        outside=outside,
        warned=sum(bool(_own_warnings(star)) and star.in_domain for star in catalogued),
        spectra_deleted=sum(deleted for _, _, deleted in written),
        typical=sum(len(_own_warnings(star)) < len(star.warnings) for star in catalogued),
        kinds=Counter(kind for star in catalogued for kind in _kinds(star)),
        notes=tuple(notes),
    )


def _own_warnings(star: Star) -> list[str]:
    """A star's warnings but that of typical errors, which the summary counts for all stars."""
    return [warning for warning in star.warnings if not warning.startswith(TYPICAL)]


def _kinds(star: Star) -> set[str]:
    """The kinds of a star's warnings: stars differ in the numbers."""
    return {NUMBER.sub("...", warning) for warning in _own_warnings(star)}


def _note(star: Star, before: Star | None, spectrum_deleted: bool = False) -> Note | None:
    """What should be looked at of a star in the catalogue.

    `before` is the star of its id before; `spectrum_deleted`: its stored spectrum went, and none is stored now.
    """
    warnings = _own_warnings(star)
    if spectrum_deleted:
        warnings.insert(
            0, "the spectrum stored before was deleted: CHEMTWIN_STORE_SPECTRA=true stores this one"
        )
    outcome: Outcome = "stored" if before is None else "already stored" if before is star else "replaced"
    if outcome == "replaced":
        assert before is not None
        warnings.insert(0, f"replaces a star from {before.meta.get('source', 'elsewhere')}")
    if not warnings and star.in_domain:
        return None
    return Note(star.star_id, outcome, star.in_domain, "; ".join(warnings))


@lru_cache(maxsize=1)
def opened(settings: Settings, files: InputFiles) -> tuple[Embedder, StarReader, Store]:
    """What a worker uses for all its blocks; it has one thread, for it has a core."""
    embedder = Embedder(settings)
    threadpool_limits(1)
    gc.freeze()  # these live as long as the process: no later collection has to look through them
    return embedder, open_stars(files, settings, extra_units(settings)), open_store(settings.store_address)

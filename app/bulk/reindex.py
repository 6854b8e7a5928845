"""Embedding a catalogue again with another model, from the stored spectra, while the service runs."""

from __future__ import annotations

from dataclasses import dataclass

from tqdm import tqdm

from app.bulk.readers.star_reader import RejectedStar
from app.inference.embedder import Embedder, Job, stored_or_refused
from app.inference.stored_observation import unpack
from app.settings import Settings
from index.stores.open_store import open_store
from index.stores.sql_store import Store
from index.stores.star import Star, StoredSpectrum

BLOCK = 256


@dataclass(frozen=True)
class Reindexed:
    """Numbers of rows written and deleted, the stars that the model refused, and how many have no spectrum."""

    model: str
    written: int
    refused: dict[str, RejectedStar]
    without_spectrum: int
    dropped: int


def reindex(settings: Settings, drop_old: bool) -> Reindexed:
    """Give every star with a stored spectrum a row of the settings' model.

    Stars that change meanwhile are looked at again, until fewer than a block have: a service that takes stars
    all the time always leaves some for the next run. With `drop_old` the rows of other models then go, of stars
    that have the new one.
    """
    embedder, store = Embedder(settings), open_store(settings.store_address, create=False)
    try:
        written, refused = 0, dict[str, RejectedStar]()
        with tqdm(unit="star", desc="reindex", disable=None) as bar:
            while True:
                looked_at, new, refused = _pass(embedder, store, bar)
                written += new
                if looked_at - len(refused) < BLOCK:
                    break
        without = _count_without(store, embedder.identity) - len(refused)
        dropped = store.drop_other_models(embedder.identity) if drop_old else 0
        return Reindexed(embedder.identity, written, refused, max(without, 0), dropped)
    finally:
        store.close()


def _pass(embedder: Embedder, store: Store, bar: tqdm) -> tuple[int, int, dict[str, RejectedStar]]:
    """Embed all that wait now. Returns how many did, how many rows were written, and which were refused."""
    after, looked_at, written, refused = "", 0, 0, dict[str, RejectedStar]()
    while waiting := store.waiting(embedder.identity, after, BLOCK):
        after, looked_at = waiting[-1].star.star_id, looked_at + len(waiting)
        stars: list[Star] = []
        seqs: list[int] = []
        jobs = [_job(stored) for stored in waiting]
        for stored, done in zip(waiting, embedder.embed(jobs), strict=True):
            row_or_reason = stored_or_refused(done)
            if isinstance(row_or_reason, str):
                refused[stored.star.star_id] = RejectedStar(stored.star.star_id, row_or_reason)
            else:
                stars.append(row_or_reason[0])
                seqs.append(stored.seq)
        written += store.add_beside(stars, seqs)
        bar.update(len(stars))
    return looked_at, written, refused


def _job(stored: StoredSpectrum) -> Job:
    observation, warnings = unpack(stored.spectrum)
    star = stored.star
    return Job(observation, star.star_id, star.ra, star.dec, star.meta, warnings)


def _count_without(store: Store, model: str) -> int:
    """How many stars have no row of `model`."""
    after, count = "", 0
    while page := store.page(after, 1000, model):
        after = page[-1].star_id
        count += sum(star.model != model for star in page)
    return count

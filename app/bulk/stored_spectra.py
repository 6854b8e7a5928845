"""The spectra that a catalogue stores, read while services go on: for adapting a model to them."""

from __future__ import annotations

import heapq
from typing import NamedTuple

from tqdm import tqdm

from app.inference.stored_observation import unpack
from index.stores.open_store import open_store
from model.errors import ChemtwinError, InputError
from model.methods.base import Model
from model.spectra.spectrum import Spectrum, prepare_all
from training.random_streams import Stream, generator

BLOCK = 256
ANY = ""
"""No model has this identity: every stored spectrum waits for it."""


class StoredStars(NamedTuple):
    """Stars of a catalogue: ids, prepared spectra, clusters; `unusable` has the reason for each other one."""

    star_ids: list[str]
    spectra: list[Spectrum]
    clusters: list[str | None]
    unusable: dict[str, str]


def stored_spectra(address: str, model: Model, most: int) -> StoredStars:
    """Read a random sample of a catalogue's stored spectra; nothing is written.

    Parameters
    ----------
    address : str
        The store's path or URL.
    model : Model
        Whose grid and continuum the spectra are prepared for.
    most : int
        Largest number of stars that stay in memory.

    Returns
    -------
    StoredStars
        In the order of their ids.

    Raises
    ------
    StoreError
        When the store cannot be read.
    InputError
        When no star has a stored spectrum.
    """
    store, random = open_store(address, create=False), generator(Stream.ADAPTATION)
    sample: list[tuple[float, str, Spectrum, str | None]] = []
    unusable: dict[str, str] = {}
    after = ""
    try:
        with tqdm(unit="star", desc="read", disable=None) as bar:
            while block := store.waiting(ANY, after, BLOCK):
                after = block[-1].star.star_id
                observations = [unpack(stored.spectrum)[0] for stored in block]
                prepared = prepare_all(observations, model.grid, model.normaliser)
                for stored, spectrum in zip(block, prepared, strict=True):
                    star = stored.star
                    if isinstance(spectrum, ChemtwinError):
                        unusable[star.star_id] = str(spectrum)
                        continue
                    entry = (float(random.random()), star.star_id, spectrum, star.cluster)
                    if len(sample) < most:
                        heapq.heappush(sample, entry)
                    else:
                        heapq.heappushpop(sample, entry)
                bar.update(len(block))
    finally:
        store.close()
    if not sample:
        raise InputError(f"{address} has no usable stored spectrum: CHEMTWIN_STORE_SPECTRA=true stores them")
    chosen = sorted(sample, key=lambda entry: entry[1])
    return StoredStars([e[1] for e in chosen], [e[2] for e in chosen], [e[3] for e in chosen], unusable)

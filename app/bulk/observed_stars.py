"""Observed stars to adapt a model to: those of files, or of a catalogue while its services go on.

As many as stay in memory: those that belong to a group first, then others at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from app.bulk.readers.open_stars import open_stars
from app.bulk.readers.star_reader import InputFiles, RejectedStar
from app.inference.embedder import cluster_of
from app.inference.stored_observation import unpack
from app.settings import read_settings
from index.stores.open_store import open_store
from model.errors import ChemtwinError, InputError
from model.methods.base import Model
from model.spectra.spectrum import Observation, Spectrum, prepare_all
from training.random_streams import Stream, generator

BLOCK = 256
ANY = ""
"""No model has this identity: every stored spectrum waits for it."""

Grouped = Callable[[str, str | None], bool]
"""Whether the star of an id and a cluster belongs to a group."""


class ObservedStars(NamedTuple):
    """Stars: ids, prepared spectra, clusters; `unusable` has the reason for each other one."""

    star_ids: list[str]
    spectra: list[Spectrum]
    clusters: list[str | None]
    unusable: dict[str, str]


class _Star(NamedTuple):
    star_id: str
    observation: Observation
    cluster: str | None


def stars_of_files(
    path: Path, labels: Path | None, model: Model, grouped: Grouped, most: int | None
) -> ObservedStars:
    """Read the stars of a survey, an npz or a folder.

    Parameters
    ----------
    path, labels : Path
        The files, and a folder's table of labels.
    model : Model
        Whose grid and continuum the spectra are prepared for.
    grouped : callable
        Which stars belong to a group: all of these are read.
    most : int or None
        Largest number of stars, unless more belong to groups.

    Returns
    -------
    ObservedStars
        In the order of the files.

    Raises
    ------
    FormatError
        A file cannot be read.
    """
    reader, unusable = open_stars(InputFiles.of(path, labels), read_settings(None, None), model.card.units), {}

    def blocks() -> Iterator[list[_Star]]:
        for start in range(0, len(reader), BLOCK):
            read = reader.read(slice(start, start + BLOCK))
            for number, star in enumerate(read, start + 1):
                if isinstance(star, RejectedStar):
                    unusable[star.star_id or f"star {number}, without id"] = star.reason
            jobs = [star.job for star in read if not isinstance(star, RejectedStar)]
            yield [_Star(job.star_id or "", job.observation, cluster_of(job.meta)) for job in jobs]

    return _sample(blocks(), model, grouped, most, unusable)


def stars_of_catalogue(address: str, model: Model, grouped: Grouped, most: int) -> ObservedStars:
    """Read the stars whose spectra a catalogue stores; nothing is written.

    Parameters
    ----------
    address : str
        The store's path or URL.
    model, grouped, most
        As for `stars_of_files`.

    Returns
    -------
    ObservedStars
        In the order of their ids.

    Raises
    ------
    StoreError
        When the store cannot be read.
    InputError
        When no star has a stored spectrum.
    """
    store = open_store(address, create=False)

    def blocks() -> Iterator[list[_Star]]:
        after = ""
        while block := store.waiting(ANY, after, BLOCK):
            after = block[-1].star.star_id
            yield [
                _Star(stored.star.star_id, unpack(stored.spectrum)[0], stored.star.cluster) for stored in block
            ]

    try:
        found = _sample(blocks(), model, grouped, most, {})
    finally:
        store.close()
    if not found.spectra:
        raise InputError(f"{address} has no usable stored spectrum: CHEMTWIN_STORE_SPECTRA=true stores them")
    return found


def _sample(
    blocks: Iterator[list[_Star]], model: Model, grouped: Grouped, most: int | None, unusable: dict[str, str]
) -> ObservedStars:
    """Those of the stars that fit into memory, prepared; others of no use go into `unusable`."""
    random = generator(Stream.ADAPTATION)
    chosen: list[tuple[float, str, Spectrum, str | None]] = []
    with tqdm(unit="star", desc="read", disable=None) as bar:
        for block in blocks:
            prepared = prepare_all([star.observation for star in block], model.grid, model.normaliser)
            for star, spectrum in zip(block, prepared, strict=True):
                if isinstance(spectrum, ChemtwinError):
                    unusable[star.star_id] = str(spectrum)
                else:
                    rank = -1.0 if grouped(star.star_id, star.cluster) else random.random()
                    chosen.append((rank, star.star_id, spectrum, star.cluster))
            if most is not None and len(chosen) > most:
                last = sorted(rank for rank, *_ in chosen)[most]
                chosen = [one for one in chosen if one[0] < max(last, 0.0)]
            bar.update(len(block))
    return ObservedStars(
        [one[1] for one in chosen], [one[2] for one in chosen], [one[3] for one in chosen], unusable
    )

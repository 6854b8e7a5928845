"""The model, the store and the search that every route works with."""

from __future__ import annotations

import dataclasses
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from app.errors import Busy, ModelMismatch, NotFound
from app.inference.drift import DriftCheck
from app.inference.embedder import Embedded, Embedder, Job, combined
from app.settings import Settings
from index.errors import StoreError
from index.search.twin_index import TwinIndex
from index.stores.open_store import open_store
from index.stores.star import Star
from model.methods.base import Model

RETRY = 5.0
"""Seconds between attempts to read a store that cannot be read."""

log = logging.getLogger("chemtwin")


class Service:
    """A model, a store and the index over it."""

    def __init__(self, settings: Settings, wait: bool = False, model: Model | None = None) -> None:
        """Open model and store, and the search in a thread; with `wait` the search is open on return.

        `model` is the settings' model, where it is loaded already. Raises ModelFileError or StoreError.
        """
        self.settings = settings
        self.embedder = Embedder(settings, model)
        self.model = self.embedder.model
        self.drift = DriftCheck(self.model)
        self.extra = self.embedder.extra
        units = self.model.card.units
        self.extra_units = {name: units.get(name, "") for name in self.extra}
        self.store = open_store(settings.store_address)
        self._index: TwinIndex | None = None
        self._stopped, self._opened = threading.Event(), threading.Event()
        self._trouble = ""
        if wait:
            self._index = self._open_index()
        else:
            threading.Thread(target=self._keep_opening, name="catch up", daemon=True).start()

    def _open_index(self) -> TwinIndex:
        """The search, caught up with the store. Raises StoreError."""
        card = self.model.card
        return TwinIndex(self.store, card.identity, card.latent_dim, self.settings.cache_folder)

    def _keep_opening(self) -> None:
        """Let the search catch up with the store; where that fails, try again until the service stops."""
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = RETRY
            try:
                with ThreadPoolExecutor(1) as beside:
                    compiled = beside.submit(self.model.embed, [self.model.example()])
                    index = self._open_index()
                    index.doppelganger_rates([])  # draws its pairs, so that no request has to wait for them
                compiled.result()  # nor until what embeds is compiled
                self._index = index
                self._opened.set()
            except Exception as error:
                if isinstance(error, StoreError):
                    self._trouble = f" ({error.reason or 'it fails'}: chemtwin doctor says what to do)"
                if not self._stopped.is_set():
                    log.exception("the search cannot catch up with the store; trying again in %d s", RETRY)
            else:
                log.info("ready: %s, %d stars, store %s", self.model.card.identity, len(index), self.store.name)
                return

    @property
    def index(self) -> TwinIndex:
        """The search. Raises Busy until it has caught up with the store."""
        if self._index is None:
            raise Busy("starting", f"the search has not caught up with the store yet{self._trouble}; try again")
        return self._index

    def wait_for_search(self, seconds: float) -> None:
        """Return when the search has caught up with the store, or after so many seconds."""
        self._opened.wait(seconds)

    def close(self) -> None:
        """Close index and store."""
        self._stopped.set()
        if self._index is not None:
            self._index.close()
        self.store.close()

    def model_name(self) -> dict[str, str]:
        """The model as every response names it."""
        card = self.model.card
        return {"name": card.name, "version": card.version, "method": card.method}

    def embed(self, jobs: list[Job]) -> list[Embedded | Exception]:
        """Embed spectra together.

        Returns
        -------
        list
            A result for each job in order, or the error of one that cannot be used.

        Raises
        ------
        Busy
            The search has not caught up with the store, so that nothing can be stored.
        """
        _ = self.index
        return self.embedder.embed(jobs)

    def write(self, embedded: list[tuple[Job, Embedded]]) -> list[Embedded]:
        """Store the stars that have an id in one transaction, on disk on return.

        A star that replaces a stored one has its position and `meta` unless it came with its own.

        Returns
        -------
        list
            What was embedded, with the stars as they were stored.

        Raises
        ------
        StoreError
            The store cannot be written.
        """
        results = [done for _, done in embedded]
        named = [row for row, (job, _) in enumerate(embedded) if job.star_id is not None]
        stars = [results[row].star for row in named]
        spectra = [results[row].packed for row in named]
        written = self.index.upsert(stars, spectra, combined) if stars else []
        for row, one in zip(named, written, strict=True):
            results[row] = dataclasses.replace(results[row], **one._asdict())
        return results

    def star(self, star_id: str) -> Star:
        """A stored star. Raises NotFound."""
        found = self.store.get([star_id], self.model.card.identity)
        if star_id not in found:
            raise NotFound(star_id)
        return found[star_id]

    def comparable(self, star_id: str) -> Star:
        """A stored star that this model embedded. Raises NotFound or ModelMismatch."""
        star = self.star(star_id)
        if star.model != self.model.card.identity:
            raise ModelMismatch(
                "model_mismatch",
                f"{star_id} was embedded with {star.model}, this service runs {self.model.card.identity}; "
                "embed it again, or run chemtwin catalogue reindex",
            )
        return star

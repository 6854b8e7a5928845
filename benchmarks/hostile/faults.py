"""Chemtwin killed at random moments, round after round: no confirmed write may be lost.

OMP_NUM_THREADS=1 python benchmarks/hostile/faults.py --rounds 200

The suite runs a few short rounds: --rounds 6 --longest 1 --pairs 150 --workers 1.

In each round a service runs on one data folder while three clients embed, replace and delete stars; in two of
three rounds a bulk ingest or a reindexing to another model runs beside it. The service, or what runs beside it,
or both, get SIGKILL at a random moment, once each client has had a response. Then every star's state is
compared with the confirmed writes; a write whose response the kill cut off may have happened or not. Processes
are forked from one that has imported everything, so that a round takes seconds.
"""

import argparse
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkProcess as Process
from pathlib import Path

import httpx
import numpy as np

import app.application
import app.cli.main
from index.stores.sqlite import SqliteStore
from model.bundle import REFERENCE, load_model, save_model
from training.emulator.emulator import Emulator
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

CLIENTS = 3
STARS_EACH = 40
FORK = multiprocessing.get_context("fork")

State = list[float] | None
"""A star's latent, or None for a star that is not there."""


@dataclass
class Tally:
    """What has been done so far."""

    rounds: int = 0
    confirmed: int = 0
    kills: dict[str, int] = field(default_factory=dict)


class Client(threading.Thread):
    """Writes stars of its own, one request after another, until it is cut off.

    `states` are the confirmed ones; `open` is the star whose last request had no response, with which body
    it was sent (None: it was to be deleted).
    """

    def __init__(
        self, url: str, name: str, bodies: list[dict[str, object]], states: dict[str, State], seed: int
    ) -> None:
        super().__init__(name=name)
        self.url, self.bodies, self.states, self.seed = url, bodies, states, seed
        self.confirmed = 0
        self.open: tuple[str, int | None] | None = None

    def run(self) -> None:
        """Write until the connection breaks."""
        choose = random.Random(self.seed)
        with httpx.Client(base_url=self.url, timeout=60) as http:
            while True:
                star_id = f"{self.name}-{choose.randrange(STARS_EACH)}"
                which: int | None = choose.randrange(len(self.bodies))
                if self.states.get(star_id) is not None and choose.random() < 0.3:
                    which = None
                self.open = star_id, which
                try:
                    if which is None:
                        response = http.delete(f"/stars/{star_id}")
                    else:
                        response = http.post("/embed", json={**self.bodies[which], "star_id": star_id})
                except httpx.TransportError:
                    return
                assert response.status_code in (200, 201), response.text
                self.states[star_id] = None if which is None else latent_of(response)
                self.open = None
                self.confirmed += 1


def latent_of(response: httpx.Response) -> list[float]:
    """The latent of an response, in the single precision that is stored."""
    return np.float32(response.json()["latent"]).tolist()


class Arena:
    """A data folder, the stars that clients write, and what runs on it."""

    def __init__(self, folder: Path, seed: int, longest: float, pairs: int, workers: int) -> None:
        self.folder, self.data, self.choose = folder, folder / "data", random.Random(seed)
        self.longest, self.workers = longest, str(workers)
        self.other, self.bulk = folder / "other.safetensors", folder / "bulk.h5"
        renamed = load_model(REFERENCE)
        renamed.card = replace(renamed.card, name="other")
        save_model(renamed, self.other)
        self.models = [load_model(REFERENCE), load_model(self.other)]
        self.models[0].embed([self.models[0].example()])  # each fork has what this loads
        synthesize(self.bulk, Emulator.load(), pairs, seed=seed + 1, snr=100)
        survey = Survey.open(self.bulk)
        self.bulk_ids = list(survey.star_id)
        flux = survey.flux(slice(0, 6)).astype(float)
        self.bodies: list[dict[str, object]] = [
            {"flux": pixels.tolist(), **dict(zip(("teff", "logg", "fe_h"), map(float, known), strict=True))}
            for pixels, known in zip(flux, survey.parameters, strict=False)
        ]
        self.states: dict[str, State] = {}
        self.latents: list[list[float]] = []
        self.environment = {
            "CHEMTWIN_DATA_DIR": str(self.data),
            "CHEMTWIN_STORE_SPECTRA": "true",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, log: str, *arguments: str, **variables: str) -> Process:
        """A process of its own that runs a chemtwin command."""

        def run() -> None:
            os.environ.update(self.environment | variables)
            with (self.folder / f"{log}.log").open("ab") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.argv = ["chemtwin", *arguments]
            app.cli.main.main()

        process = FORK.Process(target=run)
        process.start()
        return process

    def serve(self) -> tuple[Process, str]:
        """A running service and its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self.start("service", "serve", CHEMTWIN_PORT=str(port))
        url = f"http://127.0.0.1:{port}"
        while True:
            assert process.is_alive(), "the service did not start: see service.log"
            try:
                if httpx.get(url + "/readyz").status_code == 200:
                    return process, url
            except httpx.TransportError:
                time.sleep(0.05)

    def beside(self, kind: str) -> Process:
        """The bulk ingest or the reindexing."""
        arguments = {
            "ingest": [str(self.bulk), "--workers", self.workers],
            "reindex": ["--model", str(self.other)],
        }
        return self.start(kind, "catalogue", kind, *arguments[kind])

    def round(self, number: int, tally: Tally) -> None:
        """One life of the service, and the check of the one before."""
        process, url = self.serve()
        try:
            self.check(url)
            if not self.latents:
                self.latents = [
                    latent_of(httpx.post(url + "/embed", json={**body, "star_id": "first"}))
                    for body in self.bodies
                ]
                self.states["first"] = self.latents[-1]
            clients = [
                Client(url, f"C{i}", self.bodies, self.states, self.choose.randrange(2**31))
                for i in range(CLIENTS)
            ]
            kind = ("ingest", "nothing", "reindex")[number % 3]
            for client in clients:
                client.start()
            while any(client.confirmed == 0 and client.is_alive() for client in clients):
                time.sleep(0.01)
            other = None if kind == "nothing" else self.beside(kind)
            time.sleep(self.choose.uniform(0, self.longest))
            victim = self.choose.choice(("service", kind, "both")) if other else "service"
            tally.kills[f"{victim}, beside {kind}"] = tally.kills.get(f"{victim}, beside {kind}", 0) + 1
            if other and victim != "service":
                other.kill()
        finally:
            process.kill()
            process.join()
        for client in clients:
            client.join()
        if other:
            other.join(300)
            assert other.exitcode in (0, -signal.SIGKILL), f"{kind} failed: see {kind}.log"
        self.settle(clients)
        tally.rounds += 1
        tally.confirmed += sum(client.confirmed for client in clients)

    def settle(self, clients: list[Client]) -> None:
        """Learn which of the unanswered requests happened; any other state than before or after is a loss."""
        store = SqliteStore(self.data / "stars.sqlite")
        for client in clients:
            if client.open is not None:
                star_id, which = client.open
                now = self.stored(store, [star_id]).get(star_id)
                if now != self.states.get(star_id):
                    happened = (
                        now is None if which is None else np.allclose(now, self.latents[which], atol=1e-2)
                    )
                    assert happened, f"{star_id} is neither as before nor as after its last request"
                    self.states[star_id] = now
        store.close()

    def stored(self, store: SqliteStore, star_ids: list[str]) -> dict[str, State]:
        """Latents of these stars in the store."""
        found = store.get(star_ids, self.models[0].card.identity)
        return {star_id: star.latent.tolist() for star_id, star in found.items()}

    def check(self, url: str) -> None:
        """Every acknowledged state is in the store; the service finds the same stars, and no more."""
        store = SqliteStore(self.data / "stars.sqlite")
        there = self.stored(store, [*self.states, *self.bulk_ids])
        store.close()
        live = {star_id for star_id, state in self.states.items() if state is not None}
        for star_id in live:
            assert there.get(star_id) == self.states[star_id], f"{star_id} was lost"
        gone = set(self.states) - live
        assert not gone & set(there), "a deleted star came back"
        assert httpx.get(url + "/readyz").json()["stars"] == len(there)
        if "first" in live:
            found = httpx.get(url + "/twins/first?k=1000&fe_h_within=any", timeout=60).json()["twins"]
            assert {twin["star_id"] for twin in found} == set(there) - {"first"}

    def finish(self) -> None:
        """Let ingest and reindexing end undisturbed; nothing is missing, nothing is there twice."""
        for kind in ("ingest", "reindex"):
            process = self.beside(kind)
            process.join(600)
            assert process.exitcode == 0, f"{kind} failed: see {kind}.log"
        store = SqliteStore(self.data / "stars.sqlite")
        for model in self.models:
            found = store.get([*self.states, *self.bulk_ids], model.card.identity)
            live = {star_id for star_id, state in self.states.items() if state is not None}
            assert set(found) == live | set(self.bulk_ids)
            assert {star.model for star in found.values()} == {model.card.identity}
        store.close()


def run(arena: Arena, rounds: int) -> Tally:
    """Do it, stopping at the first loss with an AssertionError."""
    tally = Tally()
    for number in range(rounds):
        arena.round(number, tally)
        if number % 10 == 9:
            print(f"{tally.rounds} rounds, {tally.confirmed} confirmed writes, {tally.kills}", flush=True)
    process, url = arena.serve()
    arena.check(url)
    process.kill()
    process.join()
    arena.finish()
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=3, help="most seconds from then to the kill")
    parser.add_argument("--pairs", type=int, default=300, help="twin pairs of the bulk ingest")
    parser.add_argument("--workers", type=int, default=2, help="processes of the bulk ingest")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        arena = Arena(Path(name), given.seed, given.longest, given.pairs, given.workers)
        done = run(arena, given.rounds)
    print(f"{done.rounds} rounds, {done.confirmed} confirmed writes, none lost; killed: {done.kills}")

"""Speed of the service over HTTP, from another process, against what it cannot be faster than.

python -m benchmarks.service fill FOLDER SURVEY --stars N    a catalogue to serve (benchmarks/catalogue.py)
python -m benchmarks.service calls FOLDER SURVEY             one client: /embed, /twins
python -m benchmarks.service load FOLDER SURVEY --minutes 10 64 clients that mix /embed, /twins and /recast
python -m benchmarks.service turns FOLDER SURVEY --checkouts OLD NEW   two revisions in turns
python -m benchmarks.service start FOLDER SURVEY --checkouts OLD NEW   their starts alone, in turns

`calls` compares /embed of one JSON spectrum with parsing its body, inference and one synced commit, done one
after another in a process of its own (`floor`); and /twins with the search in this process. `load` is followed
by the same clients sending the same requests to a FastAPI application that only parses their JSON and returns
as many bytes as the service does. `turns` starts the servers of two folders, each with a revision, one after
another and again. It prints medians of their starts, calls and loads, and the ratios. `start` is the seconds
from the command to ready and the memory then, each revision on a copy of the catalogue that it has served
before. Server and clients run on the same machine. Needs aiohttp.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import aiohttp
import httpx
import numpy as np
import orjson

from app.inference.embedder import Embedder
from app.schemas.bodies import StarIn
from app.settings import Settings
from benchmarks.catalogue import Catalogue
from index.search.twin_index import TwinIndex
from index.stores.sqlite import SqliteStore
from index.stores.star import Star
from model.bundle import REFERENCE, load_model
from model.spectra.spectrum import prepare
from training.random_streams import Stream
from training.surveys.survey import Survey, add_noise

CLIENTS, BODIES, REPEATS, STARS_AT_ONCE = 64, 500, 200, 10_000
SETTLES_S = 3.0
"""Seconds after which the memory of a service that has started is looked at."""

MIX = ("embed", "twins", "twins", "recast")
"""What the clients draw from: as many searches as spectra and recasts together."""

PARSER = """
import sys

import orjson
from fastapi import FastAPI, Request, Response

app = FastAPI()
SIZES = {"embed": %d, "twins": %d, "recast": %d}


@app.post("/embed")
@app.post("/recast")
async def parse(request: Request) -> Response:
    orjson.loads(await request.body())
    return Response(b" " * SIZES[request.url.path[1:]], media_type="application/json")


@app.get("/twins/{star_id}")
async def twins(star_id: str) -> Response:
    return Response(b" " * SIZES["twins"], media_type="application/json")
"""


def fill(folder: Path, survey: Survey, stars: int) -> None:
    """A store of so many stars by the shipped model, with one star's covariance each."""
    model = load_model(REFERENCE)
    latents, parameters = Catalogue.fit(model, survey).draw(stars, 1)
    flux = add_noise(survey.flux(slice(0, 1)), 100, Stream.SURVEY_NOISE, seed=1)[0].astype(float)
    observation = StarIn.model_validate(
        {"star_id": "A", "flux": flux.tolist(), "ivar": [1e4] * len(flux)}
        | dict(zip(("teff", "logg", "fe_h"), survey.parameters[0].tolist(), strict=True))
    ).observation(0)
    covariance = model.embed([prepare(observation, model.grid, model.normaliser)])[0].covariance
    store = SqliteStore(folder / "stars.sqlite")
    for start in range(0, stars, STARS_AT_ONCE):
        store.upsert(
            [
                Star(
                    f"CAT-{row:08d}", model.card.identity, latents[row], covariance, *parameters[row], snr=100.0
                )
                for row in range(start, min(start + STARS_AT_ONCE, stars))
            ]
        )
    store.close()


def bodies(survey: Survey) -> list[bytes]:
    """JSON bodies of /embed: spectra at S/N 100, every other with ivar."""
    flux = add_noise(survey.flux(slice(0, BODIES)), 100, Stream.SURVEY_NOISE, seed=1)
    made = []
    for row in range(BODIES):
        u = dict(zip(("teff", "logg", "fe_h"), survey.parameters[row].tolist(), strict=True))
        star = {"star_id": f"LOAD-{row:04d}", "flux": [round(float(value), 5) for value in flux[row]], **u}
        made.append(orjson.dumps(star | ({"ivar": [1e4] * len(flux[row])} if row % 2 else {})))
    return made


@contextmanager
def serving(command: list[str], checkout: Path | None = None, **environment: str) -> Iterator[tuple[str, int]]:
    """The URL and process number of a server that listens on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"CHEMTWIN_PORT": str(port), "OMP_NUM_THREADS": "1", "CHEMTWIN_LOG_LEVEL": "warning"}
    variables["PYTHONDONTWRITEBYTECODE"] = ""  # a first start keeps the modules that it compiles, as with make
    command = [part.format(port=port) for part in command]
    server = subprocess.Popen(command, cwd=checkout, env=os.environ | variables | environment)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                if httpx.get(url + "/readyz").status_code != 503:
                    break
            except httpx.TransportError:
                assert server.poll() is None
            time.sleep(0.02)
        yield url, server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def service(folder: Path) -> list[str]:
    return [sys.executable, "-c", "from app.cli.main import main; main()", "serve"]


class Client:
    """One client of a server, with one connection."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"))

    def seconds(self, method: str, path: str, body: bytes | None = None) -> float:
        """How long a call takes that must succeed."""
        start = time.perf_counter()
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        assert response.status in (200, 201), content
        return time.perf_counter() - start


class Searches:
    """The search in this process, beside which /twins is timed."""

    def __init__(self, folder: Path, model: str, dimension: int) -> None:
        self._store, self._model = SqliteStore(folder / "stars.sqlite"), model
        self.index = TwinIndex(self._store, model, dimension, folder)

    def beside(self, client: Client) -> tuple[list[float], list[float]]:
        """Seconds of /twins over HTTP, and of the search alone, for the same stars drawn at random."""
        over_http, inside = [], []
        for row in np.random.default_rng(1).choice(len(self.index) - BODIES, REPEATS):
            star_id = f"CAT-{row:08d}"
            latent = self._store.get([star_id], self._model)[star_id].latent
            over_http.append(client.seconds("GET", f"/twins/{star_id}?k=10&fe_h_within=any"))
            start = time.perf_counter()
            self.index.search(latent, 10, without=star_id)
            inside.append(time.perf_counter() - start)
        return over_http, inside


def quantiles(seconds: list[float]) -> str:
    """p50, p90 and p99 in milliseconds."""
    return " | ".join(f"{1e3 * value:.2f}" for value in np.quantile(seconds, [0.5, 0.9, 0.99]))


def calls(folder: Path, survey: Survey) -> None:
    """One client's calls, each beside its floor, alternating."""
    settings = Settings(data_dir=folder)
    embedder, store = Embedder(settings), SqliteStore(folder / "floor" / "stars.sqlite")
    card = embedder.model.card
    searches = Searches(folder, card.identity, card.latent_dim)
    sent = bodies(survey)
    print(f"{len(searches.index)} stars\n\n| call | p50 ms | p90 | p99 |\n|---|---|---|---|")
    with serving(service(folder), CHEMTWIN_DATA_DIR=str(folder)) as (url, _):
        client = Client(url)
        for kind, chosen in (("without ivar", sent[::2]), ("with ivar", sent[1::2])):
            over_http, floor = [], []
            for body in chosen[:REPEATS]:
                over_http.append(client.seconds("POST", "/embed", body))
                start = time.perf_counter()
                given = orjson.loads(body)
                observation = StarIn.model_validate(given).observation(settings.bad_bits)
                spectrum = prepare(observation, embedder.model.grid, embedder.model.normaliser)
                (found,) = embedder.model.embed([spectrum])
                u = [given[name] for name in ("teff", "logg", "fe_h")]
                store.upsert([Star(given["star_id"], card.identity, found.latent, found.covariance, *u)])
                floor.append(time.perf_counter() - start)
            print(f"| /embed {kind}, {len(body) / 1e3:.0f} kB | {quantiles(over_http)} |")
            print(f"| its floor | {quantiles(floor)} |")
            print(f"| ratio of the medians | {np.median(over_http) / np.median(floor):.2f} | | |")
        over_http, inside = searches.beside(client)
        print(f"| /twins | {quantiles(over_http)} |\n| the search alone | {quantiles(inside)} |")
        print(f"| difference of the medians | {1e3 * (np.median(over_http) - np.median(inside)):.2f} | | |")


def tree(process: int) -> list[int]:
    """A process and those under it."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(below for child in children for below in tree(int(child)))]


def memory(process: int) -> float:
    """Memory in MB of a process and those under it, with their libraries; what they share counts once."""
    kilobytes = 0
    for one in tree(process):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1e3


def cpu(process: int) -> float:
    """Seconds of processor time so far of a process and those under it."""
    ticks = 0
    for one in tree(process):
        times = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += sum(map(int, times))
    return ticks / os.sysconf("SC_CLK_TCK")


class Load(NamedTuple):
    """What clients saw: seconds of each call, responses by call and status, and the server's memory (MB)."""

    rate: float
    took: dict[str, list[float]]
    outcome: Counter[str]
    memory: list[float]
    cpu_ms: float

    def print(self) -> None:
        """All of it, as docs/operating.md has it."""
        print(f"{self.rate:.0f} requests/s; {dict(sorted(self.outcome.items()))}")
        print(f"{self.cpu_ms:.1f} ms of the server's processor time a request")
        print("\n| call | p50 ms | p90 | p99 |\n|---|---|---|---|")
        for call, durations in self.took.items():
            print(f"| {call} | {quantiles(durations)} |")
        used = " ".join(f"{value:.0f}" for value in self.memory)
        print(f"\nmemory of the server, MB: {used}\n", flush=True)


async def clients(url: str, sent: list[bytes], stars: int, seconds: float, process: int) -> Load:
    """What 64 clients see in so many seconds, and the server's memory ten times meanwhile."""
    ends = time.monotonic() + seconds
    took: dict[str, list[float]] = {name: [] for name in MIX}
    outcome: Counter[str] = Counter()
    used: list[float] = []

    async def one(number: int, session: aiohttp.ClientSession) -> None:
        generator = np.random.default_rng(number)
        while time.monotonic() < ends:
            call = MIX[generator.integers(len(MIX))]
            star_id = f"CAT-{generator.integers(stars):08d}"
            start = time.perf_counter()
            if call == "twins":
                request = session.get(f"{url}/twins/{star_id}?k=10")
            else:
                wish = {"star_id": star_id, "to": {"teff": 4300.0}}
                body = sent[generator.integers(len(sent))] if call == "embed" else orjson.dumps(wish)
                request = session.post(f"{url}/{call}", data=body, headers={"Content-Type": "application/json"})
            async with request as response:
                await response.read()
                outcome[f"{call} {response.status}"] += 1
            took[call].append(time.perf_counter() - start)

    async def watch() -> None:
        while time.monotonic() < ends:
            used.append(memory(process))
            await asyncio.sleep(seconds / 10)

    begun = cpu(process)
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await asyncio.gather(watch(), *(one(number, session) for number in range(CLIENTS)))
    total = sum(map(len, took.values()))
    return Load(total / seconds, took, outcome, used, 1e3 * (cpu(process) - begun) / total)


def load(folder: Path, survey: Survey, minutes: float) -> None:
    """The load on the service, then on an application that only parses."""
    sent = bodies(survey)
    (stars,) = SqliteStore(folder / "stars.sqlite").stars_by_model().values()
    with serving(service(folder), CHEMTWIN_DATA_DIR=str(folder)) as (url, process):
        sizes = [
            len(
                httpx.post(
                    url + "/embed", content=sent[1], headers={"Content-Type": "application/json"}
                ).content
            ),
            len(httpx.get(f"{url}/twins/CAT-00000000?k=10").content),
            len(httpx.post(url + "/recast", json={"star_id": "CAT-00000000", "to": {"teff": 4300.0}}).content),
        ]
        seen = asyncio.run(clients(url, sent, stars - BODIES, 60 * minutes, process))
    seen.print()
    bad = {key: count for key, count in seen.outcome.items() if not key.split()[1].startswith("2")}
    print(f"responses other than 2xx: {bad or 'none'}\n\nThe same on an application that only parses:\n")
    (folder / "parser_app.py").write_text(PARSER % tuple(sizes))
    command = [sys.executable, "-m", "uvicorn", "parser_app:app", "--app-dir", str(folder), "--port", "{port}"]
    with serving([*command, "--no-access-log", "--log-level", "warning"]) as (url, process):
        asyncio.run(clients(url, sent, stars - BODIES, min(60 * minutes, 60), process)).print()


def measured(
    folder: Path, checkout: Path, sent: list[bytes], stars: int, seconds: float, searches: Searches
) -> dict[str, float]:
    """One round of a checkout: seconds to ready, one client's calls, and the load."""
    begun = time.monotonic()
    with serving(service(folder), checkout, CHEMTWIN_DATA_DIR=str(folder.resolve())) as (url, process):
        found = {"start, s": time.monotonic() - begun}
        client = Client(url)
        for kind, chosen in (("without ivar", sent[::2]), ("with ivar", sent[1::2])):
            took = [client.seconds("POST", "/embed", body) for body in chosen[:REPEATS]]
            found[f"/embed {kind} alone, p50 ms"] = 1e3 * float(np.median(took))
        over_http, inside = (float(np.median(times)) for times in searches.beside(client))
        found |= {
            "/twins alone, p50 ms": 1e3 * over_http,
            "/twins over the search, ms": 1e3 * (over_http - inside),
        }
        seen = asyncio.run(clients(url, sent, stars, seconds, process))
    assert all(key.split()[1].startswith("2") for key in seen.outcome), seen.outcome
    found |= {"requests/s": seen.rate, "processor time of a request, ms": seen.cpu_ms}
    for call, durations in seen.took.items():
        found[f"/{call} at {CLIENTS} clients, p99 ms"] = 1e3 * float(np.quantile(durations, 0.99))
    return found | {"memory, MB": max(seen.memory)}


def turns(folder: Path, survey: Survey, checkouts: list[Path], rounds: int, minutes: float) -> None:
    """Medians of two checkouts that were served in turns, and their ratios."""
    sent, card = bodies(survey), load_model(Settings().model).card
    searches = Searches(folder, card.identity, card.latent_dim)
    stars = len(searches.index) - BODIES
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for _ in range(rounds):
        for checkout, own in found.items():
            own.append(measured(folder, checkout, sent, stars, 60 * minutes, searches))
    compare(found)


def starts(folder: Path, checkouts: list[Path], rounds: int) -> None:
    """Medians of the starts of two checkouts in turns, and their ratios."""
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    with tempfile.TemporaryDirectory(dir=folder) as copies:
        data = [Path(copies, str(number)).resolve() for number in range(len(checkouts))]
        for checkout, own in zip(checkouts, data, strict=True):
            own.mkdir()
            shutil.copy(folder / "stars.sqlite", own)
            with serving(service(own), checkout, CHEMTWIN_DATA_DIR=str(own)):
                pass
        for _ in range(rounds):
            for (checkout, seen), own in zip(found.items(), data, strict=True):
                begun = time.monotonic()
                with serving(service(own), checkout, CHEMTWIN_DATA_DIR=str(own)) as (_, process):
                    seconds, spent = time.monotonic() - begun, cpu(process)
                    time.sleep(SETTLES_S)
                    seen.append(
                        {"start, s": seconds, "its processor time, s": spent, "memory, MB": memory(process)}
                    )
    compare(found)


def compare(found: dict[Path, list[dict[str, float]]]) -> None:
    """Print the medians of two checkouts, and their ratios."""
    checkouts = list(found)
    rounds = len(found[checkouts[0]])
    print(f"| medians of {rounds} | {' | '.join(map(str, checkouts))} | ratio |\n|---|---|---|---|")
    for name in found[checkouts[0]][0]:
        old, new = (float(np.median([one[name] for one in found[checkout]])) for checkout in checkouts)
        print(f"| {name} | {old:.4g} | {new:.4g} | {new / old:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fill", "calls", "load", "turns", "start"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("survey", type=Path)
    parser.add_argument("--stars", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--checkouts", type=Path, nargs=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    survey = Survey.open(arguments.survey)
    versions = {name: version(name) for name in ("uvicorn", "fastapi", "aiohttp", "torch")}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, {json.dumps(versions)}\n"
    )
    if arguments.what == "fill":
        fill(arguments.folder, survey, arguments.stars)
    elif arguments.what == "calls":
        calls(arguments.folder, survey)
    elif arguments.what == "load":
        load(arguments.folder, survey, arguments.minutes)
    elif arguments.what == "start":
        starts(arguments.folder, arguments.checkouts, arguments.rounds)
    else:
        turns(arguments.folder, survey, arguments.checkouts, arguments.rounds, arguments.minutes)


if __name__ == "__main__":
    main()

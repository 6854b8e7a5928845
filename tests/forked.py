"""`chemtwin` commands as processes of their own that begin with everything imported.

A launcher process imports the product once and loads its compiled functions. Another, a fork of the first, imports
what trainings need as well. Each command is a fork of one of them that runs the command line: a real process with
its own environment, folder and streams, without the seconds of a start. The workers of a test run share them.
A script finds the same commands where `program` has written `chemtwin`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
FRESH = [sys.executable, "-c", "from app.cli.main import main; main()"]
"""The command line in a new interpreter."""

IMPORTED = (
    "app.application",
    "app.bulk.ingest",
    "app.bulk.reindex",
    "app.bulk.backup",
    "app.bulk.export",
    "app.cli.doctor",
    "model.methods.gaussdis",
)

TRAINING = (
    "training.surveys.synthetic_survey",
    "training.train",
    "training.evaluation.report",
    "torch._dynamo",
)
TRAINING_GROUPS = {"survey", "model", "lab"}
"""Groups of commands that a second launcher forks, which has imported TRAINING: each fork then ends 0.6 s later."""

SHARED = "TEST_LAUNCHER"
"""The variable of the environment that has the address of the launcher that workers share."""

TRAINING_SUFFIX = "-training"
"""What the address of that launcher ends with."""


class Command:
    """A running command, used as a `subprocess.Popen` is."""

    def __init__(self, connection: socket.socket, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self._connection, self._lines = connection, connection.makefile("r")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None
        self._stdout, self._stderr = stdout, stderr

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once there is one. Raises subprocess.TimeoutExpired."""
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("chemtwin", timeout or 0)
        return status

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._lines.readline()))
            self._lines.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to stdout and stderr, once it has ended."""
        self.wait(timeout)
        written = []
        for file in (self._stdout, self._stderr):
            assert file is not None
            file.seek(0)
            written.append(file.read())
            file.close()
        return written[0], written[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(arguments: list[str], environment: dict[str, str], log: IO[str] | None = None) -> Command:
    """Run a chemtwin command; both its streams go to `log`, or can be read by `communicate`."""
    streams = (None, None) if log else (tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+"))  # noqa: SIM115
    out, error = (log or stream for stream in streams)
    sys.audit(
        "subprocess.Popen", "chemtwin", arguments, None, environment
    )  # as the others: tests/budget.py listens
    assert out is not None
    assert error is not None
    return Command(_asked(_launcher(), arguments, environment, [out.fileno(), error.fileno()]), *streams)


def _asked(
    launcher: str, arguments: list[str], environment: dict[str, str], streams: list[int]
) -> socket.socket:
    """The connection to a launcher over which a command was asked for."""
    connection = socket.socket(socket.AF_UNIX)
    trains = not TRAINING_GROUPS.isdisjoint(arguments[:1])
    connection.connect(launcher + TRAINING_SUFFIX * trains)
    socket.send_fds(connection, [b"-"], streams)
    asked = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
    connection.sendall(json.dumps(asked).encode() + b"\n")
    return connection


def program(folder: Path) -> None:
    """Write `chemtwin` to a folder: a program that runs its arguments by the launcher of this process."""
    path = folder / "chemtwin"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{_launcher()[1:]}" "$@"\n')
    path.chmod(0o755)


def relay(launcher: str, arguments: list[str]) -> int:
    """Run a command as if it were this process: its streams, its environment, its end by SIGTERM, its status."""
    command = Command(_asked(f"\0{launcher}", arguments, dict(os.environ), [1, 2]), None, None)
    signal.signal(signal.SIGTERM, lambda *_: command.terminate())
    status = command.wait()
    return status if status >= 0 else 128 - status


def run(*arguments: object, **environment: str) -> tuple[int, str]:
    """The exit status of a chemtwin command, and all that it wrote."""
    command = start([*map(str, arguments)], os.environ | {"OMP_NUM_THREADS": "1"} | environment)
    out, error = command.communicate(timeout=300)
    assert command.returncode is not None
    return command.returncode, out + error


def share() -> None:
    """Let the processes that this one starts use the launcher of this one."""
    os.environ[SHARED] = _launcher()[1:]


@cache
def _launcher() -> str:
    """The address of the launcher, an abstract one that leaves no file; it ends with the process that starts it."""
    if SHARED in os.environ:
        return "\0" + os.environ[SHARED]
    address = f"\0chemtwin-launcher-{uuid.uuid4().hex}"
    listeners = [_listener(address), _listener(address + TRAINING_SUFFIX)]
    numbers = [listener.fileno() for listener in listeners]
    process = subprocess.Popen(
        [sys.executable, "-c", "from tests.forked import launch; launch()", *map(str, numbers)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        pass_fds=numbers,
        start_new_session=True,
    )
    for listener in listeners:
        listener.close()

    def stop() -> None:
        assert process.stdin is not None
        process.stdin.close()  # closed as well if this process is killed
        process.wait()

    atexit.register(stop)
    return address


def _listener(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    return listener


def launch() -> None:
    """The launchers: fork a process for each command, until whoever started them has ended.

    They import nothing before the first command.
    """
    commands, trainings = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    if 0 in select.select([commands, trainings, 0], [], [])[0]:
        return
    sys.path.insert(0, str(ROOT))
    from app.cli.main import main

    for name in IMPORTED:
        importlib.import_module(name)
    from model.bundle import REFERENCE, load_model

    model = load_model(REFERENCE)
    model.embed([model.example()])
    del model
    _freeze()
    listener, other = (commands, trainings) if os.fork() else (trainings, commands)
    other.close()
    if listener is trainings and 0 not in select.select([trainings, 0], [], [])[0]:
        for name in TRAINING:
            importlib.import_module(name)
        _freeze()
    if _serve(listener):
        main()


def _freeze() -> None:
    """Leave the objects of now out of the garbage collections of forks: a collection copies what it looks at."""
    gc.collect()
    gc.freeze()


def _serve(listener: socket.socket) -> bool:
    """Fork a process for each command; true in a process that is to run one."""
    while True:
        readable, _, _ = select.select([listener, 0], [], [])
        if 0 in readable:
            return False
        connection, _ = listener.accept()
        _, streams, _, _ = socket.recv_fds(connection, 1, 2)
        asked = json.loads(connection.makefile("r").readline())
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _become_command(connection, streams, asked)
            return True
        connection.close()
        for stream in streams:
            os.close(stream)


def _become_command(connection: socket.socket, streams: list[int], asked: dict[str, Any]) -> None:
    """Return in a child that is what was asked for; this process waits and reports its end."""
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{status}\n".encode())
        os._exit(0)
    connection.close()
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, stream in enumerate((nothing, *streams)):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None
    sys.argv = ["chemtwin", *asked["arguments"]]


if __name__ == "__main__":
    sys.exit(relay(sys.argv[1], sys.argv[2:]))

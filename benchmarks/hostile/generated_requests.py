"""Requests that schemathesis makes of the OpenAPI document, sound and broken, at a server of their own.

OMP_NUM_THREADS=1 python -m benchmarks.hostile.generated_requests --cases 20000

All of schemathesis's checks: responses, statuses and types are as the document says, broken requests are
errors, sound ones accepted, keys required, methods listed, what was stored is there and what was deleted is
gone. Rounds of `--examples` for each operation and phase follow each other, each with its own seed, until
there were `--cases` requests. Exit 1 when a check fails. What JSON schema cannot say (that a spectrum is
not masked, say) gets 422 on the four operations that take spectra, and counts as a response to a
sound request there.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from platform import machine, python_version

import httpx

ROOT = Path(__file__).parents[2]
KEY = "generated-requests"
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "503"]

[[operations]]
include-path = ["/embed", "/twins", "/recast", "/spectrum"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "404", "409", "415", "422", "503"]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--first", default="coverage,fuzzing,stateful", help="phases of the first round")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run(Path(folder), given.cases, given.examples, given.first))


def run(folder: Path, cases: int, examples: int, phases: str) -> int:
    port, calls, config = free_port(), folder / "calls", folder / "schemathesis.toml"
    url, began = f"http://127.0.0.1:{port}", time.monotonic()
    config.write_text(CONFIG)
    settings = {"CHEMTWIN_PORT": str(port), "CHEMTWIN_DATA_DIR": str(folder), "CHEMTWIN_API_KEYS": KEY}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GENERATED_REQUESTS": str(calls)}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", "from app.cli.main import main; main()", "serve"],
            env=environment | settings, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait(url)
        failed = seed = 0
        while not calls.exists() or len(calls.read_bytes().splitlines()) < cases:
            seed += 1
            failed += round_of(url, config, phases, examples, seed, environment)
            phases = "fuzzing,stateful"
        alive = httpx.get(url + "/readyz").status_code == 200
    finally:
        server.terminate()
        server.wait(60)
    log = (folder / "log").read_text()
    tracebacks = log.count("Traceback")
    if tracebacks:
        print(log[log.index("Traceback") :][:8000])
    report([json.loads(line) for line in calls.read_text().splitlines()], time.monotonic() - began)
    print(f"{failed} of {seed} rounds failed; {tracebacks} tracebacks in the server's log")
    return int(failed > 0 or tracebacks > 0 or not alive)


def round_of(url: str, config: Path, phases: str, examples: int, seed: int, environment: dict[str, str]) -> int:
    """One run of schemathesis: 1 when a check failed, and then what it had to say."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    options = [
        f"--max-examples={examples}",
        f"--seed={seed}",
        f"--phases={phases}",
        "--checks=all",
        "--no-shrink",
    ]
    options += [
        "--continue-on-failure",
        "--suppress-health-check=all",
        "--request-timeout=30",
        "--warnings=off",
    ]
    done = subprocess.run(
        [*command, f"{url}/openapi.json", "-H", f"Authorization: Bearer {KEY}", *options],
        env=environment | {"SCHEMATHESIS_HOOKS": "benchmarks.hostile.generated_hooks"},
        cwd=config.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print(done.stdout, flush=True)
    return int(done.returncode != 0)


def wait(url: str) -> None:
    for _ in range(600):
        with suppress(httpx.TransportError):
            if httpx.get(url + "/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def report(calls: list[tuple[str, int, int]], seconds: float) -> None:
    counts: dict[str, Counter[int]] = {}
    for operation, status, _ in calls:
        counts.setdefault(operation, Counter())[status] += 1
    for operation, statuses in sorted(counts.items()):
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        print(f"{operation:<36} {sum(statuses.values()):>6}  {counts}")
    largest = max((size for _, status, size in calls if status >= 400), default=0)
    print(
        f"{len(calls)} requests in {seconds:.0f} s, largest error {largest} bytes; schemathesis "
        f"{version('schemathesis')}, Python {python_version()}, {machine()}, {os.cpu_count()} processors"
    )


if __name__ == "__main__":
    main()

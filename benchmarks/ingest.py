"""Time, CPU and peak memory of `chemtwin catalogue ingest` of a source into an empty store.

OMP_NUM_THREADS=1 python benchmarks/ingest.py survey.h5
OMP_NUM_THREADS=1 python benchmarks/ingest.py survey.h5 OLD NEW

With the folders of two revisions they run in turns; it prints medians and the ratio.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROUNDS = 3


def tree(process: int) -> list[int]:
    """A process and those under it."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(below for child in children for below in tree(int(child)))]


def memory(process: int) -> float:
    """Proportional memory of a process and those under it, MB."""
    total = 0
    for one in tree(process):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return total / 1e3


def cpu(process: int) -> dict[int, float]:
    """Seconds of CPU so far of a process and each under it."""
    used = {}
    for one in tree(process):
        try:
            times = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            continue
        used[one] = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return used


class Ingest(NamedTuple):
    """Stars a second from start to end, milliseconds of CPU a star, and peak memory of all processes, MB."""

    rate: float
    cpu: float
    memory: float


def ingest(source: str, checkout: Path) -> Ingest:
    """What the revision in `checkout` takes."""
    command = [sys.executable, "-c", "from app.cli.main import main; main()", "catalogue", "ingest", source]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    peak, used = 0.0, dict[int, float]()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        process = subprocess.Popen(
            [*command, "--data-dir", folder], stdout=subprocess.PIPE, text=True, env=environment
        )

        def watch() -> None:
            """Look at memory and CPU five times a second."""
            nonlocal peak
            while process.poll() is None:
                peak = max(peak, memory(process.pid))
                used.update(cpu(process.pid))
                time.sleep(0.2)

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, _ = process.communicate()
        wall = time.monotonic() - begun
        watcher.join()
    stars = int(said.split()[0])
    return Ingest(stars / wall, 1e3 * sum(used.values()) / stars, peak)


checkouts = [Path(name) for name in sys.argv[2:]] or [Path(__file__).parent.parent]
found: dict[Path, list[Ingest]] = {checkout: [] for checkout in checkouts}
for _ in range(ROUNDS if sys.argv[2:] else 1):
    for checkout, own in found.items():
        own.append(ingest(sys.argv[1], checkout))
for checkout, own in found.items():
    rate, spent, most = np.median(own, axis=0)
    print(f"{checkout}: {rate:.0f} stars/s from start to end, {spent:.2f} ms of CPU a star; peak {most:.0f} MB")
if sys.argv[2:]:
    old, new = (np.median([one.rate for one in own]) for own in found.values())
    print(f"ratio {new / old:.2f}")

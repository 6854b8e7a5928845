"""Time, CPU and peak memory of `chemtwin ingest` of a source into an empty store.

OMP_NUM_THREADS=1 python benchmarks/ingest.py survey.h5 [--workers N]
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


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


command = [sys.executable, "-c", "from app.cli.main import main; main()", "ingest", *sys.argv[1:]]
with tempfile.TemporaryDirectory() as folder:
    begun = time.monotonic()
    process = subprocess.Popen([*command, "--data-dir", folder], stdout=subprocess.PIPE, text=True)
    peak, used = 0.0, dict[int, float]()

    def watch() -> None:
        """Look at memory and CPU five times a second."""
        global peak
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
print(f"{said.strip()}: {wall:.1f} s, {stars / wall:.0f} stars/s from start to end")
spent = sum(used.values())
print(f"{spent:.1f} s of CPU, {1e3 * spent / stars:.2f} ms a star; peak memory {peak:.0f} MB, all processes")

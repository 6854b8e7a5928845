"""The PostgreSQL store and the search over it, as Markdown: bytes, writes, an instance's start and memory.

OMP_NUM_THREADS=1 python -m benchmarks.postgres [STARS ...]

Synthetic stars with 18 latents of unequal scales and a full covariance, in a server of its own with fsync on
and 2 GB of shared buffers. Each size is what the one before has grown to. An instance is a process of its own.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from index.search.twin_index import Filters, TwinIndex
from index.stores.postgres import PostgresStore
from index.stores.star import Star
from tests.postgres import Postgres

MODEL, DIMENSION, K, FE_H_WITHIN, BATCH = "gaussdis@0123456789ab", 18, 10, 0.1, 1000
SCALES = np.geomspace(4, 0.5, DIMENSION)
SIZES, FAR = (10_000, 100_000, 1_000_000), (10**7, 10**8, 10**9)
QUERIES = 1000


def batches(first: int, last: int) -> Iterator[list[Star]]:
    """Stars of these numbers, `BATCH` at a time."""
    generator = np.random.default_rng(first)
    covariance = np.diag(SCALES / 10).astype(np.float32)
    for start in range(first, last, BATCH):
        latents = (generator.normal(size=(BATCH, DIMENSION)) * SCALES).astype(np.float32)
        irons = np.clip(generator.normal(-0.2, 0.3, BATCH), -2, 0.5)
        yield [
            Star(
                f"2M{start + row:08d}+00000000",
                MODEL,
                latents[row],
                covariance,
                4500.0,
                2.0,
                float(irons[row]),
                snr=100.0,
                chi2=1.0,
                ra=180.0,
                dec=0.0,
                meta={"file": "apStar"},
            )
            for row in range(min(BATCH, last - start))
        ]


def fill(store: PostgresStore, before: int, stars: int) -> dict[str, float]:
    """Write stars; how fast, and what they take on disk."""
    inserting = 0.0
    for batch in batches(before, stars):
        start = time.perf_counter()
        store.upsert(batch)
        inserting += time.perf_counter() - start
    with store._reading() as connection:
        connection.raw.execute("VACUUM ANALYZE")
        sizes = connection.execute(
            "SELECT pg_relation_size('stars'), pg_indexes_size('stars'), pg_total_relation_size('stars')"
        ).fetchall()[0]
    return {
        "stars inserted per second": (stars - before) / inserting,
        **{
            f"bytes per star on disk: {what}": size / stars
            for what, size in zip(("table", "indexes", "all"), sizes, strict=True)
        },
    }


def memory() -> tuple[int, int]:
    """Bytes of this process that are in memory, and that have been at the most."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024


def instance(url: str, folder: str) -> None:
    """Start an instance in this process and print what it took."""
    store = PostgresStore(url)
    TwinIndex(store, "none@0", DIMENSION, Path(folder)).close()  # compiles what a search runs
    (empty, _), start = memory(), time.perf_counter()
    index = TwinIndex(store, MODEL, DIMENSION, Path(folder))
    seconds = time.perf_counter() - start
    index._nearest.settle()
    index.close()
    taken, peak = (value - empty for value in memory())
    sample = index.sample(QUERIES)
    times = []
    for star_id, latent, columns in zip(sample.ids, sample.latents, sample.columns, strict=True):
        near = Filters((("fe_h", columns[2] - FE_H_WITHIN, columns[2] + FE_H_WITHIN),))
        start = time.perf_counter()
        index.search(latent, K, near, star_id)
        times.append(1e3 * (time.perf_counter() - start))
    p50, p99 = np.percentile(times, (50, 99))
    print(json.dumps({"seconds": seconds, "bytes": taken, "peak": peak, "p50": p50, "p99": p99}))
    store.close()


def measure(store: PostgresStore, url: str, before: int, stars: int) -> dict[str, float]:
    """Grow to so many stars; start an instance without a cache, and another with the cache of the first."""
    result = {"stars": float(stars), **fill(store, before, stars)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.postgres", "instance", url, folder]
        first, second = (json.loads(subprocess.check_output(command)) for _ in range(2))
    return result | {
        "start without a cache (s)": first["seconds"],
        "stars caught up per second": stars / first["seconds"],
        "start with a cache (s)": second["seconds"],
        "bytes per star in memory": second["bytes"] / stars,
        "bytes per star in memory, at most, in a start without a cache": first["peak"] / stars,
        "search p50 (ms)": second["p50"],
        "search p99 (ms)": second["p99"],
    }


def main() -> None:
    if sys.argv[1:2] == ["instance"]:
        return instance(*sys.argv[2:])
    sizes = [int(value) for value in sys.argv[1:]] or list(SIZES)
    server = Postgres(shared_buffers="2GB", max_wal_size="4GB")
    try:
        url = server.create()
        store = PostgresStore(url)
        version = store._read("SHOW server_version")[0][0]
        print(f"{platform.machine()}, {os.cpu_count()} cores, PostgreSQL {version}", flush=True)
        results = []
        for before, stars in zip([0, *sizes], sizes, strict=False):
            results.append(measure(store, url, before, stars))
            print(f"<!-- {results[-1]} -->", flush=True)
        report(results)
        store.close()
    finally:
        server.stop()


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def report(results: list[dict[str, float]]) -> None:
    print("\n| | " + " | ".join(f"{result['stars']:,.0f} stars" for result in results) + " |")
    print("|---|" + "---:|" * len(results))
    for name in list(results[0])[1:]:
        print(f"| {name} | " + " | ".join(f"{shown(result[name])}" for result in results) + " |")
    last = results[-1]
    print("\n| from the largest, in proportion | " + " | ".join(f"{stars:,} stars" for stars in FAR) + " |")
    print("|---|" + "---:|" * len(FAR))
    for name, each in (
        ("disk (GB)", last["bytes per star on disk: all"] / 1e9),
        ("memory of an instance (GB)", last["bytes per star in memory"] / 1e9),
        (
            "memory of a start without a cache (GB)",
            last["bytes per star in memory, at most, in a start without a cache"] / 1e9,
        ),
        ("start without a cache (min)", last["start without a cache (s)"] / last["stars"] / 60),
        ("start with a cache (s)", last["start with a cache (s)"] / last["stars"]),
        ("filling (h)", 1 / last["stars inserted per second"] / 3600),
    ):
        print(f"| {name} | " + " | ".join(f"{shown(each * stars)}" for stars in FAR) + " |")


if __name__ == "__main__":
    main()

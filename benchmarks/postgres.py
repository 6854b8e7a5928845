"""Size, speed and growth of the PostgreSQL store and its searches, as Markdown.

OMP_NUM_THREADS=1 python -m benchmarks.postgres [STARS ...]

Synthetic stars with 18 latents of unequal scales and a full covariance, in a server of its own with fsync on,
2 GB of shared buffers and 1 GB of maintenance memory. Each size is what the one before has grown to.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from index.pg_twin_index import PgTwinIndex
from index.postgres import PostgresStore
from index.star import Star
from index.twin_index import Filters, Twin
from tests.postgres import Postgres

MODEL, DIMENSION, K, FE_H_WITHIN, BATCH = "gaussdis@0123456789ab", 18, 10, 0.1, 1000
SCALES = np.geomspace(4, 0.5, DIMENSION)
SIZES, FAR = (10_000, 100_000, 1_000_000), (10**8, 10**9)
QUERIES, BEYOND = 100, 90_000_000


def batches(first: int, last: int) -> Iterator[list[Star]]:
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


def size(store: PostgresStore, what: str) -> int:
    return int(store.read(f"SELECT ({what})::bigint")[0][0])


def timed(search: Callable[[Star], list[Twin]], stars: list[Star]) -> tuple[float, float, list[list[str]]]:
    """p50 and p99 in milliseconds, and what was found."""
    search(stars[0])
    seconds, found = [], []
    for star in stars:
        start = time.perf_counter()
        twins = search(star)
        seconds.append(1e3 * (time.perf_counter() - start))
        found.append([twin.star_id for twin in twins])
    return float(np.percentile(seconds, 50)), float(np.percentile(seconds, 99)), found


def searcher(index: PgTwinIndex) -> Callable[[Star], list[Twin]]:
    def search(star: Star) -> list[Twin]:
        near = Filters((("fe_h", star.fe_h - FE_H_WITHIN, star.fe_h + FE_H_WITHIN),))
        return index.search(star.latent, K, near, star.star_id)

    return search


def measure(store: PostgresStore, before: int, stars: int) -> dict[str, float]:
    result: dict[str, float] = {"stars": stars}
    made, inserting = [], 0.0
    for batch in batches(before, stars):
        start = time.perf_counter()
        store.upsert(batch)
        inserting += time.perf_counter() - start
        made.append(batch[0])
    result["stars inserted per second"] = (stars - before) / inserting
    with store.connect() as connection:
        connection.execute("VACUUM ANALYZE")
    result["bytes per star: table"] = size(store, "pg_relation_size('stars')") / stars
    result["bytes per star: B-tree indexes"] = size(store, "pg_indexes_size('stars')") / stars
    plain = size(store, "pg_total_relation_size('stars')")
    result["bytes per star: all without HNSW"] = plain / stars
    generator = np.random.default_rng(stars)
    chosen = [made[place] for place in generator.integers(len(made), size=QUERIES)]
    p50, p99, truth = timed(searcher(PgTwinIndex(store, MODEL, DIMENSION)), chosen)
    result |= {"exact search p50 (ms)": p50, "exact search p99 (ms)": p99}
    start = time.perf_counter()
    approximate = PgTwinIndex(store, MODEL, DIMENSION, approximate=True)
    assert approximate.hnsw is not None
    approximate.hnsw.ready.wait()
    result["HNSW build (s)"] = time.perf_counter() - start
    result["bytes per star: HNSW"] = (size(store, "pg_total_relation_size('stars')") - plain) / stars
    p50, p99, found = timed(searcher(approximate), chosen)
    result |= {"HNSW search p50 (ms)": p50, "HNSW search p99 (ms)": p99}
    right = sum(len(set(one) & set(other)) for one, other in zip(truth, found, strict=True))
    result[f"HNSW finds of the true {K}"] = right / sum(map(len, truth))
    start = time.perf_counter()
    for batch in batches(BEYOND, BEYOND + 2 * BATCH):
        store.upsert(batch)
    result["stars inserted per second, with HNSW"] = 2 * BATCH / (time.perf_counter() - start)
    with store.connect() as connection:
        connection.execute("DELETE FROM stars WHERE star_id LIKE '2M9%'")
        connection.execute(f"DROP INDEX {approximate.hnsw.name}")
    return result


def main() -> None:
    sizes = [int(value) for value in sys.argv[1:]] or list(SIZES)
    server = Postgres(shared_buffers="2GB", maintenance_work_mem="1GB", max_wal_size="4GB")
    try:
        store = PostgresStore(server.create())
        version = store.read("SHOW server_version")[0][0]
        vector = store.read("SELECT extversion FROM pg_extension WHERE extname = 'vector'")[0][0]
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, PostgreSQL {version}, pgvector {vector}", flush=True
        )
        results = []
        for before, stars in zip([0, *sizes], sizes, strict=False):
            results.append(measure(store, before, stars))
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
        ("disk without HNSW (GB)", last["bytes per star: all without HNSW"] / 1e9),
        ("table, read by each exact search (GB)", last["bytes per star: table"] / 1e9),
        ("HNSW, to be held in memory (GB)", last["bytes per star: HNSW"] / 1e9),
        ("exact search (s)", last["exact search p50 (ms)"] / last["stars"] / 1e3),
        ("HNSW build (h), at the least", last["HNSW build (s)"] / last["stars"] / 3600),
        ("filling (h)", 1 / last["stars inserted per second"] / 3600),
    ):
        print(f"| {name} | " + " | ".join(f"{shown(each * stars)}" for stars in FAR) + " |")


if __name__ == "__main__":
    main()

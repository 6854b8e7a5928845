"""Time of the nearest-neighbour search against that of other libraries, on the same queries in the same run.

python -m benchmarks.search TABLE.md MODEL SURVEY [MODEL SURVEY ...] [--sizes N ...] [--methods NAME ...]

Every pair of a model and a survey without noise gives a catalogue (benchmarks/catalogue.py); the queries are
stars of it, which are not among their own results. Everything runs in one thread. A filter is [Fe/H] within
0.1 of the star. Wall times (p50, p99) are those of a user; `CPU` is the median of the processor time of one
query, which other work on the machine moves less. A batch is 256 queries at k = 10 without filter.
"""

import argparse
import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.catalogue import Catalogue
from index.search.nearest import Nearest
from model.bundle import load_model
from training.surveys.survey import Survey

QUERIES, BATCH, WITHIN = 200, 256, 0.1
GRAPHS_UP_TO = 1_000_000
"""Graphs of more stars than this take an hour and more to build, one thread: they are not built."""

TABLE_HEAD = "stars | method | build s | memory MB | k = 10: p50 | p99 | CPU | k = 100: p50 | p99 | CPU | "
TABLE_HEAD += "filter, k = 10: p50 | p99 | CPU | filter, k = 100: p50 | p99 | CPU | batch, each | recall@10"

Latents = NDArray[np.float32]
Rows = NDArray[np.int64]
Search = Callable[[Latents, int, Rows], Rows]
"""Rows (Q, k) nearest to latents (Q, D); those of the queries themselves are the last argument (Q,)."""


@dataclass
class Stars:
    """A catalogue: `latents` (N, D), `columns` (N, C) as `index.search.nearest` has them, and `ids`."""

    latents: Latents
    columns: NDArray[np.float64]
    ids: list[str]

    @property
    def fe_h(self) -> NDArray[np.float64]:
        """[Fe/H] (N,) in dex."""
        return self.columns[:, 2]


@dataclass
class Method:
    """A way to search, without and (if it has any) with the filter, and the object that does."""

    search: Search
    filtered: Search | None
    engine: object = field(repr=False)


def ours(stars: Stars) -> Method:
    nearest = Nearest(stars.latents.shape[1])
    nearest.update(stars.ids, stars.latents, stars.columns, [], 1)
    nearest.settle()

    def search(latents: Latents, k: int, own: Rows) -> Rows:
        found = [
            nearest.search(latent, k, (), stars.ids[row]) for latent, row in zip(latents, own, strict=True)
        ]
        return np.array([[int(star_id) for star_id in each.ids] for each in found])

    def filtered(latents: Latents, k: int, own: Rows) -> Rows:
        fe_h = stars.fe_h[own[0]]
        found = nearest.search(latents[0], k, [("fe_h", fe_h - WITHIN, fe_h + WITHIN)], stars.ids[own[0]])
        return np.array([[int(star_id) for star_id in found.ids]])

    return Method(search, filtered, nearest)


def _others(rows: Rows, k: int, own: Rows) -> Rows:
    """Rows (Q, k + 1) without the query's own, or without the last where it is not among them."""
    keep = rows != own[:, None]
    keep[keep.all(axis=1), -1] = False
    return rows[keep].reshape(len(rows), k)


def flat(stars: Stars) -> Method:
    index = faiss.IndexFlatL2(stars.latents.shape[1])
    index.add(stars.latents)

    def filtered(latents: Latents, k: int, own: Rows) -> Rows:
        allowed = np.abs(stars.fe_h - stars.fe_h[own[0]]) <= WITHIN
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits.size, faiss.swig_ptr(bits))
        found = index.search(latents, k + 1, params=faiss.SearchParameters(sel=selector))[1]
        return _others(found, k, own)

    return Method(lambda latents, k, own: _others(index.search(latents, k + 1)[1], k, own), filtered, index)


def faiss_hnsw(stars: Stars) -> Method:
    index = faiss.IndexHNSWFlat(stars.latents.shape[1], 32)
    index.hnsw.efSearch = 128
    index.add(stars.latents)
    return Method(lambda latents, k, own: _others(index.search(latents, k + 1)[1], k, own), None, index)


def kd_tree(stars: Stars) -> Method:
    tree = cKDTree(stars.latents, leafsize=32)
    return Method(lambda latents, k, own: _others(tree.query(latents, k + 1)[1], k, own), None, tree)


METHODS: dict[str, Callable[[Stars], Method]] = {
    "ours": ours,
    "faiss flat": flat,
    "scipy cKDTree": kd_tree,
    "faiss HNSW": faiss_hnsw,
}
GRAPHS = ("faiss HNSW",)


def memory() -> float:
    """Memory of this process in MB that no file backs."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def times(search: Search, stars: Stars, k: int, queries: Rows) -> str:
    """p50, p99 of the wall time and the median CPU time of one query, in ms."""
    wall, cpu = [], []
    for row in queries:
        latents, own = stars.latents[row : row + 1], np.array([row])
        start, used = time.perf_counter(), time.thread_time()
        search(latents, k, own)
        wall.append(time.perf_counter() - start)
        cpu.append(time.thread_time() - used)
    values = 1e3 * np.array([*np.quantile(wall, [0.5, 0.99]), np.median(cpu)])
    return " | ".join(f"{value:.2f}" for value in values)


def measured(name: str, stars: Stars, queries: Rows, truth: list[set[int]]) -> tuple[str, Method]:
    """A line of the table, and the method."""
    before, start = memory(), time.perf_counter()
    method = METHODS[name](stars)
    built, grown = time.perf_counter() - start, memory() - before
    cells = [f"{built:.1f}", f"{grown:.0f}"]
    cells += [times(method.search, stars, k, queries) for k in (10, 100)]
    for k in (10, 100):
        cells.append(" | | " if method.filtered is None else times(method.filtered, stars, k, queries))
    batch = np.resize(queries, BATCH)
    start = time.perf_counter()
    found = method.search(stars.latents[batch], 10, batch)
    cells.append(f"{1e3 * (time.perf_counter() - start) / BATCH:.2f}")
    right = [len(truth[row] & set(own.tolist())) / 10 for row, own in enumerate(found[: len(queries)])]
    cells.append(f"{np.mean(right):.3f}")
    return f"{len(stars.ids):.0e} | {name} | " + " | ".join(cells), method


def from_cache(method: Method, stars: Stars) -> str:
    """Seconds to write the cache, its size, and seconds until a search from it has returned."""
    nearest = method.engine
    assert isinstance(nearest, Nearest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache"
        start = time.perf_counter()
        nearest.save(path, "benchmark")
        written = time.perf_counter() - start
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            Nearest.load(path, "benchmark", nearest.dimension).search(stars.latents[0], 10)
            seconds.append(time.perf_counter() - start)
        size = path.stat().st_size / 1e6
    return (
        f"{len(stars.ids):.0e} stars: cache of {size:.0f} MB written in {written:.2f} s, "
        f"start and first search {np.median(seconds):.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        arguments.table.write_text("\n".join(lines) + "\n")

    names: list[str] = arguments.methods
    say(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, numpy {np.__version__}, scipy {version('scipy')}, "
        f"faiss {faiss.__version__}\n"
    )
    for model_path, survey_path in zip(arguments.pairs[::2], arguments.pairs[1::2], strict=True):
        model, survey = load_model(model_path), Survey.open(survey_path)
        catalogue = Catalogue.fit(model, survey)
        head = f"\n**{model.card.identity} on {survey_path.name}**, {model.card.latent_dim} dimensions, ms\n\n"
        say(f"{head}| {TABLE_HEAD} |\n{'|---' * (TABLE_HEAD.count('|') + 1)}|")
        starts = []
        for size in arguments.sizes:
            latents, parameters = catalogue.draw(size, 1)
            stars = Stars(
                latents,
                np.column_stack([parameters, np.full(size, 100.0), np.ones(size), np.zeros(size)]),
                [f"{row:09d}" for row in range(size)],
            )
            queries = np.random.default_rng(2).choice(size, QUERIES, replace=False)
            exact = flat(stars)
            truth = [set(row) for row in exact.search(latents[queries], 10, queries).tolist()]
            del exact
            for name in names:
                if name in GRAPHS and size > GRAPHS_UP_TO:
                    continue
                line, method = measured(name, stars, queries, truth)
                say(f"| {line} |")
                if name == "ours":
                    starts.append(from_cache(method, stars))
                del method
                gc.collect()
        say("\n" + "\n".join(f"- {line}" for line in starts))


if __name__ == "__main__":
    main()

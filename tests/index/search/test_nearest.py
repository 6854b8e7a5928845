"""The search against a plain one over the same rows: random operations, caches, threads."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index.search import cache as cache_files
from index.search import faiss_lists, nearest
from index.search.cache import CacheError
from index.search.faiss_lists import COLUMNS
from index.search.nearest import Nearest

DIMENSION = 3
IDS = st.sampled_from([f"S{i}" for i in range(40)] + ["a-much-longer-id"])
ROWS = st.tuples(
    IDS,
    st.tuples(*[st.integers(-3, 3)] * DIMENSION),
    st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, np.nan])] * len(COLUMNS)),
)
RANGES = st.lists(
    st.tuples(
        st.sampled_from(COLUMNS), st.sampled_from([-np.inf, 0.0, 1.0]), st.sampled_from([0.5, 1.0, np.inf])
    ),
    max_size=2,
)


def plain(rows, latent, k, ranges=(), without=None, max_distance=np.inf):
    """Distances and ids of the k nearest by sorting all."""
    distance = {
        star_id: float(np.linalg.norm(np.asarray(own, dtype=float) - np.asarray(latent, dtype=float)))
        for star_id, (own, columns) in rows.items()
        if star_id != without and all(low <= columns[COLUMNS.index(name)] <= high for name, low, high in ranges)
    }
    return sorted((d, i) for i, d in distance.items() if d <= max_distance)[:k]


def pairs(found):
    return list(zip(found.distances.tolist(), found.ids, strict=True))


def filled(count, dimension=DIMENSION, seed=1):
    """A search of `count` random rows, and the rows."""
    generator = np.random.default_rng(seed)
    latents = (generator.normal(size=(count, dimension)) * np.geomspace(10, 1, dimension)).astype(np.float32)
    columns = generator.uniform(size=(count, len(COLUMNS)))
    ids = [f"N{i:06d}" for i in range(count)]
    search = Nearest(dimension)
    search.update(ids, latents, columns, [], 1)
    return search, dict(zip(ids, zip(latents, columns, strict=True), strict=True))


@pytest.fixture(autouse=True)
def soon_a_tree(monkeypatch):
    """Trees from fewer rows on than in use."""
    monkeypatch.setattr(nearest, "RECENT", 8192)


@pytest.fixture
def small_trees(monkeypatch):
    """Lists, rounds and segments of a few rows, so that few rows make many."""
    for name, value in {"LIST": 4, "ROUND": 2, "RECENT": 6, "GROWTH": 2}.items():
        monkeypatch.setattr(nearest if name in ("RECENT", "GROWTH") else faiss_lists, name, value)


class Operations(RuleBasedStateMachine):
    """Small integer latents make ties common."""

    def __init__(self):
        super().__init__()
        self.search_ = Nearest(DIMENSION)
        self.rows = {}
        self.seq = 0

    @rule(rows=st.lists(ROWS, max_size=12), removed=st.lists(IDS, max_size=4))
    def update(self, rows, removed):
        self.seq += 1
        self.search_.update(
            [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], removed, self.seq
        )
        for star_id in removed:
            self.rows.pop(star_id, None)
        self.rows.update({star_id: (latent, columns) for star_id, latent, columns in rows})

    @rule()
    def settle(self):
        self.search_.settle()

    @rule()
    def remove_all(self):
        self.search_.update(
            [], np.zeros((0, DIMENSION)), np.zeros((0, len(COLUMNS))), list(self.rows), self.seq
        )
        self.rows = {}

    @rule()
    def restart(self):
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            self.search_.save(Path(folder) / "c", "m@1")
            self.search_ = Nearest.load(Path(folder) / "c", "m@1", DIMENSION)

    @rule(
        latent=st.tuples(*[st.integers(-3, 3)] * DIMENSION),
        k=st.integers(1, 50),
        ranges=RANGES,
        without=IDS | st.none(),
        max_distance=st.sampled_from([0.0, 1.0, 2.5, np.inf]),
    )
    def search(self, latent, k, ranges, without, max_distance):
        found = self.search_.search(np.array(latent, dtype=np.float32), k, ranges, without, max_distance)
        assert pairs(found) == plain(self.rows, latent, k, ranges, without, max_distance)

    @invariant()
    def counts(self):
        assert len(self.search_) == len(self.rows)
        assert self.search_.seq == self.seq


@pytest.mark.usefixtures("small_trees")
def test_random_operations():
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Operations)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_large_against_plain(offset):
    """Three trees and rows beside them; also far from the origin, where single precision is coarse."""
    generator = np.random.default_rng(5)
    search, rows = filled(60_000, 12)
    search.settle()
    ids = list(rows)
    latents = np.stack([own for own, _ in rows.values()]) + np.float32(offset)
    columns = np.stack([own for _, own in rows.values()])
    search.update(ids, latents, columns, [], 2)
    search.settle()
    for part in (slice(0, 5000), slice(3000, 6000), slice(9000, 9100)):
        latents[part] += np.float32(0.25)
        search.update(ids[part], latents[part], columns[part], [], 3)
        search.settle()
    remaining = np.ones(len(ids), dtype=bool)
    remaining[::7] = False
    search.update([], latents[:0], columns[:0], ids[::7], 4)
    assert len(search) == remaining.sum()
    for number in range(24):
        query = latents[number * 2400] + np.float32(0.1) * generator.normal(size=12).astype(np.float32)
        low = generator.uniform(0, 0.9)
        ranges = [("fe_h", low, low + 0.1), ("snr", 0.0, 0.7)] if number % 2 else []
        allowed = remaining.copy()
        if ranges:
            allowed &= (columns[:, 2] >= low) & (columns[:, 2] <= low + 0.1) & (columns[:, 3] <= 0.7)
        distance = np.sqrt(np.square(latents.astype(float) - query.astype(float)).sum(axis=1))
        distance[~allowed] = np.inf
        for k in (1, 10, 300):
            order = np.argsort(distance, kind="stable")[:k]
            found = search.search(query, k, ranges)
            assert found.ids == [ids[row] for row in order]
            np.testing.assert_allclose(found.distances, distance[order], rtol=1e-14)


def test_duplicates_and_k_beyond_the_catalogue():
    search = Nearest(DIMENSION)
    ids = [f"T{i:05d}" for i in np.random.default_rng(3).permutation(20_000)]
    search.update(ids, np.ones((20_000, DIMENSION), np.float32), np.zeros((20_000, len(COLUMNS))), [], 1)
    search.settle()
    found = search.search(np.zeros(DIMENSION, np.float32), 5, without="T00001")
    assert found.ids == ["T00000", "T00002", "T00003", "T00004", "T00005"]
    assert len(search.search(np.ones(DIMENSION, np.float32), 30_000).ids) == 20_000


def test_nothing_to_find():
    search = Nearest(DIMENSION)
    query = np.zeros(DIMENSION, np.float32)
    assert search.search(query, 3).ids == []
    search, rows = filled(20_000)
    search.settle()
    search.update([], np.zeros((0, DIMENSION)), np.zeros((0, len(COLUMNS))), [*rows, "unknown"], 2)
    search.settle()
    assert len(search) == 0
    assert search.search(query, 3).ids == []
    assert search.sample(np.random.default_rng(1), 5).ids == []


def test_extreme_latents_are_still_ordered():
    search = Nearest(1)
    values = [-1e15, -1e12, -1e-30, 0.0, 1e-30, 1.0, 1e12, 1e15]
    search.update(
        [f"{v:g}" for v in values], np.array(values, np.float32)[:, None], np.zeros((8, len(COLUMNS))), [], 1
    )
    assert search.search(np.zeros(1, np.float32), 4).ids == ["0", "-1e-30", "1e-30", "1"]
    assert search.search(np.full(1, 1e15, np.float32), 3).ids == ["1e+15", "1e+12", "1"]


@pytest.mark.parametrize("latent", [[np.nan, 0, 0], [0, 0]])
def test_latents_must_be_numbers(latent):
    search = Nearest(DIMENSION)
    with pytest.raises(ValueError, match="latent"):
        search.search(np.array(latent, dtype=np.float32), 1)
    with pytest.raises(ValueError, match=r"latents|reshape"):
        search.update(["a"], np.array([latent]), np.zeros((1, len(COLUMNS))), [], 1)


def test_a_sample_is_of_the_rows_that_are_there():
    search, rows = filled(20_000)
    search.settle()
    ids = list(rows)
    search.update([], np.zeros((0, DIMENSION)), np.zeros((0, len(COLUMNS))), ids[:5000], 2)
    latents = np.stack([rows[star_id][0] for star_id in ids[5000:6000]]) + 1000
    search.update([f"X{i}" for i in range(1000)], latents, np.zeros((1000, len(COLUMNS))), [], 3)
    there = {star_id: rows[star_id] for star_id in ids[5000:]}
    there |= {f"X{i}": (latent, np.zeros(len(COLUMNS))) for i, latent in enumerate(latents)}
    sample = search.sample(np.random.default_rng(1), 8000)
    assert len(set(sample.ids)) == len(sample.ids) == 8000
    for star_id, latent, columns in zip(sample.ids, sample.latents, sample.columns, strict=True):
        assert np.array_equal(latent, there[star_id][0])
        assert np.array_equal(columns, there[star_id][1])
    assert np.mean(sample.latents[:, 0] > 500) == pytest.approx(1 / 16, rel=0.2)
    assert set(search.sample(np.random.default_rng(1), 50_000).ids) == set(there)


@pytest.fixture
def cache(tmp_path):
    search, rows = filled(20_000)
    search.settle()
    ids = list(rows)
    search.update(["new"], np.zeros((1, DIMENSION)), np.zeros((1, len(COLUMNS))), ids[:10], 77)
    path = tmp_path / "cache"
    search.save(path, "m@1")
    return path, search


def test_a_cache_holds_the_rows_and_can_be_written_on(cache):
    path, search = cache
    loaded = Nearest.load(path, "m@1", DIMENSION)
    assert (len(loaded), loaded.seq) == (len(search), 77)
    query = np.full(DIMENSION, 0.3, np.float32)
    assert pairs(loaded.search(query, 50)) == pairs(search.search(query, 50))
    for each in (loaded, search):
        each.update(
            ["N000500", "new"], np.full((2, DIMENSION), 0.3), np.zeros((2, len(COLUMNS))), ["N000011"], 78
        )
    assert pairs(loaded.search(query, 50)) == pairs(search.search(query, 50))
    loaded.save(path, "m@1")
    again = Nearest.load(path, "m@1", DIMENSION)
    assert (again.seq, pairs(again.search(query, 50))) == (78, pairs(search.search(query, 50)))
    assert [file.name for file in path.parent.iterdir()] == ["cache"]


def test_a_damaged_cache_is_refused(cache):
    path, _ = cache
    whole = path.read_bytes()
    for size in (0, 10, 27, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CacheError):
            Nearest.load(path, "m@1", DIMENSION)
    for offset in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 16]) + whole[offset + 1 :])
        with pytest.raises(CacheError):
            Nearest.load(path, "m@1", DIMENSION)
    path.write_bytes(whole + b"0")
    with pytest.raises(CacheError, match="cannot read"):
        Nearest.load(path, "m@1", DIMENSION)


def test_a_cache_of_something_else_is_refused(cache, monkeypatch):
    path, search = cache
    with pytest.raises(CacheError, match="of model m@1"):
        Nearest.load(path, "m@2", DIMENSION)
    with pytest.raises(CacheError, match="3 dimensions"):
        Nearest.load(path, "m@1", 4)
    with pytest.raises(CacheError, match="cannot read"):
        Nearest.load(path.with_name("none"), "m@1", DIMENSION)
    arrays, about = cache_files.read_cache(path)
    cut = {name: array[:4] if name.endswith(".columns") else array for name, array in arrays.items()}
    for other in ({**about, "columns": list(COLUMNS[:4])}, {k: v for k, v in about.items() if k != "columns"}):
        cache_files.write_cache(path, cut, other)
        with pytest.raises(CacheError, match="other columns"):
            Nearest.load(path, "m@1", DIMENSION)
    monkeypatch.setattr(cache_files, "FORMAT", "another")
    with pytest.raises(CacheError, match="no cache of this version"):
        Nearest.load(path, "m@1", DIMENSION)


def test_what_a_cache_holds_stays_in_the_file(cache):
    """So that all processes share it."""
    path, _ = cache
    loaded = Nearest.load(path, "m@1", DIMENSION)
    mapped = [
        line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
    ]
    (segment,) = loaded._state.segments
    for address in (
        int(segment.index.invlists.get_codes(0)),
        segment.columns.ctypes.data,
        segment.ids.ctypes.data,
        segment.order.ctypes.data,
    ):
        inside = [
            access for place, access in mapped if address in range(*(int(end, 16) for end in place.split("-")))
        ]
        assert inside == ["r--s"]
    path.unlink()  # as when another process has written a newer one
    assert len(loaded.search(np.zeros(DIMENSION), 5).ids) == 5


def test_a_failed_save_leaves_the_old_cache(cache, monkeypatch):
    path, search = cache
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(cache_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        search.save(path, "m@1")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["cache"]


def test_searches_beside_writes_see_whole_states(monkeypatch):
    """Each update moves all moving rows at once: a search must find all of them at one step, and all others."""
    monkeypatch.setattr(nearest, "RECENT", 300)
    search, rows = filled(2000)
    fixed = [star_id for _, star_id in plain(rows, (0.0, 0.0, 0.0), 3000)]
    moving = [f"M{i:03d}" for i in range(100)]
    done = 0
    failures = []
    stop = threading.Event()

    def position(step):
        return np.full((len(moving), DIMENSION), 1000.0 + step, dtype=np.float32)

    search.update(moving, position(0), np.zeros((len(moving), len(COLUMNS))), [], 0)

    def write():
        nonlocal done
        for step in range(1, 150):
            search.update(moving, position(step), np.zeros((len(moving), len(COLUMNS))), [f"T{step - 1}"], step)
            search.update([f"T{step}"], np.full((1, DIMENSION), -1000.0), np.zeros((1, len(COLUMNS))), [], step)
            done = step
        stop.set()

    def read():
        try:
            while not stop.is_set():
                before = done
                everything = pairs(search.search(np.zeros(DIMENSION, np.float32), 5000))
                after = done + 1
                assert [star_id for _, star_id in everything if star_id[0] == "N"] == fixed
                moved = [pair for pair in everything if pair[1][0] == "M"]
                assert [star_id for _, star_id in moved] == moving
                steps = {round(distance / np.sqrt(3), 3) - 1000 for distance, _ in moved}
                assert len(steps) == 1
                assert before <= steps.pop() <= after
                old = [int(star_id[1:]) for _, star_id in everything if star_id[0] == "T"]
                assert len(old) <= 1
                assert all(before <= step <= after for step in old)
                near = search.search(np.full(DIMENSION, 2000.0, np.float32), 5)
                assert near.ids == moving[:5]
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=read) for _ in range(3)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    search.settle()
    assert len(search) == 2101

"""The index against a plain search over the same stars, on random operations."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from index.sqlite import SqliteStore
from index.star import Star
from index.twin_index import Filters, Search, TwinIndex

DIMENSION = 3
IDS = st.sampled_from([f"S{i}" for i in range(12)])
VALUES = st.integers(-3, 3)


def star(star_id, latent, teff=4500.0, snr=100.0, model="m@1") -> Star:
    return Star(star_id, model, np.array(latent, dtype=np.float32), None, teff, 2.0, 0.0, snr=snr)


def plain(stars, latent, k, teff_max, without):
    """Ids and distances of the k nearest by sorting all."""
    distance = {
        s.star_id: float(np.linalg.norm(s.latent.astype(float) - np.asarray(latent, dtype=float)))
        for s in stars.values()
        if s.model == "m@1" and s.teff <= teff_max and s.star_id != without
    }
    return sorted(((d, i) for i, d in distance.items()))[:k]


class Operations(RuleBasedStateMachine):
    """Small integer latents make ties common."""

    @initialize()
    def start(self):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "s.sqlite"
        self.store = SqliteStore(self.path)
        self.other = SqliteStore(self.path)
        self.index = TwinIndex(self.store, "m@1", DIMENSION)
        self.stars = {}

    @rule(star_id=IDS, latent=st.tuples(VALUES, VALUES, VALUES), teff=st.sampled_from([4000.0, 4500.0, 5000.0]))
    def upsert(self, star_id, latent, teff):
        new = star(star_id, latent, teff)
        assert self.index.upsert([new]) == [star_id in self.stars]
        self.stars[star_id] = new

    @rule(star_id=IDS, latent=st.tuples(VALUES, VALUES, VALUES))
    def upsert_elsewhere(self, star_id, latent):
        self.stars[star_id] = star(star_id, latent)
        self.other.upsert([self.stars[star_id]])

    @rule(star_id=IDS)
    def upsert_with_another_model(self, star_id):
        self.stars[star_id] = star(star_id, (0,) * 7, model="m@2")
        self.other.upsert([self.stars[star_id]])

    @rule(star_id=IDS)
    def delete(self, star_id):
        assert self.index.delete(star_id) == (self.stars.pop(star_id, None) is not None)

    @rule(
        latent=st.tuples(VALUES, VALUES, VALUES),
        k=st.integers(1, 15),
        teff_max=st.sampled_from([3000.0, 4000.0, 4500.0, 9000.0]),
        without=IDS | st.none(),
    )
    def search(self, latent, k, teff_max, without):
        filters = Filters((("teff", -np.inf, teff_max),))
        found = self.index.search(np.array(latent, dtype=np.float32), k, filters, without)
        assert [(t.distance, t.star_id) for t in found] == plain(self.stars, latent, k, teff_max, without)

    @rule()
    def restart(self):
        self.index = TwinIndex(self.store, "m@1", DIMENSION)

    @invariant()
    def counts(self):
        self.index.catch_up()
        assert len(self.index) == sum(s.model == "m@1" for s in self.stars.values())

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.other.close()
            self.folder.cleanup()


TestOperations = Operations.TestCase
TestOperations.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def large(tmp_path):
    generator = np.random.default_rng(1)
    stars = [
        star(f"S{i:05d}", generator.normal(size=DIMENSION), generator.uniform(4000, 5000)) for i in range(6000)
    ]
    store = SqliteStore(tmp_path / "s.sqlite")
    index = TwinIndex(store, "m@1", DIMENSION)
    index.upsert(stars)
    yield index, stars
    index.close()
    store.close()


def test_a_narrow_filter_still_finds_k_stars(large):
    index, stars = large
    query = np.zeros(DIMENSION, np.float32)
    filters = Filters((("teff", 4100.0, 4110.0),))
    expected = sum(4100 <= s.teff <= 4110 for s in stars)
    assert len(index.search(query, 1000, filters)) == expected
    assert len(index.search(query, 10, filters)) == 10
    assert all(t.distance <= 0.5 for t in index.search(query, 1000, Filters(max_distance=0.5)))


def test_stars_outside_the_domain_can_be_left_out(tmp_path):
    """As many as are asked for come back, though none of the nearest 3,000 passes."""
    generator = np.random.default_rng(5)
    latents = np.sort(generator.normal(size=3030).astype(np.float32) ** 2)
    store = SqliteStore(tmp_path / "s.sqlite")
    index = TwinIndex(store, "m@1", 1)
    outside = [replace(star(f"O{i:05d}", latents[[i]]), in_domain=False) for i in range(3000)]
    index.upsert([*outside, *(star(f"I{i:05d}", latents[[i]]) for i in range(3000, 3030))])
    query = np.zeros(1, np.float32)
    inside = Filters((("in_domain", 1.0, 1.0),))
    assert [twin.star_id for twin in index.search(query, 20, inside)] == [
        f"I{i:05d}" for i in range(3000, 3020)
    ]
    assert len(index.search(query, 100, inside)) == 30
    assert index.search(query, 20)[0].star_id == "O00000"
    index.upsert([star("O00000", latents[[0]])])
    assert index.search(query, 1, inside)[0].star_id == "O00000", "since it was embedded again"
    index.close()
    again = TwinIndex(store, "m@1", 1)
    assert len(again.search(query, 100, inside)) == 31
    store.close()


def test_several_searches_at_once_find_what_each_finds(large):
    index, stars = large
    limits = [Filters(), Filters((("teff", 4100.0, 4200.0),)), Filters(max_distance=0.3)]
    searches = [Search(s.latent, limit, s.star_id) for s, limit in zip(stars, limits, strict=False)]
    expected = [index.search(s.latent, 20, s.filters, s.without) for s in searches]
    assert index.search_batch(searches, 20) == expected
    assert index.search_batch([], 20) == []


def test_ties_beyond_the_first_fetch_are_ordered_by_id(tmp_path):
    """200 stars at one place and more around."""
    generator = np.random.default_rng(3)
    ids = [f"T{i:03d}" for i in generator.permutation(200)]
    store = SqliteStore(tmp_path / "s.sqlite")
    index = TwinIndex(store, "m@1", DIMENSION)
    index.upsert(
        [star(star_id, (1, 0, 0)) for star_id in ids] + [star(f"U{i}", (2 + i, 0, 0)) for i in range(50)]
    )
    found = index.search(np.zeros(DIMENSION, np.float32), 5)
    assert [t.star_id for t in found] == ["T000", "T001", "T002", "T003", "T004"]
    store.close()


def test_a_catalogue_replaced_twice_is_right(large):
    index, stars = large
    for shift in (1, 2):
        stars = [star(s.star_id, s.latent + shift, s.teff) for s in stars]
        index.upsert(stars)
    query = stars[7].latent
    expected = plain({s.star_id: s for s in stars}, query, 20, 9000, None)
    found = index.search(query, 20)
    assert [t.star_id for t in found] == [star_id for _, star_id in expected]
    assert [t.distance for t in found] == pytest.approx([d for d, _ in expected])


def caches(index: TwinIndex) -> list[Path]:
    return list(index.store.path.parent.glob("*.cache"))


def reopened(index: TwinIndex, model: str = "m@1") -> TwinIndex:
    return TwinIndex(SqliteStore(index.store.path), model, DIMENSION)


@pytest.fixture
def cached(large):
    """An index whose cache is written, and then left behind by some more writes."""
    index, stars = large
    index.catch_up()
    index.close()
    assert len(caches(index)) == 1
    moved = [star(s.star_id, s.latent + 1, s.teff) for s in stars[:50]]
    index.upsert([*moved, star("new", (9, 9, 9))])
    index.delete(stars[60].star_id)
    now = {s.star_id: s for s in [*stars, *moved, star("new", (9, 9, 9))]}
    del now[stars[60].star_id]
    return index, now


def right(index: TwinIndex, now: dict[str, Star]) -> bool:
    query = np.array([0.3, -0.2, 1.0], dtype=np.float32)
    expected = plain(now, query, 1000, 9000, None)
    found = index.search(query, 1000)
    return [t.star_id for t in found] == [star_id for _, star_id in expected] and len(index) == len(now)


def test_a_cache_is_taken_up_and_caught_up(cached, monkeypatch):
    index, now = cached
    read = []
    changes = SqliteStore.changes
    monkeypatch.setattr(SqliteStore, "changes", lambda *given: read.append(changes(*given)) or read[-1])
    assert right(reopened(index), now)
    assert sum(map(len, read)) == 52, "the start read more than what the cache had not seen"


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "foreign", "gone", "a folder"])
def test_a_harmed_cache_never_stops_the_start(cached, harm):
    index, now = cached
    (path,) = caches(index)
    content = path.read_bytes()
    path.unlink()
    if harm == "a folder":
        path.mkdir()
    elif harm != "gone":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(
            {"cut": content[:-100], "flipped": flipped, "empty": b"", "foreign": b"x" * 9999}[harm]
        )
    assert right(reopened(index), now)


def test_the_cache_of_another_model_is_not_taken(cached):
    index, _ = cached
    assert len(reopened(index, "other@1")) == 0


def test_the_cache_of_what_was_the_store_before_an_older_copy_came_back_is_not_taken(cached, tmp_path):
    index, now = cached
    older = SqliteStore(tmp_path / "older.sqlite")
    older.upsert([star("only", (1, 2, 3))])
    older.close()
    index.store.close()
    for name in ("s.sqlite-wal", "s.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "older.sqlite", index.store.path)
    assert right(reopened(index), {"only": star("only", (1, 2, 3))})


def test_what_stays_written_half_is_neither_read_nor_in_the_way(cached):
    index, now = cached
    (path,) = caches(index)
    path.with_name(path.name + "abc.partial").write_bytes(b"half")
    assert right(reopened(index), now)


def test_doppelganger_rates_are_those_of_random_pairs(large):
    index, stars = large
    latents = np.stack([s.latent for s in stars])
    generator = np.random.default_rng(9)
    pairs = generator.integers(len(stars), size=(2, 400_000))
    truth = np.mean(np.linalg.norm(latents[pairs[0]] - latents[pairs[1]], axis=1) <= 0.5)
    index.catch_up()
    rates = index.doppelganger_rates([0.0, 0.5, 100.0])
    assert rates == pytest.approx([0, truth, 1], rel=0.05, abs=1e-9)


def test_small_catalogues_have_no_rate(tmp_path):
    store = SqliteStore(tmp_path / "s.sqlite")
    index = TwinIndex(store, "m@1", DIMENSION)
    index.upsert([star(f"S{i}", (i, 0, 0)) for i in range(999)])
    index.catch_up()
    assert index.doppelganger_rates([1.0]) is None
    index.upsert([star("S999", (1, 1, 1))])
    index.catch_up()
    assert index.doppelganger_rates([1.0]) is not None
    store.close()


@pytest.mark.parametrize("name", ["st[a]rs.sqlite", "*.sqlite", "s?.sqlite", "s#%.sqlite", "stars"])
def test_a_cache_is_found_whatever_the_store_s_name(tmp_path, monkeypatch, name):
    path = tmp_path / "fold[e]r*" / name
    generator = np.random.default_rng(1)
    index = TwinIndex(SqliteStore(path), "m@1", DIMENSION)
    index.upsert([star(f"S{i:05d}", generator.normal(size=DIMENSION)) for i in range(1500)])
    index.catch_up()
    index.close()
    assert len(caches(index)) == 1
    monkeypatch.setattr(SqliteStore, "changes", lambda *_: pytest.fail("the cache was not read"))
    assert len(reopened(index)) == 1500


def test_stores_that_differ_in_suffix_have_caches_of_their_own(tmp_path):
    generator = np.random.default_rng(1)
    for name in ("stars.sqlite", "stars.db", "stars"):
        index = TwinIndex(SqliteStore(tmp_path / name), "m@1", DIMENSION)
        index.upsert([star(f"S{i:05d}", generator.normal(size=DIMENSION)) for i in range(1500)])
        index.catch_up()
        index.close()
        index.store.close()
    assert len(caches(index)) == 3

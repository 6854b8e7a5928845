"""The search over either store: what it finds, how it catches up, and its cache."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from index.search.doppelganger_rates import RATE_PAIRS
from index.search.faiss_lists import Segment
from index.search.twin_index import Filters, Search, TwinIndex
from index.stores.sql_store import Store
from index.stores.sqlite import SqliteStore
from index.stores.star import STAR_TABLE, Star
from tests.index.stars import DIMENSION, in_threads, star


def plain(stars, latent, k, low=-np.inf, high=np.inf):
    """Ids and distances of the k nearest by sorting all, with teff in a range."""
    distances = [
        (float(np.linalg.norm(one.latent.astype(float) - np.asarray(latent, dtype=float))), one.star_id)
        for one in stars
        if low <= one.teff <= high
    ]
    return sorted(distances)[:k]


def random_stars(count: int) -> list[Star]:
    generator = np.random.default_rng(1)
    latents, teffs = generator.normal(size=(count, DIMENSION)), generator.uniform(4000, 5000, count)
    return [star(f"S{row:05d}", latents[row], teffs[row], snr=100.0) for row in range(count)]


@pytest.fixture
def open_index(open_stores, tmp_path):
    """Opens searches, each over a store of its own; stores of one name are the same."""
    opened = []

    def open_one(name="stars", model="m@1", dimension=DIMENSION) -> TwinIndex:
        opened.append(TwinIndex(open_stores(name), model, dimension, tmp_path / "caches"))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def index(open_index) -> TwinIndex:
    return open_index()


@pytest.fixture
def large(tmp_path):
    """Enough stars for a search that does not read them all; over one store, since both are searched alike."""
    store, stars = SqliteStore(tmp_path / "s.sqlite"), random_stars(6000)
    index = TwinIndex(store, "m@1", DIMENSION, tmp_path)
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


@pytest.mark.parametrize("width", [0.1, 1, 10, 100, 1000])
@pytest.mark.parametrize("k", [10, 300])
def test_filters_cost_no_neighbours(large, width, k):
    index, stars = large
    query = np.array([0.5, -0.5, 1], np.float32)
    low, high = 4500 - width, 4500 + width
    found = index.search(query, k, Filters((("teff", low, high),)))
    expected = plain(stars, query, k, low, high)
    assert [twin.star_id for twin in found] == [star_id for _, star_id in expected]
    assert [twin.distance for twin in found] == pytest.approx([distance for distance, _ in expected])


def test_several_searches_at_once_find_what_each_finds(large):
    index, stars = large
    limits = [Filters(), Filters((("teff", 4100.0, 4200.0),)), Filters(max_distance=0.3)]
    searches = [Search(s.latent, limit, s.star_id) for s, limit in zip(stars, limits, strict=False)]
    expected = [index.search(s.latent, 20, s.filters, s.without) for s in searches]
    assert index.search_batch(searches, 20) == expected
    assert index.search_batch([], 20) == []


def test_a_catalogue_replaced_twice_is_right(large):
    index, stars = large
    for shift in (1, 2):
        stars = [star(s.star_id, s.latent + shift, s.teff) for s in stars]
        index.upsert(stars)
    query = stars[7].latent
    expected = plain(stars, query, 20)
    found = index.search(query, 20)
    assert [t.star_id for t in found] == [star_id for _, star_id in expected]
    assert [t.distance for t in found] == pytest.approx([d for d, _ in expected])


def test_stars_outside_the_domain_can_be_left_out(open_index):
    """As many as are asked for come back, though none of the nearest 3,000 passes."""
    generator = np.random.default_rng(5)
    latents = np.sort(generator.normal(size=3030).astype(np.float32) ** 2)
    index = open_index(dimension=1)
    outside = [dataclasses.replace(star(f"O{i:05d}", latents[[i]]), in_domain=False) for i in range(3000)]
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
    again = open_index(dimension=1)
    assert len(again.search(query, 100, inside)) == 31


def test_ties_beyond_the_first_fetch_are_ordered_by_id(index):
    """200 stars with one latent, and more around."""
    ids = [f"T{i:03d}" for i in np.random.default_rng(3).permutation(200)]
    index.upsert(
        [star(star_id, (1, 0, 0)) for star_id in ids] + [star(f"U{i}", (2 + i, 0, 0)) for i in range(50)]
    )
    found = index.search(np.zeros(DIMENSION, np.float32), 5)
    assert [t.star_id for t in found] == ["T000", "T001", "T002", "T003", "T004"]


def test_what_one_instance_has_written_every_next_search_finds(open_index):
    indexes = [open_index() for _ in range(3)]

    def client(name):
        for i in range(15):
            star_id, latent = f"{name}-{i}", np.array([name, i, 0], dtype=np.float32)
            indexes[name % 3].upsert([star(star_id, latent)])
            for index in indexes:
                assert index.search(latent, 1)[0].star_id == star_id
                assert star_id in index.store.get([star_id], "m@1")
            if i % 3 == 0:
                indexes[(name + 1) % 3].delete(star_id)
                assert all(index.search(latent, 1, Filters(max_distance=0.1)) == [] for index in indexes)

    in_threads(*[lambda name=name: client(name) for name in range(4)])
    assert [len(index) for index in indexes] == [40, 40, 40]


def test_a_sample_is_bounded_and_whole(index):
    empty = index.sample(10)
    assert (empty.ids, empty.latents.shape, empty.columns.shape) == (
        [],
        (0, DIMENSION),
        (0, len(STAR_TABLE.searched)),
    )
    stars = {
        f"S{i}": star(f"S{i}", (i, -i, 1), 4000.0 + i, snr=None if i % 7 == 0 else 50.0, in_domain=i % 2 == 0)
        for i in range(6000)
    }
    index.upsert(list(stars.values()))
    index.upsert([star("OTHER", (0, 0, 0), model="n@1")])
    before = index.written()
    index.delete("S0")
    assert index.written() > before
    everything = index.sample(100_000)
    assert sorted(everything.ids) == sorted(set(stars) - {"S0"})
    index._nearest.settle()  # a segment that is built meanwhile changes the order of rows
    some = index.sample(600)
    assert index.sample(600).ids == some.ids
    assert 200 < len(some.ids) < 1200
    for star_id, latent, columns in zip(some.ids, some.latents, some.columns, strict=True):
        own = stars[star_id]
        assert np.array_equal(latent, own.latent)
        assert columns[0] == own.teff
        assert np.isnan(columns[3]) == (own.snr is None)
        assert columns[4] == own.in_domain


def caches(index: TwinIndex) -> list[Path]:
    return list(index.folder.glob("*.cache"))


@pytest.fixture
def cached(index):
    """An index whose cache is written, and then left behind by some more writes; and all its stars."""
    stars = random_stars(1500)
    index.upsert(stars)
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
    expected = plain(now.values(), query, 1000)
    found = index.search(query, 1000)
    return [t.star_id for t in found] == [star_id for _, star_id in expected] and len(index) == len(now)


def test_a_cache_is_taken_up_and_caught_up(cached, open_index, monkeypatch):
    _, now = cached
    read = []
    changes = Store.changes
    monkeypatch.setattr(Store, "changes", lambda *given: read.append(changes(*given)) or read[-1])
    assert right(open_index(), now)
    assert sum(map(len, read)) == 52, "the start read more than what the cache had not seen"


def test_a_start_with_a_cache_builds_no_segment(large, tmp_path, monkeypatch):
    index, stars = large
    index.catch_up()
    index.close()
    built = []
    monkeypatch.setattr(Segment, "build", lambda *rows: built.append(rows))
    again = TwinIndex(index.store, "m@1", DIMENSION, tmp_path)
    again._nearest.settle()
    assert not built
    assert right(again, {one.star_id: one for one in stars})


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "foreign", "gone", "a folder"])
def test_a_harmed_cache_never_stops_the_start(cached, open_index, harm):
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
    assert right(open_index(), now)


def test_the_cache_of_another_model_is_not_taken(cached, open_index):
    assert len(open_index(model="other@1")) == 0


def test_the_cache_of_another_store_is_not_taken(cached, open_index):
    assert len(open_index("elsewhere")) == 0


def test_the_cache_of_what_was_the_store_before_an_older_copy_came_back_is_not_taken(
    cached, open_index, open_stores, addresses
):
    index, now = cached
    older = open_stores("older")
    older.upsert([star("only", (1, 2, 3))])
    older.close()
    index.store.close()
    addresses.copy("older", "stars")
    assert right(open_index(), {"only": star("only", (1, 2, 3))})


def test_the_cache_of_a_later_state_is_not_taken_when_a_copy_of_before_comes_back(
    index, open_index, open_stores, addresses
):
    """The copy has the opening in which the cache was written, and by now as many writes."""
    index.upsert(random_stars(100))
    index.store.close()
    open_stores("before").close()
    addresses.copy("stars", "before")
    later = open_index()
    later.upsert(random_stars(1500))
    later.catch_up()
    later.close()
    assert len(caches(later)) == 1
    later.store.close()
    addresses.copy("before", "stars")
    store = open_stores()
    for _ in range(3):
        store.upsert([star(s.star_id, s.latent, 1.0) for s in random_stars(600)])
    again = open_index()
    assert right(again, {s.star_id: s for s in random_stars(600)})
    assert again.search(np.zeros(DIMENSION, np.float32), 1, Filters((("teff", 1.0, 1.0),))) != []


def test_what_stays_written_half_is_neither_read_nor_in_the_way(cached, open_index):
    index, now = cached
    (path,) = caches(index)
    path.with_name(path.name + "abc.partial").write_bytes(b"half")
    assert right(open_index(), now)


def test_a_folder_that_cannot_be_made_costs_no_search(store, tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    index = TwinIndex(store, "m@1", DIMENSION, tmp_path / "file" / "caches")
    stars = random_stars(1500)
    index.upsert(stars)
    assert right(index, {s.star_id: s for s in stars})
    index.close()
    assert "cannot write the cache" in caplog.text


@pytest.mark.parametrize("name", ["st[a]rs.sqlite", "*.sqlite", "s?.sqlite", "s#%.sqlite", "stars"])
def test_a_cache_is_found_whatever_the_file_s_name(tmp_path, monkeypatch, name):
    path = tmp_path / "fold[e]r*" / name
    index = TwinIndex(SqliteStore(path), "m@1", DIMENSION, path.parent)
    index.upsert(random_stars(1500))
    index.catch_up()
    index.close()
    assert [cache.name.startswith(f"{name}-") for cache in caches(index)] == [True]
    monkeypatch.setattr(Store, "changes", lambda *_: pytest.fail("the cache was not read"))
    assert len(TwinIndex(SqliteStore(path), "m@1", DIMENSION, path.parent)) == 1500


def test_stores_that_differ_in_suffix_have_caches_of_their_own(tmp_path):
    for name in ("stars.sqlite", "stars.db", "stars"):
        index = TwinIndex(SqliteStore(tmp_path / name), "m@1", DIMENSION, tmp_path)
        index.upsert(random_stars(1500))
        index.catch_up()
        index.close()
        index.store.close()
    assert len(caches(index)) == 3


def test_doppelganger_rates_are_those_of_random_pairs(index):
    latents = np.random.default_rng(1).normal(size=(4000, DIMENSION)).astype(np.float32)
    index.upsert([star(f"S{i:05d}", latent) for i, latent in enumerate(latents)])
    index.catch_up()
    pairs = np.random.default_rng(9).integers(len(latents), size=(2, 400_000))
    truth = np.mean(np.linalg.norm(latents[pairs[0]] - latents[pairs[1]], axis=1) <= 0.5)
    error = np.sqrt(truth * (1 - truth) * (1 / pairs.shape[1] + 1 / RATE_PAIRS))
    assert index.doppelganger_rates([0.0, 0.5, 100.0]) == [0, pytest.approx(truth, abs=5 * error), 1]
    index.upsert([star(f"S{i:05d}", (0, 0, 0)) for i in range(200)])
    index.catch_up()
    assert index.doppelganger_rates([0.0]) == [0], "not yet more than 5 % of changes"
    index.upsert([star(f"S{i:05d}", (0, 0, 0)) for i in range(200, 410)])
    index.catch_up()
    truth = 410 * 409 / (4000 * 3999)
    error = np.sqrt(truth * (1 - truth) / RATE_PAIRS)
    assert index.doppelganger_rates([0.0]) == [pytest.approx(truth, abs=5 * error)]


def test_small_catalogues_have_no_rate(index):
    index.upsert([star(f"S{i}", (i, 0, 0)) for i in range(999)])
    index.catch_up()
    assert index.doppelganger_rates([1.0]) is None
    index.upsert([star("S999", (1, 1, 1))])
    index.catch_up()
    assert index.doppelganger_rates([1.0]) is not None

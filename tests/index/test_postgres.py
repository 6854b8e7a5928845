"""The PostgreSQL store and its search: the same answers as SQLite's, with many writers, and after a kill."""

import dataclasses
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from index.open_index import Approximate, open_index

from index.errors import StoreError
from index.open_store import open_store
from index.star import Star
from index.twin_index import Filters, Search
from tests.postgres import PASSWORD, Postgres

DIMENSION = 3
MODELS = ("m@1", "m@2")
IDS = st.sampled_from(["A", "B", "a", "a-1", "a.1", "a:1", "Z", "_", "é", "zz", "S1", "S10", "S2"])
"""Their bytes' order is none of a language's."""
PLACES = st.tuples(*[st.integers(-2, 2)] * DIMENSION)
NUMBERS = st.sampled_from([4000.0, 4500.0, 5000.0])


def star(star_id, latent=(0, 0, 0), teff=4500.0, model="m@1", **fields) -> Star:
    return Star(star_id, model, np.array(latent, dtype=np.float32), None, teff, 2.0, 0.0, **fields)


@st.composite
def stars(draw):
    latent = draw(PLACES)
    covariance = np.eye(DIMENSION, dtype=np.float32) * draw(st.integers(1, 9)) if draw(st.booleans()) else None
    new = star(
        draw(IDS), latent, draw(NUMBERS), draw(st.sampled_from(MODELS)), snr=draw(st.none() | st.just(80.0))
    )
    return dataclasses.replace(
        new,
        covariance=covariance,
        in_domain=draw(st.booleans()),
        meta=draw(st.sampled_from([{}, {"a": "\0é", "b": [1]}])),
    )


def same(first: Star, second: Star) -> bool:
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        for field in dataclasses.fields(Star)
    )


class BothStores(RuleBasedStateMachine):
    """The same operations on two connections to either store; every answer must be the same."""

    server: Postgres

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.url = self.server.create()
        places = str(Path(self.folder.name) / "s.sqlite"), self.url
        self.pairs = [tuple(open_store(place) for place in places) for _ in range(2)]
        self.indexes = [tuple(open_index(store, "m@1", DIMENSION) for store in pair) for pair in self.pairs]
        self.seen = [0, 0]
        self.views: list[dict[str, Star]] = [{}, {}]
        self.kept: list[list[tuple[Star, bytes | None]]] = [[], []]

    def both(self, act, which=0):
        sqlite, postgres = (act(store) for store in self.pairs[which])
        assert sqlite == postgres
        return sqlite

    @rule(
        new=st.lists(stars(), min_size=1, max_size=6),
        spectrum=st.sampled_from([None, b"x", b"y"]),
        which=st.sampled_from([0, 1]),
    )
    def upsert(self, new, spectrum, which):
        self.both(lambda store: store.upsert(new, [spectrum] * len(new)), which)

    @rule(star_id=IDS, which=st.sampled_from([0, 1]))
    def delete(self, star_id, which):
        self.both(lambda store: store.delete(star_id), which)

    @rule(after=IDS | st.just(""), limit=st.integers(1, 5), pick=st.integers(0, 3), between=IDS)
    def another_model_moves_in(self, after, limit, pick, between):
        def move(store):
            waiting = store.waiting("m@2", after, limit)
            if pick == 0:
                store.delete(between)
            beside = [star(kept.star.star_id, (9, 9, 9), model="m@2") for kept in waiting]
            written = store.add_beside(beside, [kept.seq for kept in waiting])
            return [(kept.star.star_id, kept.star.model, kept.spectrum) for kept in waiting], written

        self.both(move)

    @rule(model=st.sampled_from(MODELS))
    def drop_other_models(self, model):
        self.both(lambda store: store.drop_other_models(model))

    @rule()
    def dump(self):
        self.kept = [list(store.dump()) for store in self.pairs[0]]
        first, second = self.kept
        assert [(one.star_id, one.model, spectrum) for one, spectrum in first] == [
            (one.star_id, one.model, spectrum) for one, spectrum in second
        ]
        assert all(same(one, other) for (one, _), (other, _) in zip(first, second, strict=True))

    @rule()
    def restore(self):
        written = [store.restore(kept) for store, kept in zip(self.pairs[0], self.kept, strict=True)]
        assert written[0] == written[1] == len(self.kept[0])

    @rule(
        latent=PLACES,
        k=st.integers(1, 15),
        teff_max=st.sampled_from([3000.0, 4000.0, 4500.0, np.inf]),
        snr_min=st.sampled_from([None, -np.inf, 90.0]),
        in_domain=st.sampled_from([None, 0.0, 1.0]),
        max_distance=st.sampled_from([np.inf, 0.0, 1.0, 2.0]),
        without=IDS | st.none(),
    )
    def search(self, latent, k, teff_max, snr_min, in_domain, max_distance, without):
        ranges = [("teff", -np.inf, teff_max)] + ([] if snr_min is None else [("snr", snr_min, np.inf)])
        ranges += [] if in_domain is None else [("in_domain", in_domain, in_domain)]
        filters = Filters(tuple(ranges), max_distance)
        for pair in self.indexes:
            first, second = (
                index.search(np.array(latent, dtype=np.float32), k, filters, without) for index in pair
            )
            assert first == second
            one = Search(np.array(latent, dtype=np.float32), filters, without)
            assert all(index.search_batch([one, one], k) == [first, first] for index in pair)

    @rule(
        ids=st.lists(IDS, max_size=5),
        after=IDS | st.just(""),
        limit=st.integers(1, 20),
        prefix=IDS.map(lambda star_id: star_id[:1]) | st.just(""),
    )
    def read(self, ids, after, limit, prefix):
        for model in MODELS:
            first, second = (store.get(ids, model) for store in self.pairs[1])
            assert first.keys() == second.keys()
            assert all(same(first[star_id], second[star_id]) for star_id in first)
            first, second = (store.page(after, limit, model, prefix) for store in self.pairs[1])
            assert len(first) == len(second)
            assert all(map(same, first, second))

    @rule(limit=st.integers(1, 4))
    def follow_changes(self, limit):
        """What a reader makes of the changes; the seqs themselves may differ."""
        for store, which in zip(self.pairs[1], (0, 1), strict=True):
            while changes := store.changes("m@1", self.seen[which], limit):
                assert [change.seq for change in changes] == sorted({change.seq for change in changes})
                self.seen[which] = changes[-1].seq
                for change in changes:
                    self.views[which].pop(change.star_id, None)
                    if change.latent is not None:
                        self.views[which][change.star_id] = (tuple(change.latent), change.teff, str(change.snr))
            assert store.last_seq() >= self.seen[which]
        assert self.views[0] == self.views[1]

    @invariant()
    def counts(self):
        for pair in self.indexes:
            for index in pair:
                index.catch_up()
            assert len(pair[0]) == len(pair[1])

    def teardown(self):
        if hasattr(self, "pairs"):
            for store in (store for pair in self.pairs for store in pair):
                store.close()
            self.server.drop(self.url)
            self.folder.cleanup()


def test_both_stores_answer_the_same(postgres):
    from hypothesis.stateful import run_state_machine_as_test

    BothStores.server = postgres
    run_state_machine_as_test(
        BothStores,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.fixture
def url(postgres_places):
    return postgres_places("stars")


@pytest.fixture
def open_stores(url):
    stores = []

    def opened():
        stores.append(open_store(url))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_stores):
    return open_stores()


def in_threads(*acts) -> None:
    """Run all at once; the first error is raised here."""
    errors = []

    def run(act):
        try:
            act()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_durability_is_asked_for(store):
    assert store.read("SHOW synchronous_commit") == [("on",)]


def test_several_instances_may_make_the_schema_at_once(postgres):
    for _ in range(3):
        url = postgres.create()
        in_threads(*[lambda url=url: open_store(url).close()] * 6)
        postgres.drop(url)


def test_what_was_answered_for_is_in_every_instance_s_next_answer(open_stores):
    instances = [open_stores() for _ in range(3)]
    indexes = [open_index(store, "m@1", DIMENSION) for store in instances]

    def client(name):
        for i in range(15):
            star_id, place = f"{name}-{i}", np.array([name, i, 0], dtype=np.float32)
            indexes[name % 3].upsert([star(star_id, place)])
            for index, store in zip(indexes, instances, strict=True):
                assert index.search(place, 1)[0].star_id == star_id
                assert star_id in store.get([star_id], "m@1")
            if i % 3 == 0:
                indexes[(name + 1) % 3].delete(star_id)
                assert all(index.search(place, 1, Filters(max_distance=0.1)) == [] for index in indexes)

    in_threads(*[lambda name=name: client(name) for name in range(4)])
    assert [len(index) for index in indexes] == [40, 40, 40]


def test_who_follows_the_seqs_misses_nothing(open_stores):
    """Readers poll while writers of several instances commit: seqs appear in order, none later than a greater."""
    done, missed = threading.Event(), []
    written = [open_stores() for _ in range(3)]

    def write(number, store):
        for i in range(40):
            store.upsert([star(f"{number}-{i}-{j}", (i, j, 0)) for j in range(1 + i % 3)])
            if i % 5 == 4:
                store.delete(f"{number}-{i}-0")

    def follow(store):
        seen, view = 0, set()
        while True:
            last_round = done.is_set()
            while changes := store.changes("m@1", seen, 7):
                for change in changes:
                    (view.discard if change.latent is None else view.add)(change.star_id)
                seen = changes[-1].seq
            if last_round:
                break
        truth = {s.star_id for s in store.page("", 10_000, "m@1")}
        missed.append(truth ^ view)

    followers = [threading.Thread(target=follow, args=(open_stores(),)) for _ in range(2)]
    for thread in followers:
        thread.start()
    in_threads(*[lambda n=n, s=s: write(n, s) for n, s in enumerate(written)])
    done.set()
    for thread in followers:
        thread.join()
    assert missed == [set(), set()]
    assert len(open_index(written[0], "m@1", DIMENSION)) == len(written[0].page("", 10_000, "m@1")) == 213


def test_a_sample_of_the_table_is_bounded_and_whole(open_stores):
    store = open_stores()
    index = open_index(store, "m@1", DIMENSION)
    empty = index.sample(10)
    assert (empty.ids, empty.latents.shape, empty.columns.shape) == ([], (0, DIMENSION), (0, 5))
    stars = {
        f"S{i}": star(f"S{i}", (i, -i, 1), 4000.0 + i, snr=None if i % 7 == 0 else 50.0, in_domain=i % 2 == 0)
        for i in range(6000)
    }
    store.upsert(list(stars.values()))
    store.upsert([star("OTHER", (0, 0, 0), model="n@1")])
    before = index.written()
    store.delete("S0")
    assert index.written() > before
    everything = index.sample(100_000)
    assert sorted(everything.ids) == sorted(set(stars) - {"S0"})
    some = index.sample(600)
    assert index.sample(600).ids == some.ids
    assert 200 < len(some.ids) < 1200
    for star_id, latent, columns in zip(some.ids, some.latents, some.columns, strict=True):
        own = stars[star_id]
        assert np.array_equal(latent, own.latent)
        assert columns[0] == own.teff
        assert np.isnan(columns[3]) == (own.snr is None)
        assert columns[4] == own.in_domain


WRITER = """
import sys
import numpy as np
from index.open_store import open_store
from index.star import Star
store = open_store(sys.argv[1])
for i in range(100_000):
    latent = np.array([i, 0, 0], dtype=np.float32)
    store.upsert([Star(f"{sys.argv[2]}-{i:06d}", "m@1", latent, None, 4500.0, 2.0, 0.0)])
    print(i, flush=True)
"""


@pytest.mark.slow
def test_a_killed_server_comes_back_with_all_that_was_answered_for():
    """SIGKILL under two writing processes, several times; our store goes on without a restart."""
    server = Postgres()
    try:
        url = server.create()
        store = open_store(url)
        index = open_index(store, "m@1", DIMENSION)
        for life in range(3):
            writers = [
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, url, f"L{life}-{n}"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                for n in range(2)
            ]
            for writer in writers:
                assert [next(writer.stdout) for _ in range(5)][-1] == "4\n"
            time.sleep(0.1 * life)
            server.kill()
            answered = [4 + len(writer.communicate()[0].splitlines()) for writer in writers]
            assert [writer.returncode for writer in writers] == [1, 1]
            with pytest.raises(StoreError, match="cannot read the store"):
                store.get(["A"], "m@1")
            with pytest.raises(StoreError, match="cannot write to the store"):
                store.upsert([star("A")])
            server.start()
            for n, last in enumerate(answered):
                ids = [f"L{life}-{n}-{i:06d}" for i in range(last + 1)]
                assert store.get(ids, "m@1").keys() == set(ids)
            assert store.upsert([star(f"L{life}", (life, 7, 7))]) == [False]
            assert index.search(np.array([life, 7, 7], np.float32), 1)[0].star_id == f"L{life}"
            assert len(index) == len(store.page("", 100_000, "m@1"))
        store.close()
    finally:
        server.stop()


def test_a_server_that_ends_idle_connections_is_not_noticed(postgres, store):
    store.upsert([star("A")])
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    time.sleep(0.2)
    assert store.upsert([star("A")]) == [True]


def test_what_cannot_be_opened_is_told_without_the_password(postgres, url):
    secret = "dont%2Ftell"
    _, _, address = url.rpartition("@")
    for bad, told in (
        (f"postgresql://postgres:{secret}@{address}", "password authentication failed"),
        (f"postgresql://nobody:{secret}@127.0.0.1:1/x", "Connection refused"),
        (
            f"postgresql://postgres:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{postgres.port}/none",
            "does not exist",
        ),
        ("postgresql://postgres:dont/tell@127.0.0.1/x", "special characters"),
        ("postgresql://postgres:dont%tell@127.0.0.1/x", "special characters"),
        ("postgres://postgres:dont@tell@127.0.0.1/x", "special characters"),
        ("postgresql://postgres:don?t#tell@127.0.0.1/x", "special characters"),
    ):
        with pytest.raises(StoreError, match=told) as raised:
            open_store(bad)
        assert "tell" not in str(raised.value)
        assert PASSWORD not in str(raised.value)


def test_another_database_is_left_alone(postgres, url):
    database = url.rpartition("/")[2]
    postgres.execute("CREATE TABLE stars (mine integer)", database)
    with pytest.raises(StoreError, match="table stars that is not a store's"):
        open_store(url)
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert tables.fetchall() == [("stars",)]


def test_a_store_of_another_version_is_left_alone(postgres, url):
    open_store(url).close()
    postgres.execute("UPDATE chemtwin SET version = 2", url.rpartition("/")[2])
    with pytest.raises(StoreError, match="not a store of version 1"):
        open_store(url)


def test_who_may_not_add_pgvector_is_told_what_to_do(postgres, url):
    database = url.rpartition("/")[2]
    postgres.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'", database)
    postgres.execute("GRANT ALL ON SCHEMA public TO plain", database)
    theirs = url.replace("postgres:" + PASSWORD.replace(" ", "%20"), "plain:plain")
    with pytest.raises(StoreError, match="CREATE EXTENSION vector"):
        open_store(theirs)
    postgres.execute("CREATE EXTENSION vector", database)
    open_store(theirs).close()
    postgres.execute("DROP OWNED BY plain", database)
    postgres.execute("DROP ROLE plain", database)


@pytest.mark.slow
def test_a_server_without_pgvector_is_told_of():
    server = Postgres(fsync="off")
    try:
        (server.installed / "share/postgresql/extension/vector.control").unlink()
        with pytest.raises(StoreError, match="no pgvector"):
            open_store(server.create())
    finally:
        server.stop()


def test_without_psycopg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "index.postgres", None)
    with pytest.raises(StoreError, match=r"chemtwin\[postgres\]"):
        open_store("postgresql://127.0.0.1/x")


@pytest.fixture(scope="module")
def large(postgres):
    """6,000 stars, their store, and the search by an HNSW index."""
    url = postgres.create()
    store = open_store(url)
    generator = np.random.default_rng(1)
    latents = generator.normal(size=(6000, DIMENSION)).astype(np.float32)
    irons = generator.uniform(-1, 1, 6000)
    those = [
        dataclasses.replace(star(f"S{i:05d}", latent), fe_h=float(iron))
        for i, (latent, iron) in enumerate(zip(latents, irons, strict=True))
    ]
    store.upsert(those)
    with store.connect() as connection:
        connection.execute("ANALYZE stars")
    index = open_index(store, "m@1", DIMENSION, approximate=True)
    assert index.hnsw.ready.wait(120)
    yield index, those, store
    store.close()
    postgres.drop(url)


def plain(those, latent, k, low=-np.inf, high=np.inf):
    """Ids of the k nearest by sorting all."""
    distance = [
        (float(np.linalg.norm(s.latent.astype(float) - latent)), s.star_id)
        for s in those
        if low <= s.fe_h <= high
    ]
    return [star_id for _, star_id in sorted(distance)[:k]]


@pytest.mark.parametrize("width", [1e-4, 1e-3, 1e-2, 0.1, 3])
@pytest.mark.parametrize("k", [10, 300])
def test_under_hnsw_filters_cost_no_answers(large, width, k):
    index, those, _ = large
    query = np.array([0.5, -0.5, 1], np.float32)
    truth = plain(those, query, k, -width, width)
    found = index.search(query, k, Filters((("fe_h", -width, width),)))
    assert len(found) == len(truth)
    assert len({twin.star_id for twin in found} & set(truth)) >= 0.95 * len(truth)
    if len(truth) < k:
        assert not isinstance(found, Approximate), "the scan gave up and an exact search answered"


def test_the_hnsw_index_is_used_and_the_answer_says_so(large):
    index, those, store = large
    query = those[5].latent
    scans = "SELECT sum(idx_scan) FROM pg_stat_all_indexes WHERE indexrelname = %s"
    before = store.read(scans, [index.hnsw.name])
    found = index.search(query, 10, without="S00005")
    assert isinstance(found, Approximate)
    assert "S00005" not in [twin.star_id for twin in found]
    deadline = time.monotonic() + 30
    while store.read(scans, [index.hnsw.name]) == before:  # the server counts with a delay
        assert time.monotonic() < deadline
        time.sleep(0.2)
    exact = open_index(store, "m@1", DIMENSION).search(query, 10)
    assert not isinstance(exact, Approximate)
    assert [twin.star_id for twin in exact] == plain(those, query, 10)


def test_what_is_written_later_is_in_the_hnsw_index_too(large):
    index, _, _ = large
    index.upsert([star("new", (20, 20, 20))])
    assert index.search(np.array([20, 20, 20], np.float32), 1)[0].star_id == "new"
    index.delete("new")
    assert index.search(np.array([20, 20, 20], np.float32), 1)[0].star_id != "new"


def test_two_instances_build_one_index_and_a_half_built_one_goes(open_stores):
    first, second = open_stores(), open_stores()
    first.upsert([star(f"S{i}", (i, 0, 0)) for i in range(100)])
    one = open_index(first, "m@1", DIMENSION, approximate=True)
    other = open_index(second, "m@1", DIMENSION, approximate=True)
    assert one.hnsw.ready.wait(60)
    assert other.hnsw.ready.wait(60)
    with first.connect() as connection:
        connection.execute(
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{one.hnsw.name}'::regclass"
        )
    third = open_index(second, "m@1", DIMENSION, approximate=True)
    assert third.hnsw.ready.wait(60)
    valid = first.read("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (one.hnsw.name,))
    assert valid == [(True,)]


def test_doppelganger_rates_are_those_of_random_pairs(store):
    latents = np.random.default_rng(1).normal(size=(4000, DIMENSION)).astype(np.float32)
    index = open_index(store, "m@1", DIMENSION)
    index.upsert([star(f"S{i:05d}", latent) for i, latent in enumerate(latents)])
    pairs = np.random.default_rng(9).integers(len(latents), size=(2, 400_000))
    truth = np.mean(np.linalg.norm(latents[pairs[0]] - latents[pairs[1]], axis=1) <= 0.5)
    assert index.doppelganger_rates([0.0, 0.5, 100.0]) == pytest.approx([0, truth, 1], rel=0.05, abs=1e-9)
    index.upsert([star(f"S{i:05d}", (0, 0, 0)) for i in range(40)])
    assert index.doppelganger_rates([0.0]) == [0], "not yet more than 1 % of changes"
    index.upsert([star(f"S{i:05d}", (0, 0, 0)) for i in range(40, 400)])
    assert index.doppelganger_rates([0.0])[0] == pytest.approx(0.01, rel=0.1)


def test_small_catalogues_have_no_rate(store):
    index = open_index(store, "m@1", DIMENSION)
    index.upsert([star(f"S{i}", (i, 0, 0)) for i in range(999)])
    assert index.doppelganger_rates([1.0]) is None
    index.upsert([star("S999", (1, 1, 1))])
    assert index.doppelganger_rates([1.0]) is not None


def test_ties_beyond_the_first_fetch_are_ordered_by_id(store):
    index = open_index(store, "m@1", DIMENSION)
    ids = [f"T{i:03d}" for i in np.random.default_rng(3).permutation(200)]
    index.upsert(
        [star(star_id, (1, 0, 0)) for star_id in ids] + [star(f"U{i}", (2 + i, 0, 0)) for i in range(50)]
    )
    found = index.search(np.zeros(DIMENSION, np.float32), 5)
    assert [twin.star_id for twin in found] == ["T000", "T001", "T002", "T003", "T004"]


def test_an_old_pgvector_cannot_approximate(store):
    with store.connect() as connection:
        connection.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    open_index(store, "m@1", DIMENSION)
    with pytest.raises(StoreError, match=r"needs pgvector 0\.8 or later"):
        open_index(store, "m@1", DIMENSION, approximate=True)


@pytest.mark.slow
def test_sqlite_needs_no_psycopg(tmp_path):
    code = (
        "import sys; from index.store import open_store; from index.open_index import open_index; "
        "open_index(open_store(sys.argv[1]), 'm@1', 3); assert 'psycopg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s.sqlite")], check=True)

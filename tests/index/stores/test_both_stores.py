"""SQLite, PostgreSQL and a plain search over the same stars, on random operations: all give the same."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from index.search.twin_index import Filters, Search, TwinIndex
from index.stores.open_store import open_store
from index.stores.sqlite import SqliteStore
from index.stores.star import Star, vectors
from tests.index.search.test_twin_index import plain
from tests.index.stars import DIMENSION, replaced, same, star
from tests.postgres import Postgres

MODELS = ("m@1", "m@2")
IDS = st.sampled_from(["A", "B", "a", "a-1", "a.1", "a:1", "Z", "_", "é", "zz", "S1", "S10", "S2"])
"""Their bytes' order is none of a language's."""
LATENTS = st.tuples(*[st.integers(-2, 2)] * DIMENSION)
"""Small integers make ties common."""
NUMBERS = st.sampled_from([4000.0, 4500.0, 5000.0])


@st.composite
def stars(draw):
    latent = draw(LATENTS)
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


class BothStores(RuleBasedStateMachine):
    """The same operations on two connections to either store; every result must be the same."""

    server: Postgres

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.url = self.server.create()
        folder = Path(self.folder.name)
        addresses = str(folder / "s.sqlite"), self.url
        self.pairs = [tuple(open_store(address) for address in addresses) for _ in range(2)]
        self.indexes = [
            tuple(TwinIndex(store, "m@1", DIMENSION, folder) for store in pair) for pair in self.pairs
        ]
        self.followed = [0, 0]
        self.views: list[dict[str, tuple]] = [{}, {}]
        self.dumps: list[list[tuple[Star, bytes | None]]] = [[], []]

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
            beside = [star(stored.star.star_id, (9, 9, 9), model="m@2") for stored in waiting]
            written = store.add_beside(beside, [stored.seq for stored in waiting])
            return [(stored.star.star_id, stored.star.model, stored.spectrum) for stored in waiting], written

        self.both(move)

    @rule(model=st.sampled_from(MODELS))
    def drop_other_models(self, model):
        self.both(lambda store: store.drop_other_models(model))

    @rule()
    def dump(self):
        self.dumps = [list(store.dump()) for store in self.pairs[0]]
        first, second = self.dumps
        assert [(one.star_id, one.model, spectrum) for one, spectrum in first] == [
            (one.star_id, one.model, spectrum) for one, spectrum in second
        ]
        assert all(same(one, other) for (one, _), (other, _) in zip(first, second, strict=True))

    @rule()
    def restore(self):
        written = [store.restore(rows) for store, rows in zip(self.pairs[0], self.dumps, strict=True)]
        assert written[0] == written[1] == len(self.dumps[0])

    @rule(
        latent=LATENTS,
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
        self.both(lambda store: store.stars_by_model(), 1)
        for model in MODELS:
            first, second = (store.get(ids, model) for store in self.pairs[1])
            assert first.keys() == second.keys()
            assert all(same(first[star_id], second[star_id]) for star_id in first)
            self.both(lambda store, model=model: store.briefs(ids, model), 1)
            first, second = (store.page(after, limit, model, prefix) for store in self.pairs[1])
            assert len(first) == len(second)
            assert all(map(same, first, second))

    @rule(limit=st.integers(1, 4))
    def follow_changes(self, limit):
        """What a reader makes of the changes; the seqs themselves may differ."""
        for store, which in zip(self.pairs[1], (0, 1), strict=True):
            while changes := store.changes("m@1", self.followed[which], limit):
                assert [change.seq for change in changes] == sorted({change.seq for change in changes})
                self.followed[which] = changes[-1].seq
                for change in changes:
                    self.views[which].pop(change.star_id, None)
                    if change.latent is not None:
                        latent = tuple(vectors([change.latent])[0])
                        self.views[which][change.star_id] = (latent, *change.searched)
            assert store.last_seq() >= self.followed[which]
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


def test_both_stores_give_the_same(postgres):
    BothStores.server = postgres
    run_state_machine_as_test(
        BothStores,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


class Operations(RuleBasedStateMachine):
    """The search against a plain one."""

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "s.sqlite"
        self.store = SqliteStore(self.path)
        self.other = SqliteStore(self.path)
        self.stars = {}
        self.restart()

    @rule(star_id=IDS, latent=LATENTS, teff=NUMBERS)
    def upsert(self, star_id, latent, teff):
        new = star(star_id, latent, teff)
        assert replaced(self.index.upsert([new])) == [star_id in self.stars]
        self.stars[star_id] = new

    @rule(star_id=IDS, latent=LATENTS)
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
        latent=LATENTS,
        k=st.integers(1, 15),
        teff_max=st.sampled_from([3000.0, 4000.0, 4500.0, 9000.0]),
        without=IDS | st.none(),
    )
    def search(self, latent, k, teff_max, without):
        filters = Filters((("teff", -np.inf, teff_max),))
        found = self.index.search(np.array(latent, dtype=np.float32), k, filters, without)
        eligible = [one for one in self.stars.values() if one.model == "m@1" and one.star_id != without]
        assert [(t.distance, t.star_id) for t in found] == plain(eligible, latent, k, high=teff_max)

    @rule()
    def restart(self):
        self.index = TwinIndex(self.store, "m@1", DIMENSION, self.path.parent)

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

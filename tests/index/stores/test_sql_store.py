"""What a store does, over SQLite and PostgreSQL."""

import dataclasses
import threading

import numpy as np
import pytest

from index.errors import StoreError
from index.stores.sky import Circle
from index.stores.star import Star, covariances_of, extra_of, latents_of
from tests.index.stars import in_threads, replaced


def star(star_id: str, seed: int = 0, **fields) -> Star:
    latent = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return Star(
        star_id, "m@1", latent, np.outer(latent, latent) + np.eye(4, dtype="f4"), 4500.0, 2.0, 0.1, **fields
    )


def test_a_star_comes_back_as_it_was(store):
    full = star(
        "A",
        snr=80.0,
        chi2=1.1,
        in_domain=False,
        warnings=("w",),
        ra=1.0,
        dec=-2.0,
        meta={"a": [1, "é"]},
        extra={"vbroad": 6.2},
    )
    assert replaced(store.upsert([full])) == [False]
    back = store.get(["A", "none"], "m@1")
    assert list(back) == ["A"]
    for name in Star.__dataclass_fields__:
        assert np.array_equal(getattr(back["A"], name), getattr(full, name)), name


def test_a_star_without_errors_has_no_covariance(store):
    bare = Star("B", "m@1", np.zeros(4, np.float32), None, 1.0, 1.0, 1.0)
    store.upsert([bare])
    assert store.get(["B"], "m@1")["B"].covariance is None


def test_the_briefs_of_several_stars_are_what_was_stored(store):
    several = [
        star(f"S{i}", i, snr=50.0 + i, ra=float(i), dec=-1.0, extra={"vbroad": 6.0 + i}) for i in range(3)
    ]
    bare = Star("B", "m@1", np.zeros(4, np.float32), None, 1.0, 1.0, 1.0)
    store.upsert([*several, bare, star("gone"), dataclasses.replace(star("other's"), model="old@1")])
    store.delete("gone")
    briefs = store.briefs(["S0", "S1", "S2", "B", "gone", "other's", "none"], "m@1")
    assert sorted(briefs) == ["B", "S0", "S1", "S2"]
    three = [briefs[one.star_id] for one in several]
    for name in ("star_id", "teff", "logg", "fe_h", "snr", "ra", "dec"):
        assert [getattr(brief, name) for brief in three] == [getattr(one, name) for one in several], name
    assert [extra_of(brief) for brief in three] == [one.extra for one in several]
    assert np.array_equal(latents_of(three), [one.latent for one in several])
    assert np.array_equal(covariances_of(three), [one.covariance for one in several])
    nothing = briefs["B"]
    assert (nothing.covariance, nothing.snr, nothing.ra, extra_of(nothing)) == (None, None, None, {})


def test_more_stars_than_one_statement_takes_are_read(store):
    store.upsert([star(f"S{i:04d}") for i in range(1100)])
    assert len(store.briefs([f"S{i:04d}" for i in range(1000)], "m@1")) == 1000


def test_replacing_is_reported(store):
    assert replaced(store.upsert([star("A"), star("B"), star("A", 1)])) == [False, False, True]
    assert replaced(store.upsert([star("B", 2)])) == [True]
    assert len(store.page("", 10, "m@1")) == 2
    assert np.array_equal(store.get(["A"], "m@1")["A"].latent, star("A", 1).latent)


def test_a_star_is_combined_with_the_one_that_it_replaces(store):
    def with_meta_of(new, old):
        return dataclasses.replace(new, meta=old.meta | new.meta)

    def write(stars, spectra):
        written = store.upsert(stars, spectra, with_meta_of)
        return [(one.star.meta, one.replaced, one.spectrum_deleted) for one in written]

    old = dataclasses.replace(star("A", 1, meta={"a": 1}), model="old@1")
    assert write([old, star("B", meta={"b": 1})], [b"a", b"b"]) == [
        ({"a": 1}, False, False),
        ({"b": 1}, False, False),
    ]
    assert write([star("A", 2, meta={"c": 1}), star("B")], [None, b"b2"]) == [
        ({"a": 1, "c": 1}, True, True),
        ({"b": 1}, True, False),
    ]
    assert store.get(["A"], "old@1")["A"].meta == {"a": 1, "c": 1}, "the other model's row is gone"
    assert [store.spectrum(star_id) for star_id in "AB"] == [None, b"b2"]
    twice = write([star("C", meta={"a": 1}), star("C", 3, meta={"b": 1})], [b"c", None])
    assert twice == [({"a": 1}, False, False), ({"a": 1, "b": 1}, True, True)]
    assert (store.get(["C"], "m@1")["C"].meta, store.spectrum("C")) == ({"a": 1, "b": 1}, None)


def test_a_deleted_star_is_gone_and_may_come_back(store):
    store.upsert([star("A")])
    assert store.delete("A")
    assert not store.delete("A")
    assert not store.delete("never")
    assert (store.get(["A"], "m@1"), store.page("", 10, "m@1")) == ({}, [])
    assert replaced(store.upsert([star("A")])) == [False]


def test_pages_follow_the_ids(store):
    store.upsert([star(f"S{i:02d}") for i in range(25)])
    first = store.page("", 10, "m@1")
    second = store.page(first[-1].star_id, 10, "m@1")
    assert [s.star_id for s in first + second] == [f"S{i:02d}" for i in range(20)]


def test_pages_of_a_prefix_hold_what_begins_so(store):
    ids = ["2M", "2M0", "2M00+1", "2M00-1", "2M0z", "2M1", "2m0", "A"]
    store.upsert([star(star_id) for star_id in ids])
    store.delete("2M0z")
    assert [s.star_id for s in store.page("", 10, "m@1", "2M0")] == ["2M0", "2M00+1", "2M00-1"]
    assert [s.star_id for s in store.page("2M00+1", 10, "m@1", "2M0")] == ["2M00-1"]
    assert [s.star_id for s in store.page("", 1, "m@1", "2M")] == ["2M"]
    assert store.page("", 10, "m@1", "2M00+11") == []


def test_a_stored_spectrum_can_be_asked_for(store):
    store.upsert([star("A"), star("B")], [b"spectrum", None])
    assert [store.spectrum(star_id) for star_id in ("A", "B", "C")] == [b"spectrum", None, None]
    store.delete("A")
    assert store.spectrum("A") is None


def test_changes_tell_another_process_everything_once(store, open_stores):
    other = open_stores()
    store.upsert([star("A"), star("B")])
    other.upsert([star("B", 5)])
    store.delete("A")
    changes = other.changes("m@1", 0)
    assert [(c.star_id, c.latent is None) for c in changes] == [("B", False), ("A", True)]
    assert changes[-1].seq == store.last_seq() == 4
    assert other.changes("m@1", changes[-1].seq) == []


def test_a_failed_write_leaves_nothing(store):
    with pytest.raises(StoreError):
        store.upsert([star("A"), star("B", meta={}, ra="x" * 10), star(None)])
    assert store.page("", 10, "m@1") == []
    assert replaced(store.upsert([star("A")])) == [False]


def by(model: str, star_id: str, seed: int = 0) -> Star:
    return dataclasses.replace(star(star_id, seed), model=model)


def test_another_model_moves_in_beside_and_the_old_one_goes(store):
    store.upsert([star("A"), star("B"), star("C")], [b"a", b"b", None])
    waiting = store.waiting("new@1", "", 10)
    assert [(stored.star.star_id, stored.spectrum) for stored in waiting] == [("A", b"a"), ("B", b"b")]
    assert [stored.star.star_id for stored in store.waiting("new@1", "A", 10)] == ["B"]
    store.upsert([star("B", 7)], [b"b2"])
    beside = [by("new@1", stored.star.star_id, 3) for stored in waiting]
    assert store.add_beside(beside, [stored.seq for stored in waiting]) == 1, "B was replaced meanwhile"
    assert [stored.spectrum for stored in store.waiting("new@1", "", 10)] == [b"b2"]
    assert store.get(["A"], "m@1")["A"].model == "m@1"
    assert store.get(["A"], "new@1")["A"].model == "new@1"
    assert store.get(["B"], "new@1")["B"].model == "m@1", "none of its own: the other model's row"
    assert [s.star_id for s in store.page("", 10, "new@1")] == ["A", "B", "C"]
    assert [change.star_id for change in store.changes("new@1", 0)] == ["A"]
    seq = store.last_seq()
    assert store.drop_other_models("new@1") == 1
    assert [(c.star_id, c.latent) for c in store.changes("m@1", seq)] == [("A", None)]
    assert store.get(["A"], "m@1")["A"].model == "new@1"


def test_a_star_that_is_replaced_or_deleted_loses_every_model_s_row(store):
    store.upsert([star("A"), star("B")], [b"a", b"b"])
    for stored in store.waiting("new@1", "", 10):
        store.add_beside([by("new@1", stored.star.star_id)], [stored.seq])
    seq = store.last_seq()
    assert replaced(store.upsert([star("A", 5)])) == [True]
    assert store.delete("B")
    assert {(c.star_id, c.latent is None) for c in store.changes("new@1", seq)} == {("A", True), ("B", True)}
    assert [(s.star_id, s.model) for s in store.page("", 10, "new@1")] == [("A", "m@1")]
    assert store.waiting("new@1", "", 10) == [], "their spectra went too"


def test_a_dump_is_of_one_moment_and_restores_elsewhere(store, open_stores):
    store.upsert([star(f"S{i}") for i in range(5)], [b"x", None, None, None, b"y"])
    rows = store.dump()
    first = next(rows)
    store.upsert([star("later")])
    store.delete("S4")
    stored = [first, *rows]
    assert [(s.star_id, spectrum) for s, spectrum in stored][-1] == ("S4", b"y")
    other = open_stores("other")
    other.upsert([star("S0", 9), star("elsewhere")])
    seq = other.last_seq()
    assert other.restore(stored) == 5
    assert [s.star_id for s in other.page("", 10, "m@1")] == [f"S{i}" for i in range(5)]
    assert np.array_equal(other.get(["S0"], "m@1")["S0"].latent, star("S0").latent)
    assert {c.star_id for c in other.changes("m@1", seq)} == {"elsewhere", *(f"S{i}" for i in range(5))}

    def broken():
        yield stored[0]
        raise OSError("the backup ends here")

    with pytest.raises(OSError, match="ends here"):
        other.restore(broken())
    assert len(other.page("", 10, "m@1")) == 5, "a backup that cannot be read changes nothing"


def test_stars_in_a_circle_on_the_sky(store):
    generator = np.random.default_rng(4)
    ra, dec = generator.uniform(0, 360, 3000), np.degrees(np.arcsin(generator.uniform(-1, 1, 3000)))
    store.upsert([star(f"S{row:04d}", ra=ra[row], dec=dec[row]) for row in range(3000)] + [star("nowhere")])
    store.delete("S0007")
    for circle in (Circle(10, 20, 15), Circle(359.5, -60, 20), Circle(77, 89, 12), Circle(0, 0, 180)):
        apart = circle.separation(ra, dec)
        expected = [f"S{row:04d}" for row in np.argsort(apart) if apart[row] <= circle.radius and row != 7]
        found = store.within(circle, 3000, "m@1")
        assert [one.star_id for one, _ in found] == expected
        np.testing.assert_allclose([away for _, away in found], np.sort(np.delete(apart, 7))[: len(found)])
        assert len(store.within(circle, 10, "m@1")) == 10
    assert store.within(Circle(0, 0, 1e-6), 10, "m@1") == []


def test_a_star_by_two_models_is_one_star_on_the_sky(store):
    store.upsert([star("A", ra=10.0, dec=20.0)])
    seq = store.changes("m@1", 0)[0].seq
    store.add_beside([dataclasses.replace(star("A", ra=10.0, dec=20.0), model="m@2")], [seq])
    ((found, _),) = store.within(Circle(10, 20, 1), 10, "m@2")
    assert found.model == "m@2"


def test_what_only_python_s_json_takes_is_stored(store):
    meta = {"source": "m\udcffller.fits", "lost": float("nan")}
    store.upsert([star("A", meta=meta)])
    back = store.get(["A"], "m@1")["A"].meta
    assert back["source"] == meta["source"]
    assert np.isnan(back["lost"])


def test_numbers_come_back_the_same_from_either_store(store):
    """SQLite has no NaN and no -0.0; PostgreSQL would give them back."""
    store.upsert([star("A", snr=float("nan"), ra=-0.0, dec=float("nan"))])
    back = store.get(["A"], "m@1")["A"]
    assert (back.snr, str(back.ra), back.dec) == (None, "0.0", None)
    assert store.restore(list(store.dump())) == 1


def test_an_id_that_no_star_may_have_ends_no_page(store):
    store.upsert([star("S"), star("S0")])
    assert [one.star_id for one in store.page("S\0", 10, "m@1")] == ["S0"]


def test_an_older_copy_does_not_remember_what_came_after_it(open_stores, addresses):
    store = open_stores()
    store.upsert([star("A")])
    early = store.moment()
    store.close()
    addresses.address("copy")
    addresses.copy("stars", "copy")
    store = open_stores()
    store.upsert([star("B")])
    late = store.moment()
    assert store.remembers(*early)
    assert store.remembers(*late)
    assert not store.remembers(late[0], late[1] + 1)
    older = open_stores("copy")
    older.upsert([star("C")])
    assert older.remembers(*early)
    assert not older.remembers(*late), "another star took this seq"


def test_who_follows_the_seqs_misses_nothing(open_stores):
    """Readers poll while writers of several instances commit: seqs appear in order, none later than a greater."""
    done, missed = threading.Event(), []
    written = [open_stores() for _ in range(3)]

    def write(number, store):
        for i in range(40):
            store.upsert([star(f"{number}-{i}-{j}", i) for j in range(1 + i % 3)])
            if i % 5 == 4:
                store.delete(f"{number}-{i}-0")

    def follow(store):
        last_seen, view = 0, set()
        while True:
            last_round, last = done.is_set(), store.last_seq()
            while changes := store.changes("m@1", last_seen, 7):
                for change in changes:
                    (view.discard if change.latent is None else view.add)(change.star_id)
                last_seen = changes[-1].seq
            assert last_seen >= last
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
    assert len(written[0].page("", 10_000, "m@1")) == 213


def test_a_damaged_row_is_named_and_the_store_goes_on(store):
    store.upsert([star(f"S{i:03d}") for i in range(800)])
    with store._transaction() as connection:
        connection.execute("UPDATE stars SET latent = ? WHERE star_id = 'S600'", (b"\1\2\3",))
    for read in (lambda: list(store.dump()), lambda: store.get(["S600"], "m@1"), lambda: rows_of(store)):
        with pytest.raises(StoreError, match="the row of S600 is damaged"):
            read()
        assert len(store.page("S7", 200, "m@1")) == 100
        assert replaced(store.upsert([star("S700")])) == [True]
    assert replaced(store.upsert([star("S600"), star("S700")])) == [True, True]
    assert len(list(store.dump())) == 800, "a star that is written again replaces a damaged row"


def rows_of(store):
    with store.snapshot() as rows:
        return list(rows("m@1"))

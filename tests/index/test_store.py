import dataclasses
import shutil
import sqlite3

import numpy as np
import pytest

from index.star import covariances_of, latents_of, others_of
from index.sky import Circle
from index.sqlite import SqliteStore
from index.errors import StoreError
from index.open_store import open_store
from index.star import Star


def star(star_id: str, seed: int = 0, **fields) -> Star:
    latent = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return Star(
        star_id, "m@1", latent, np.outer(latent, latent) + np.eye(4, dtype="f4"), 4500.0, 2.0, 0.1, **fields
    )


@pytest.fixture(params=["sqlite", "postgres"])
def open_places(request):
    """Opens stores: those of one name are the same."""
    places = request.getfixturevalue(f"{request.param}_places")
    stores = []

    def opened(name="stars"):
        stores.append(open_store(places(name)))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_places):
    return open_places()


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
        others={"vbroad": 6.2},
    )
    assert store.upsert([full]) == [False]
    back = store.get(["A", "none"], "m@1")
    assert list(back) == ["A"]
    for name in Star.__dataclass_fields__:
        assert np.array_equal(getattr(back["A"], name), getattr(full, name)), name


def test_a_star_without_errors_has_no_covariance(store):
    bare = Star("B", "m@1", np.zeros(4, np.float32), None, 1.0, 1.0, 1.0)
    store.upsert([bare])
    assert store.get(["B"], "m@1")["B"].covariance is None


def test_what_answers_tell_of_several_stars_is_what_was_stored(store):
    told = [star(f"S{i}", i, snr=50.0 + i, ra=float(i), dec=-1.0, others={"vbroad": 6.0 + i}) for i in range(3)]
    bare = Star("B", "m@1", np.zeros(4, np.float32), None, 1.0, 1.0, 1.0)
    store.upsert([*told, bare, star("gone"), dataclasses.replace(star("other's"), model="old@1")])
    store.delete("gone")
    briefs = store.briefs(["S0", "S1", "S2", "B", "gone", "other's", "none"], "m@1")
    assert sorted(briefs) == ["B", "S0", "S1", "S2"]
    three = [briefs[one.star_id] for one in told]
    for name in ("star_id", "teff", "logg", "fe_h", "snr", "ra", "dec"):
        assert [getattr(brief, name) for brief in three] == [getattr(one, name) for one in told], name
    assert [others_of(brief) for brief in three] == [one.others for one in told]
    assert np.array_equal(latents_of(three), [one.latent for one in told])
    assert np.array_equal(covariances_of(three), [one.covariance for one in told])
    nothing = briefs["B"]
    assert (nothing.covariance, nothing.snr, nothing.ra, others_of(nothing)) == (None, None, None, {})


def test_more_stars_than_one_statement_takes_are_told_of(store):
    store.upsert([star(f"S{i:04d}") for i in range(1100)])
    assert len(store.briefs([f"S{i:04d}" for i in range(1000)], "m@1")) == 1000


def test_replacing_is_told(store):
    assert store.upsert([star("A"), star("B"), star("A", 1)]) == [False, False, True]
    assert store.upsert([star("B", 2)]) == [True]
    assert len(store.page("", 10, "m@1")) == 2
    assert np.array_equal(store.get(["A"], "m@1")["A"].latent, star("A", 1).latent)


def test_a_deleted_star_is_gone_and_may_come_back(store):
    store.upsert([star("A")])
    assert store.delete("A")
    assert not store.delete("A")
    assert not store.delete("never")
    assert (store.get(["A"], "m@1"), store.page("", 10, "m@1")) == ({}, [])
    assert store.upsert([star("A")]) == [False]


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


def test_a_prefix_is_a_range_of_the_index(tmp_path):
    store = SqliteStore(tmp_path / "stars.sqlite")
    store.upsert([star(f"S{i:04d}") for i in range(3000)] + [star("Z1")])
    steps = []
    reader = store._idle_reader()
    reader.set_progress_handler(lambda: steps.append(1), 100)
    store._idle.append(reader)
    assert [s.star_id for s in store.page("", 8, "m@1", "Z")] == ["Z1"]
    assert len(store.page("S2990", 8, "m@1", "S29")) == 8
    assert store.page("", 8, "m@1", "ZZ") == []
    assert len(steps) < 50, "a look at every row takes 300"
    store.close()


def test_a_kept_spectrum_can_be_asked_for(store):
    store.upsert([star("A"), star("B")], [b"spectrum", None])
    assert [store.spectrum(star_id) for star_id in ("A", "B", "C")] == [b"spectrum", None, None]
    store.delete("A")
    assert store.spectrum("A") is None


def test_changes_tell_another_process_everything_once(store, open_places):
    other = open_places()
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
    assert store.upsert([star("A")]) == [False]


def test_durability_is_asked_for(tmp_path):
    store = SqliteStore(tmp_path / "stars.sqlite")
    connection = store._writer
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_corrupt_store_is_reported_and_left_alone(tmp_path, content):
    path = tmp_path / "stars.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"stars\.sqlite"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_another_database_is_left_alone(tmp_path):
    path = tmp_path / "stars.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="not a store"):
        SqliteStore(path)
    assert path.read_bytes() == content


OLD_SCHEMA = """
CREATE TABLE stars (
    star_id TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, deleted INTEGER NOT NULL DEFAULT 0,
    model TEXT, latent BLOB, covariance BLOB, teff REAL, logg REAL, fe_h REAL,
    snr REAL, chi2 REAL, masked_fraction REAL, in_domain INTEGER, warnings TEXT,
    ra REAL, dec REAL, meta TEXT, others TEXT
) WITHOUT ROWID
"""


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_earlier_version_is_taken_over(tmp_path, version):
    path = tmp_path / "stars.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(OLD_SCHEMA if version == 2 else OLD_SCHEMA.replace(", others TEXT", ""))
        connection.execute(f"PRAGMA user_version={version}")
        connection.execute("PRAGMA journal_mode=WAL")
        columns = "star_id, seq, model, latent, teff, logg, fe_h, in_domain, warnings, meta"
        values = ("old", 1, "m@1", np.arange(4, dtype="<f4").tobytes(), 4500.0, 2.0, 0.1, 1, "[]", "{}")
        connection.execute(f"INSERT INTO stars ({columns}) VALUES ({', '.join('?' * 10)})", values)
        connection.execute("INSERT INTO stars (star_id, seq, deleted) VALUES ('gone', 2, 1)")
    connection.close()
    for _ in range(2):
        store = SqliteStore(path)
        assert [old.star_id for old in store.page("", 10, "m@1") if old.star_id != "new"] == ["old"]
        old = store.get(["old"], "m@1")["old"]
        assert (old.others, old.teff, old.latent.tolist()) == ({}, 4500.0, [0, 1, 2, 3])
        store.upsert([star("new", others={"vbroad": 3.0})])
        assert store.get(["new"], "m@1")["new"].others == {"vbroad": 3.0}
        store.close()


def test_a_store_of_a_later_version_is_left_alone(tmp_path):
    path = tmp_path / "stars.sqlite"
    SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=4")
    connection.close()
    with pytest.raises(StoreError, match="not a store of version 1 to 3"):
        SqliteStore(path)


def by(model: str, star_id: str, seed: int = 0) -> Star:
    return dataclasses.replace(star(star_id, seed), model=model)


def test_another_model_moves_in_beside_and_the_old_one_goes(store):
    store.upsert([star("A"), star("B"), star("C")], [b"a", b"b", None])
    waiting = store.waiting("new@1", "", 10)
    assert [(kept.star.star_id, kept.spectrum) for kept in waiting] == [("A", b"a"), ("B", b"b")]
    assert [kept.star.star_id for kept in store.waiting("new@1", "A", 10)] == ["B"]
    store.upsert([star("B", 7)], [b"b2"])
    beside = [by("new@1", kept.star.star_id, 3) for kept in waiting]
    assert store.add_beside(beside, [kept.seq for kept in waiting]) == 1, "B was replaced meanwhile"
    assert [kept.spectrum for kept in store.waiting("new@1", "", 10)] == [b"b2"]
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
    for kept in store.waiting("new@1", "", 10):
        store.add_beside([by("new@1", kept.star.star_id)], [kept.seq])
    seq = store.last_seq()
    assert store.upsert([star("A", 5)]) == [True]
    assert store.delete("B")
    assert {(c.star_id, c.latent is None) for c in store.changes("new@1", seq)} == {("A", True), ("B", True)}
    assert [(s.star_id, s.model) for s in store.page("", 10, "new@1")] == [("A", "m@1")]
    assert store.waiting("new@1", "", 10) == [], "their spectra went too"


def test_a_dump_is_of_one_moment_and_restores_elsewhere(store, open_places):
    store.upsert([star(f"S{i}") for i in range(5)], [b"x", None, None, None, b"y"])
    rows = store.dump()
    first = next(rows)
    store.upsert([star("later")])
    store.delete("S4")
    kept = [first, *rows]
    assert [(s.star_id, spectrum) for s, spectrum in kept][-1] == ("S4", b"y")
    other = open_places("other")
    other.upsert([star("S0", 9), star("elsewhere")])
    seq = other.last_seq()
    assert other.restore(kept) == 5
    assert [s.star_id for s in other.page("", 10, "m@1")] == [f"S{i}" for i in range(5)]
    assert np.array_equal(other.get(["S0"], "m@1")["S0"].latent, star("S0").latent)
    assert {c.star_id for c in other.changes("m@1", seq)} == {"elsewhere", *(f"S{i}" for i in range(5))}

    def broken():
        yield kept[0]
        raise OSError("the backup ends here")

    with pytest.raises(OSError, match="ends here"):
        other.restore(broken())
    assert len(other.page("", 10, "m@1")) == 5, "a backup that cannot be read changes nothing"


def test_an_older_copy_does_not_remember_what_came_after_it(tmp_path):
    path, copy = tmp_path / "stars.sqlite", tmp_path / "copy.sqlite"
    store = SqliteStore(path)
    store.upsert([star("A")])
    early = store.moment()
    store.close()
    shutil.copy(path, copy)
    store = SqliteStore(path)
    store.upsert([star("B")])
    late = store.moment()
    assert store.remembers(*early)
    assert store.remembers(*late)
    assert not store.remembers(late[0], late[1] + 1)
    store.close()
    older = SqliteStore(copy)
    older.upsert([star("C")])
    assert older.remembers(*early)
    assert not older.remembers(*late), "another star took this seq"
    older.close()


def test_an_older_copy_made_while_the_store_was_open_is_told_apart(tmp_path):
    store = SqliteStore(tmp_path / "stars.sqlite")
    store.upsert([star("A")])
    copy = SqliteStore(tmp_path / "copy.sqlite")
    store._writer.backup(copy._writer)
    copy.close()
    store.upsert([star("B")])
    late = store.moment()
    older = SqliteStore(tmp_path / "copy.sqlite")
    older.upsert([star("C")])
    assert older.last_seq() == late[1]
    assert not older.remembers(*late)
    older.close()
    store.close()


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


def test_what_only_python_s_json_takes_is_kept(store):
    meta = {"source": "m\udcffller.fits", "lost": float("nan")}
    store.upsert([star("A", meta=meta)])
    back = store.get(["A"], "m@1")["A"].meta
    assert back["source"] == meta["source"]
    assert np.isnan(back["lost"])

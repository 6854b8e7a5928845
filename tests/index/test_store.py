import sqlite3

import numpy as np
import pytest

from index.store import SCHEMA, Star, Store, StoreError


def star(star_id: str, seed: int = 0, **fields) -> Star:
    latent = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return Star(
        star_id, "m@1", latent, np.outer(latent, latent) + np.eye(4, dtype="f4"), 4500.0, 2.0, 0.1, **fields
    )


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "stars.sqlite")
    yield store
    store.close()


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
    back = store.get(["A", "none"])
    assert list(back) == ["A"]
    for name in Star.__dataclass_fields__:
        assert np.array_equal(getattr(back["A"], name), getattr(full, name)), name


def test_a_star_without_errors_has_no_covariance(store):
    bare = Star("B", "m@1", np.zeros(4, np.float32), None, 1.0, 1.0, 1.0)
    store.upsert([bare])
    assert store.get(["B"])["B"].covariance is None


def test_replacing_is_told(store):
    assert store.upsert([star("A"), star("B"), star("A", 1)]) == [False, False, True]
    assert store.upsert([star("B", 2)]) == [True]
    assert len(store.page("", 10)) == 2
    assert np.array_equal(store.get(["A"])["A"].latent, star("A", 1).latent)


def test_a_deleted_star_is_gone_and_may_come_back(store):
    store.upsert([star("A")])
    assert store.delete("A")
    assert not store.delete("A")
    assert not store.delete("never")
    assert (store.get(["A"]), store.page("", 10)) == ({}, [])
    assert store.upsert([star("A")]) == [False]


def test_pages_follow_the_ids(store):
    store.upsert([star(f"S{i:02d}") for i in range(25)])
    first = store.page("", 10)
    second = store.page(first[-1].star_id, 10)
    assert [s.star_id for s in first + second] == [f"S{i:02d}" for i in range(20)]


def test_changes_tell_another_process_everything_once(store, tmp_path):
    other = Store(tmp_path / "stars.sqlite")
    store.upsert([star("A"), star("B")])
    other.upsert([star("B", 5)])
    store.delete("A")
    changes = other.changes(0)
    assert [(c.star_id, c.latent is None) for c in changes] == [("B", False), ("A", True)]
    assert changes[-1].seq == store.last_seq() == 4
    assert other.changes(changes[-1].seq) == []
    other.close()


def test_a_failed_write_leaves_nothing(store):
    with pytest.raises(StoreError):
        store.upsert([star("A"), star("B", meta={}, ra="x" * 10), star(None)])
    assert store.page("", 10) == []
    assert store.upsert([star("A")]) == [False]


def test_durability_is_asked_for(store):
    connection = store._writer
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_corrupt_store_is_reported_and_left_alone(tmp_path, content):
    path = tmp_path / "stars.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"stars\.sqlite"):
        Store(path)
    assert path.read_bytes() == content


def test_another_database_is_left_alone(tmp_path):
    path = tmp_path / "stars.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="not a store"):
        Store(path)
    assert path.read_bytes() == content


def test_a_store_of_version_1_is_taken_over(tmp_path):
    path = tmp_path / "stars.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(SCHEMA.replace(", others TEXT", ""))
        connection.execute("PRAGMA user_version=1")
        connection.execute("PRAGMA journal_mode=WAL")
        columns = "star_id, seq, model, latent, teff, logg, fe_h, in_domain, warnings, meta"
        values = ("old", 1, "m@1", np.arange(4, dtype="<f4").tobytes(), 4500.0, 2.0, 0.1, 1, "[]", "{}")
        connection.execute(f"INSERT INTO stars ({columns}) VALUES ({', '.join('?' * 10)})", values)
    connection.close()
    for _ in range(2):
        store = Store(path)
        old = store.get(["old"])["old"]
        assert (old.others, old.teff, old.latent.tolist()) == ({}, 4500.0, [0, 1, 2, 3])
        store.upsert([star("new", others={"vbroad": 3.0})])
        assert store.get(["new"])["new"].others == {"vbroad": 3.0}
        store.close()


def test_a_store_of_a_later_version_is_left_alone(tmp_path):
    path = tmp_path / "stars.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=3")
    connection.close()
    with pytest.raises(StoreError, match="not a store of version 1 or 2"):
        Store(path)

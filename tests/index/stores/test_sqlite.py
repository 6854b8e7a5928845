"""The store in a SQLite file: the file itself, and files of earlier versions."""

import json
import sqlite3

import numpy as np
import pytest

from index.errors import StoreError
from index.stores.backup_file import read_backup
from index.stores.sqlite import SCHEMA_VERSION, SqliteStore
from tests.index.stars import star


def test_a_prefix_is_a_range_of_the_index(tmp_path):
    store = SqliteStore(tmp_path / "stars.sqlite")
    store.upsert([star(f"S{i:04d}") for i in range(3000)] + [star("Z1")])
    steps = []
    with store._reading() as reader:
        reader.set_progress_handler(lambda: steps.append(1), 100)
    assert [s.star_id for s in store.page("", 8, "m@1", "Z")] == ["Z1"]
    assert len(store.page("S2990", 8, "m@1", "S29")) == 8
    assert store.page("", 8, "m@1", "ZZ") == []
    assert len(steps) < 50, "a look at every row takes 300"
    store.close()


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
    with pytest.raises(StoreError, match=r"stars\.sqlite") as raised:
        SqliteStore(path)
    assert raised.value.damaged
    assert path.read_bytes() == content


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_whose_file_was_moved_takes_no_writes(tmp_path, replaced):
    """They would go to the file that was moved, and be lost to the next start."""
    path = tmp_path / "stars.sqlite"
    store = SqliteStore(path)
    store.upsert([star("A")])
    path.rename(tmp_path / "moved.sqlite")
    if replaced:
        SqliteStore(path).close()
    with pytest.raises(StoreError, match="moved or replaced") as raised:
        store.upsert([star("B")])
    assert not raised.value.damaged
    store.close()


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


def old_store(path, version, meta="{}"):
    """A file of an earlier version, with a star and the row of one that was deleted."""
    schema = OLD_SCHEMA if version > 1 else OLD_SCHEMA.replace(", others TEXT", "")
    if version >= 3:
        schema = schema.replace("star_id TEXT PRIMARY KEY", "star_id TEXT NOT NULL")
        schema = schema.replace("model TEXT", "model TEXT NOT NULL").replace(
            "others TEXT", "others TEXT, PRIMARY KEY (star_id, model)"
        )
    with sqlite3.connect(path) as connection:
        connection.execute(schema)
        if version >= 3:
            connection.execute("CREATE TABLE spectra (star_id TEXT PRIMARY KEY, spectrum BLOB NOT NULL)")
            connection.execute(
                "CREATE TABLE openings (number INTEGER PRIMARY KEY, token TEXT NOT NULL, seq INTEGER NOT NULL)"
            )
        if version == 4:
            connection.execute("CREATE INDEX stars_by_position ON stars (dec, ra) WHERE dec IS NOT NULL")
        connection.execute(f"PRAGMA user_version={version}")
        connection.execute("PRAGMA journal_mode=WAL")
        columns = "star_id, seq, model, latent, teff, logg, fe_h, in_domain, warnings, meta"
        values = ("old", 1, "m@1", np.arange(4, dtype="<f4").tobytes(), 4500.0, 2.0, 0.1, 1, "[]", meta)
        connection.execute(f"INSERT INTO stars ({columns}) VALUES ({', '.join('?' * 10)})", values)
        if version > 1:
            connection.execute("UPDATE stars SET others = ?", (json.dumps(extra_of_version(version)),))
        model = "m@1" if version >= 3 else None
        connection.execute(
            "INSERT INTO stars (star_id, model, seq, deleted) VALUES ('gone', ?, 2, 1)", (model,)
        )
    connection.close()


def extra_of_version(version):
    """The extra parameters of the star in `old_store`: version 1 had none."""
    return {"vbroad": 6.5} if version > 1 else {}


def layout(path):
    """Columns and indexes of every table, in no order."""
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {
        (table, *row[1:4], row[5] > 0)
        for table in tables
        for row in connection.execute(f"PRAGMA table_info({table})")
    }
    indexes = {
        (table, row[2], tuple(name for _, _, name in connection.execute(f"PRAGMA index_info({row[1]})")))
        for table in tables
        for row in connection.execute(f"PRAGMA index_list({table})")
    }
    connection.close()
    return columns, indexes


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_store_of_an_earlier_version_is_taken_over(tmp_path, version):
    path = tmp_path / "stars.sqlite"
    old_store(path, version)
    for _ in range(2):
        store = SqliteStore(path)
        assert [old.star_id for old in store.page("", 10, "m@1") if old.star_id != "new"] == ["old"]
        old = store.get(["old"], "m@1")["old"]
        assert (old.extra, old.teff, old.latent.tolist()) == (extra_of_version(version), 4500.0, [0, 1, 2, 3])
        store.upsert([star("new", extra={"vbroad": 3.0})])
        assert store.get(["new"], "m@1")["new"].extra == {"vbroad": 3.0}
        store.close()


@pytest.mark.parametrize(
    ("meta", "cluster"),
    [
        ('{"cluster": " M67 ", "group": "other"}', "M67"),
        ('{"group": "NGC 188"}', "NGC 188"),
        ('{"cluster": 67}', None),
        ('{"cluster": "\\ud800"}', None),
        ('{"cluster": "M67", "age": NaN}', None),
        ("{", None),
    ],
)
def test_the_clusters_of_an_earlier_version_are_taken_over(tmp_path, meta, cluster):
    path = tmp_path / "stars.sqlite"
    old_store(path, 3, meta)
    store = SqliteStore(path)
    assert store._read("SELECT cluster, fe_h_err FROM stars WHERE star_id = 'old'") == [(cluster, None)]
    if cluster is not None:
        assert [old.cluster for old in store.page("", 10, "m@1", cluster=cluster)] == [cluster]
    assert store.page("", 10, "m@1", cluster="M6") == []
    store.close()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_migrations_lead_to_the_tables_of_a_new_store(tmp_path, version):
    old_store(tmp_path / "old.sqlite", version)
    for name in ("old.sqlite", "new.sqlite"):
        SqliteStore(tmp_path / name).close()
    assert layout(tmp_path / "old.sqlite") == layout(tmp_path / "new.sqlite")


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_file_of_an_earlier_version_is_read_as_a_backup(tmp_path, version):
    old_store(tmp_path / "old.sqlite", version)
    content = (tmp_path / "old.sqlite").read_bytes()
    ((old, spectrum),) = read_backup(tmp_path / "old.sqlite")
    assert (old.star_id, old.extra, old.teff, spectrum) == ("old", extra_of_version(version), 4500.0, None)
    assert (tmp_path / "old.sqlite").read_bytes() == content


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "stars.sqlite"
    old_store(path, 2)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE spectra (mine)")
    connection.close()
    before = layout(path)
    with pytest.raises(StoreError, match="already exists"):
        SqliteStore(path)
    assert layout(path) == before


def test_a_store_of_a_later_version_is_left_alone(tmp_path):
    path = tmp_path / "stars.sqlite"
    SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"not a store of version 1 to {SCHEMA_VERSION}"):
        SqliteStore(path)


def test_an_older_copy_made_while_the_store_was_open_is_recognised(tmp_path):
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

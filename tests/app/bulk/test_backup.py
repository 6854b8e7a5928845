"""Backup and restore of the store under a running service."""

import sqlite3
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.bulk.backup import backup, restore
from index.errors import StoreError
from index.stores.backup_file import read_backup
from index.stores.open_store import open_store
from index.stores.sqlite import SqliteStore
from index.stores.star import Star
from model.errors import InputError
from tests.app.bulk.test_ingest import run
from tests.index.stores.test_sqlite import old_store


def stars(count: int, teff: float = 4500.0) -> list[Star]:
    return [Star(f"S{row:03d}", "m@1", np.full(4, row, "f4"), None, teff, 2.0, -0.0) for row in range(count)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def everything(store) -> list[tuple]:
    return [
        (star.star_id, star.model, star.latent.tobytes(), star.meta, spectrum and bytes(spectrum))
        for star, spectrum in store.dump()
    ]


def test_a_backup_under_load_holds_every_star_acknowledged_before(start_server, star, tmp_path):
    server = start_server(CHEMTWIN_STORE_SPECTRA="true")
    acknowledged: dict[str, list[float]] = {}
    stop = threading.Event()

    def client(name: str) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for number in range(10_000):
                if stop.is_set():
                    return
                star_id = f"{name}-{number}"
                response = http.post("/embed", json={**star, "star_id": star_id, "teff": 4000 + number})
                if response.status_code == 201:
                    acknowledged[star_id] = response.json()["latent"]

    threads = [threading.Thread(target=client, args=(name,)) for name in "AB"]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(2):
            while len(acknowledged) < 10 * (round_ + 1):
                stop.wait(0.01)
            before = dict(acknowledged)
            file = tmp_path / f"backup-{round_}.sqlite"
            code, said = run("catalogue", "backup", file, "--data-dir", tmp_path / "data")
            assert code == 0, said
            copy = SqliteStore(file)
            copied = {one.star_id: (one.latent.tolist(), spectrum) for one, spectrum in copy.dump()}
            copy.close()
            for star_id, latent in before.items():
                assert copied[star_id][0] == np.array(latent, "f4").tolist()
                assert copied[star_id][1] is not None
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not list(tmp_path.glob("*.partial*"))
    assert len(acknowledged) > len(copied)
    # back to the second backup, before the eyes of the running service
    code, said = run("catalogue", "restore", file, "--to", tmp_path / "data" / "stars.sqlite", "--replace")
    assert code == 0, said
    assert httpx.get(server.url + "/readyz").json()["stars"] == len(copied)
    gone = next(star_id for star_id in acknowledged if star_id not in copied)
    assert httpx.get(server.url + f"/stars/{gone}").status_code == 404
    assert httpx.get(server.url + f"/twins/{next(iter(copied))}").status_code == 200
    new = httpx.post(server.url + "/embed", json={**star, "star_id": gone}, timeout=60)
    assert new.status_code == 201


@pytest.mark.slow
def test_a_backup_overwrites_nothing(tmp_path):
    SqliteStore(tmp_path / "stars.sqlite").close()
    (tmp_path / "b.sqlite").write_text("mine")
    code, said = run("catalogue", "backup", tmp_path / "b.sqlite", "--data-dir", tmp_path)
    assert (code, "exists and is not overwritten" in said) == (1, True)
    assert (tmp_path / "b.sqlite").read_text() == "mine"


@pytest.mark.slow
def test_a_broken_backup_changes_nothing(tmp_path):
    data = tmp_path / "data"
    file, store = tmp_path / "b.sqlite", SqliteStore(data / "stars.sqlite")
    store.upsert(stars(500), [bytes(1000)] * 500)
    backup(store, file)
    before, content = everything(store), file.read_bytes()
    torn = bytearray(content)
    torn[len(torn) // 2 :] = b"\x55" * (len(torn) - len(torn) // 2)
    target = str(data / "stars.sqlite")
    for broken in (b"", b"nothing", content[: len(content) // 2], bytes(torn)):
        file.write_bytes(broken)
        with pytest.raises(StoreError, match="Nothing was changed"):
            restore(file, target, replace=True)
        assert everything(store) == before
    file.write_bytes(content)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE stars SET latent = x'0102' WHERE star_id = (SELECT max(star_id) FROM stars)")
    connection.close()
    code, said = run("catalogue", "restore", file, "--to", target, "--replace")
    assert (code, said.count("\n")) == (1, 1)
    assert "Nothing was changed" in said
    assert everything(store) == before
    assert names(data) == ["stars.sqlite", "stars.sqlite-shm", "stars.sqlite-wal"]
    store.close()


def test_a_backup_goes_from_and_to_any_store(tmp_path, postgres, monkeypatch):
    url, data, here = postgres.create(), tmp_path / "data" / "stars.sqlite", tmp_path / "here"
    theirs = open_store(url)
    theirs.upsert(stars(1200), [b"spectrum"] * 1200)
    backup(theirs, tmp_path / "b.sqlite")
    restore(tmp_path / "b.sqlite", str(data), replace=False)
    ours = SqliteStore(data)
    assert everything(ours) == everything(theirs)
    ours.delete("S000")
    backup(ours, tmp_path / "c.sqlite")
    here.mkdir()
    monkeypatch.chdir(here)
    code, said = run("catalogue", "restore", tmp_path / "c.sqlite", "--to", url, "--replace")
    assert (code, "s3cret" in said) == (0, False), said
    (previous,) = here.iterdir()
    assert previous.name in said
    assert len(list(read_backup(previous))) == 1200
    assert everything(ours) == everything(theirs)
    assert len(everything(theirs)) == 1199
    ours.close()
    theirs.close()
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def target(request, tmp_path, monkeypatch):
    """A store with three stars, by the path or URL that names it; the current folder is an empty one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    address = server.create() if server else str(tmp_path / "data" / "stars.sqlite")
    store = open_store(address)
    store.upsert(stars(3), [b"a", None, b"c"])
    store.close()
    yield address
    if server:
        server.drop(address)


@pytest.fixture
def file(tmp_path):
    """A backup of two stars."""
    (tmp_path / "backups").mkdir()
    store = SqliteStore(tmp_path / "other.sqlite")
    store.upsert(stars(2, teff=5000.0), [b"x", b"y"])
    backup(store, tmp_path / "backups" / "b.sqlite")
    store.close()
    return tmp_path / "backups" / "b.sqlite"


def content(address: str) -> list[tuple]:
    store = open_store(address)
    try:
        return everything(store)
    finally:
        store.close()


def test_a_store_with_stars_is_replaced_only_when_asked_to(target, file):
    before = content(target)
    with pytest.raises(StoreError, match="has 3 rows: with --replace"):
        restore(file, target, replace=False)
    assert content(target) == before
    done = restore(file, target, replace=True)
    assert (done.rows, len(content(target))) == (2, 2)
    assert done.previous is not None
    saved = [(star.star_id, star.latent.tobytes(), spectrum) for star, spectrum in read_backup(done.previous)]
    assert saved == [(row[0], row[2], row[4]) for row in before]


def test_what_was_replaced_is_all_that_was_written_before(target, file):
    """A service writes without a pause: each of its stars is in the new store or in the file."""
    stop, written = threading.Event(), []

    def service() -> None:
        store = open_store(target)
        while not stop.is_set():
            star_id = f"W{len(written)}"
            store.upsert([Star(star_id, "m@1", np.zeros(4, "f4"), None, 4500.0, 2.0, 0.0)])
            written.append(star_id)
        store.close()

    thread = threading.Thread(target=service)
    thread.start()
    try:
        while len(written) < 5:
            stop.wait(0.01)
        done = restore(file, target, replace=True)
        after = len(written) + 5
        while len(written) < after:
            stop.wait(0.01)
    finally:
        stop.set()
        thread.join()
    assert done.previous is not None
    saved = {star.star_id for star, _ in read_backup(done.previous)}
    assert saved | {row[0] for row in content(target)} >= {*written, "S000", "S001", "S002"}


def test_what_is_not_read_back_as_it_was_written_changes_nothing(target):
    """The same row twice: one of both is lost."""
    before, store = content(target), open_store(target)
    twice = [(star, None) for star in stars(1) * 2]
    with pytest.raises(StoreError, match="gives back 1 rows of 2 written"):
        store.restore(twice)
    store.close()
    assert content(target) == before


def test_a_backup_is_only_read(file, tmp_path):
    """Read-only, in a read-only folder; root may write there, and does not."""
    folder, before = file.parent, file.read_bytes()
    file.chmod(0o444)
    folder.chmod(0o555)
    done = restore(file, str(tmp_path / "new.sqlite"), replace=False)
    assert (done.rows, done.previous) == (2, None)
    assert (file.read_bytes(), names(folder)) == (before, ["b.sqlite"])
    folder.chmod(0o755)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_backup_of_an_earlier_version_is_restored_and_stays_one(version, tmp_path):
    file = tmp_path / "old [1].sqlite"
    old_store(file, version)
    before = file.read_bytes()
    assert restore(file, str(tmp_path / "new.sqlite"), replace=False).rows == 1
    assert content(str(tmp_path / "new.sqlite"))[0][:2] == ("old", "m@1")
    assert (file.read_bytes(), "old [1].sqlite-wal" in names(tmp_path)) == (before, False)


def test_a_store_in_use_is_no_backup(target, tmp_path):
    store = SqliteStore(tmp_path / "live.sqlite")
    store.upsert(stars(1))
    with pytest.raises(StoreError, match="is a store in use"):
        restore(tmp_path / "live.sqlite", target, replace=True)
    store.close()


@pytest.mark.slow
def test_a_target_is_a_store_and_not_the_backup(file, tmp_path):
    before = file.read_bytes()
    with pytest.raises(InputError, match="is the backup itself"):
        restore(file, str(file.parent / ".." / "backups" / "b.sqlite"), replace=True)
    with pytest.raises(InputError, match="is a folder: name the store's file"):
        restore(file, str(tmp_path), replace=True)
    with pytest.raises(StoreError, match="mysql:// is no store"):
        restore(file, "mysql://me:secret@host/db", replace=True)
    assert file.read_bytes() == before
    code, said = run("catalogue", "restore", file)
    assert (code, "Missing option '--to'" in said) == (2, True)

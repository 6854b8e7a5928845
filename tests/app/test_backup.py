"""Backup and restore of the store under a running service."""

import sqlite3
import threading

import httpx
import numpy as np

from index.sqlite import SqliteStore
from index.store import open_store
from tests.app.test_ingest import run


def everything(store) -> list[tuple]:
    return [
        (star.star_id, star.model, star.latent.tobytes(), star.meta, kept and bytes(kept))
        for star, kept in store.dump()
    ]


def test_a_backup_under_load_holds_every_star_acknowledged_before(start_server, star, tmp_path):
    server = start_server(CHEMTWIN_KEEP_SPECTRA="true")
    acknowledged: dict[str, list[float]] = {}
    stop = threading.Event()

    def client(name: str) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for number in range(10_000):
                if stop.is_set():
                    return
                star_id = f"{name}-{number}"
                answer = http.post("/embed", json={**star, "star_id": star_id, "teff": 4000 + number})
                if answer.status_code == 201:
                    acknowledged[star_id] = answer.json()["latent"]

    threads = [threading.Thread(target=client, args=(name,)) for name in "AB"]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(2):
            while len(acknowledged) < 10 * (round_ + 1):
                stop.wait(0.01)
            before = dict(acknowledged)
            file = tmp_path / f"backup-{round_}.sqlite"
            code, said = run("backup", file, "--data-dir", tmp_path / "data")
            assert code == 0, said
            copy = SqliteStore(file)
            held = {one.star_id: (one.latent.tolist(), kept) for one, kept in copy.dump()}
            copy.close()
            for star_id, latent in before.items():
                assert held[star_id][0] == np.array(latent, "f4").tolist()
                assert held[star_id][1] is not None
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not list(tmp_path.glob("*.partial*"))
    assert len(acknowledged) > len(held)
    # back to the second backup, before the eyes of the running service
    assert run("restore", file, "--data-dir", tmp_path / "data")[0] == 0
    assert httpx.get(server.url + "/readyz").json()["stars"] == len(held)
    gone = next(star_id for star_id in acknowledged if star_id not in held)
    assert httpx.get(server.url + f"/stars/{gone}").status_code == 404
    assert httpx.get(server.url + f"/twins/{next(iter(held))}").status_code == 200
    new = httpx.post(server.url + "/embed", json={**star, "star_id": gone}, timeout=60)
    assert new.status_code == 201


def test_a_backup_overwrites_nothing(tmp_path):
    SqliteStore(tmp_path / "stars.sqlite").close()
    (tmp_path / "b.sqlite").write_text("mine")
    code, said = run("backup", tmp_path / "b.sqlite", "--data-dir", tmp_path)
    assert (code, "exists and is not overwritten" in said) == (1, True)
    assert (tmp_path / "b.sqlite").read_text() == "mine"


def test_a_broken_backup_changes_nothing(survey, tmp_path):
    data = tmp_path / "data"
    assert run("ingest", survey.path, "--data-dir", data, "--workers", 1)[0] == 0
    file, store = tmp_path / "b.sqlite", SqliteStore(data / "stars.sqlite")
    assert run("backup", file, "--data-dir", data)[0] == 0
    before, content = everything(store), file.read_bytes()
    torn = bytearray(content)
    torn[len(torn) // 2 :] = b"\x55" * (len(torn) - len(torn) // 2)
    for broken in (b"nothing", content[: len(content) // 2], bytes(torn)):
        file.write_bytes(broken)
        code, said = run("restore", file, "--data-dir", data)
        assert code == 1, said
        assert said.count("\n") == 1, said
        assert everything(store) == before
    file.write_bytes(content)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE stars SET latent = x'0102' WHERE star_id = (SELECT max(star_id) FROM stars)")
    connection.close()
    code, said = run("restore", file, "--data-dir", data)
    assert code == 1
    assert "Nothing was changed" in said
    assert everything(store) == before
    store.close()


def test_a_backup_goes_from_and_to_any_store(survey, tmp_path, postgres):
    url, data = postgres.create(), tmp_path / "data"
    code, said = run("ingest", survey.path, "--workers", 1, CHEMTWIN_STORE=url, CHEMTWIN_KEEP_SPECTRA="true")
    assert code == 0, said
    assert run("backup", tmp_path / "b.sqlite", CHEMTWIN_STORE=url)[0] == 0
    assert run("restore", tmp_path / "b.sqlite", "--data-dir", data)[0] == 0
    ours, theirs = SqliteStore(data / "stars.sqlite"), open_store(url)
    assert everything(ours) == everything(theirs)
    ours.delete(survey.star_id[0])
    assert run("backup", tmp_path / "c.sqlite", "--data-dir", data)[0] == 0
    code, said = run("restore", tmp_path / "c.sqlite", CHEMTWIN_STORE=url)
    assert code == 0, said
    assert "s3cret" not in said
    assert everything(ours) == everything(theirs)
    assert len(everything(theirs)) == 1199
    ours.close()
    theirs.close()
    postgres.drop(url)

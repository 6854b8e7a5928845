"""Bulk ingestion by the command itself: every kind of source, killed at random moments, over a cluster."""

import csv
import os
import random
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import httpx
import numpy as np
import pytest
from astropy.table import Table

from app.bulk.ingest import Done
from app.bulk.ingest import ingest as ingest_all
from app.bulk.ingest_block import Report
from app.bulk.readers.star_reader import InputFiles
from app.cli.catalogue import _summary
from app.inference.embedder import DIGEST
from app.settings import Settings
from index.stores.open_store import open_store
from index.stores.sql_store import Store
from index.stores.sqlite import SqliteStore
from model.bundle import REFERENCE, load_card, load_model, save_model
from tests import forked
from tests.conftest import APSTAR, ASPCAP, GIANT
from tests.forked import Command, run
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize


def start(*arguments: object, **environment: str) -> Command:
    return forked.start([*map(str, arguments)], os.environ | {"OMP_NUM_THREADS": "1"} | environment)


def ingest(*arguments: object, **environment: str) -> tuple[int, str]:
    """By one process: several, and a cluster, have tests of their own."""
    return run("catalogue", "ingest", *arguments, "--workers", 1, **environment)


def rows(store: Store) -> dict[str, bytes]:
    """Every star's latent; a star that is there twice fails."""
    found: dict[str, bytes] = {}
    for star, _ in store.dump():
        assert star.star_id not in found
        found[star.star_id] = star.latent.tobytes()
    return found


def rows_at(folder: Path) -> dict[str, bytes]:
    store = SqliteStore(folder / "stars.sqlite")
    try:
        return rows(store)
    finally:
        store.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory, emulator) -> Path:
    """1,500 stars without noise: six blocks."""
    path = tmp_path_factory.mktemp("large") / "large.h5"
    synthesize(path, emulator, 750, seed=303)
    return path


@pytest.fixture(scope="module")
def whole(large, tmp_path_factory) -> dict[str, bytes]:
    """What an ingest without interruption stores of it."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = run("catalogue", "ingest", large, "--data-dir", folder, "--workers", 2)
    assert (code, said.strip()) == (0, "1500 stars stored, 0 already stored, 0 refused")
    return rows_at(folder)


def npz(path: Path, survey: Survey, **fields: object) -> Path:
    stars = fields.pop("stars", len(survey))
    arrays = {
        "flux": survey.flux(slice(0, stars)),
        "star_id": np.array(survey.star_id[:stars]),
        **{name: survey.column(name)[:stars] for name in ("teff", "logg", "fe_h")},
    }
    np.savez(path, **(arrays | fields))
    return path


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_never_stopped(large, whole, tmp_path):
    generator, stored = random.Random(4), 0
    for _ in range(3):
        process = start("catalogue", "ingest", large, "--data-dir", tmp_path, "--workers", 2)
        before, deadline = stored, time.monotonic() + 120
        while process.poll() is None and stored == before and time.monotonic() < deadline:
            time.sleep(generator.random() * 0.2)
            stored = len(rows_at(tmp_path)) if (tmp_path / "stars.sqlite").exists() else 0
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if stored == len(whole):
            break
    code, said = run("catalogue", "ingest", large, "--data-dir", tmp_path, "--workers", 2)
    assert (code, rows_at(tmp_path)) == (0, whole)
    new, there, refused = map(int, re.findall(r"\d+", said))
    assert (new + there, refused) == (1500, 0)
    assert there >= 512
    assert "0 stars stored, 1500 already stored" in ingest(large, "--data-dir", tmp_path)[1]


@pytest.mark.slow
def test_kinds_of_warnings_are_counted_over_all_blocks_and_workers(large, tmp_path):
    survey = Survey.open(large)
    teff, logg, fe_h = (survey.column(name)[:600].copy() for name in ("teff", "logg", "fe_h"))
    teff[[1, 300, 599]], logg[[2, 301]], fe_h[400] = 3000.0, 4.5, -2.0
    path = npz(tmp_path / "odd.npz", survey, stars=600, teff=teff, logg=logg, fe_h=fe_h)
    _, said = run("catalogue", "ingest", path, "--data-dir", tmp_path / "data", "--workers", 2)
    found = re.findall(
        r"^  (\d) stars?: (\w+) = \.\.\. is outside the model's training range", said, re.MULTILINE
    )
    assert found == [("3", "teff"), ("2", "logg"), ("1", "fe_h")]


def test_the_summary_has_the_most_frequent_kinds():
    kinds = Counter({f"kind {number}": number % 4 for number in range(1, 8)})
    done = Done(Report(outside=4, kinds=kinds), (), None, (), ())
    lines = list(_summary(done, load_card(REFERENCE)))
    shown = [line for line in lines if "kind" in line]
    assert shown == [
        *(f"  3 stars: kind {number}" for number in (3, 7)),
        *(f"  2 stars: kind {number}" for number in (2, 6)),
        "  1 star: kind 1",
    ]


def children(process: int) -> list[int]:
    """Processes that it started, of all its threads."""
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


@pytest.mark.slow
def test_a_killed_ingest_leaves_no_worker(large, tmp_path):
    process = start("catalogue", "ingest", large, "--data-dir", tmp_path, "--workers", 2)
    workers: list[int] = []
    while len(workers) < 2:  # they are children of the server that forks them
        assert process.poll() is None, "it ended before its workers were seen"
        servers = children(process.pid)
        workers = [worker for server in servers for worker in children(server)]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while (left := [one for one in (*servers, *workers) if Path(f"/proc/{one}").exists()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert left == []


def test_one_worker_is_the_command_itself(survey, tmp_path):
    """It starts no process, and leaves nothing open that a second ingest would take for its own."""
    settings, source, before = Settings(data_dir=tmp_path), tmp_path / "s.npz", children(os.getpid())
    for count in (3, 5):
        done = ingest_all(InputFiles.of(npz(source, survey, stars=count), None, None), settings, workers=1)
        assert len(done.report) == count
        assert children(os.getpid()) == before
    assert len(rows_at(tmp_path)) == 5


def test_only_what_changed_in_a_source_is_embedded_again(survey, tmp_path):
    source, folder = npz(tmp_path / "s.npz", survey, stars=40), tmp_path / "data"
    assert "40 stars stored" in ingest(source, "--data-dir", folder)[1]
    before = rows_at(folder)
    flux = survey.flux(slice(0, 40))
    flux[7] = flux[8]
    npz(source, survey, stars=40, flux=flux)
    assert "1 star stored, 39 already stored" in ingest(source, "--data-dir", folder)[1]
    after = rows_at(folder)
    assert [star for star in after if after[star] != before[star]] == [survey.star_id[7]]
    assert "40 stars stored" in ingest(source, "--data-dir", folder, CHEMTWIN_STORE_SPECTRA="true")[1]
    said = ingest(source, "--data-dir", folder)[1]
    assert "0 stars stored, 40 already stored" in said, "nor do they lose their spectra"
    assert "lost the spectrum" not in said
    npz(source, survey, stars=40)
    assert (
        "1 star lost the spectrum stored before: CHEMTWIN_STORE_SPECTRA"
        in ingest(source, "--data-dir", folder)[1]
    )


def test_a_running_service_sees_them(survey, tmp_path, start_server):
    server = start_server()
    stars = npz(tmp_path / "s.npz", survey, stars=30)
    assert ingest(stars, "--data-dir", tmp_path / "data")[0] == 0
    first, second = survey.star_id[:2]
    response = httpx.get(server.url + f"/twins/{first}", params={"k": 1}).json()
    assert response["twins"][0]["star_id"] == second
    meta = httpx.get(server.url + f"/stars/{first}").json()["meta"]
    assert (meta["source"], len(meta[DIGEST])) == ("s.npz", 32)


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_gives_what_the_api_gives(compressed, survey, tmp_path, client):
    pixels = len(survey.wavelength)
    fields = {
        "error": np.full((5, pixels), 0.01),
        "bitmask": np.arange(5 * pixels).reshape(5, pixels) % 11 == 0,
        "wavelength": survey.wavelength,
    }
    fields["bitmask"] = fields["bitmask"].astype("i4")
    ids = np.array([f"NPZ-{i}" for i in range(5)])
    source = npz(tmp_path / "s.npz", survey, stars=5, star_id=ids, **fields)
    if compressed:
        np.savez_compressed(source, **np.load(source))
    headers = {"Content-Type": "application/x-npz"}
    response = client.post("/embed", headers=headers, content=source.read_bytes()).json()["results"]
    assert ingest(source, "--data-dir", tmp_path)[0] == 0
    store = SqliteStore(tmp_path / "stars.sqlite")
    stars = store.get(ids.tolist(), next(store.dump())[0].model)
    store.close()
    for embedded in response:
        star = stars[embedded["star_id"]]
        np.testing.assert_allclose(star.latent, embedded["latent"], atol=1e-5)
        assert star.masked_fraction == embedded["masked_fraction"] > 0.08
        assert star.snr == pytest.approx(embedded["snr"], rel=1e-6)
        client.delete(f"/stars/{embedded['star_id']}")


def test_refused_stars_are_named_and_stop_no_other(survey, tmp_path):
    flux = survey.flux(slice(0, 60))
    flux[:25] = np.nan
    teff = survey.column("teff")[:60].copy()
    teff[30] = -9999
    ids = np.array(survey.star_id[:60])
    ids[31], ids[32] = "no id", "4.29581E+18"
    source = npz(tmp_path / "s.npz", survey, stars=60, flux=flux, teff=teff, star_id=ids)
    code, said = ingest(source, "--data-dir", tmp_path)
    assert code == 1
    assert "32 stars stored, 0 already stored, 28 refused" in said
    assert sum(line.startswith("SYN-") for line in said.splitlines()) == 20
    assert "and 8 more" in said
    assert "'4.29581E+18' is not a star id" in (tmp_path / "ingest-report.csv").read_text()
    assert f"{ids[30]}: row 30: teff unknown" in said
    assert rows_at(tmp_path).keys() == {*ids[25:30], *ids[33:]}


@pytest.mark.parametrize("kind", ["csv", "fits", "vot"])
def test_a_folder_of_fits_files(kind, tmp_path, client):
    folder = tmp_path / "spectra"
    folder.mkdir()
    for path in (APSTAR, ASPCAP):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "apStar-r5-2M1.fits").write_bytes(b"SIMPLE  = nothing")
    ids = ["2M00004994+1621552", "2M17334253-1654573", "2M1", "2M2"]
    table = Table(
        {
            "star_id": ids,
            "teff": [4705.0, 4600.0, 4500.0, 4500.0],
            "teff_err": [50.0, 60.0, np.nan, 1.0],
            "logg": [2.58, 2.2, 2.0, 2.0],
            "fe_h": [0.05, -0.1, 0.0, 0.0],
        }
    )
    labels = tmp_path / f"labels.{kind}"
    table.write(labels, format={"csv": "ascii.csv", "fits": "fits", "vot": "votable"}[kind])
    code, said = ingest(folder, "--labels", labels, "--data-dir", tmp_path / "data")
    assert code == 1
    assert "2 stars stored, 0 already stored, 2 refused" in said
    assert re.search(r"2M1: (line 4|row 3): the FITS file ends within the header", said)
    assert "no file 2M2.fits" in said
    assert "2 already stored" in ingest(folder, "--labels", labels, "--data-dir", tmp_path / "data")[1]
    if kind == "csv":
        params = {**GIANT, "teff_err": 50, "star_id": "AS-API"}
        headers = {"Content-Type": "application/fits"}
        response = client.post("/embed", params=params, headers=headers, content=APSTAR.read_bytes()).json()
        client.delete("/stars/AS-API")
        latent = np.frombuffer(rows_at(tmp_path / "data")[ids[0]], "f4")
        np.testing.assert_allclose(latent, response["latent"], atol=1e-5)


@pytest.mark.slow
def test_file_names_may_be_given_and_stay_in_the_folder(tmp_path):
    folder = tmp_path / "spectra"
    folder.mkdir()
    (folder / "a.fits").write_bytes(ASPCAP.read_bytes())
    (tmp_path / "b.fits").write_bytes(ASPCAP.read_bytes())
    labels = tmp_path / "labels.csv"
    labels.write_text("file,teff,logg,fe_h\na.fits,4600,2.2,-0.1\n../b.fits,4600,2.2,-0.1\n")
    code, said = ingest(folder, "--labels", labels, "--data-dir", tmp_path)
    assert (code, "1 star stored" in said) == (1, True)
    assert "../b.fits is not in the folder" in said
    assert list(rows_at(tmp_path)) == ["2M17334253-1654573"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("folder", "--labels must name the table"),
        ("other.txt", "is neither a survey"),
        ("bad.npz", "is not an npz"),
        ("words.npz", "teff has the type <U4, not numbers"),
        ("lacks.npz", "lacks fe_h, logg, star_id, teff"),
        ("pickled.npz", "is not an npz that can be read"),
    ],
)
def test_what_is_no_source_is_refused(source, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.txt").write_text("")
    (tmp_path / "bad.npz").write_text("PK nothing")
    np.savez(tmp_path / "lacks.npz", flux=np.zeros((2, 3)))
    np.savez(tmp_path / "pickled.npz", flux=np.array([{}], dtype=object))
    words = {name: np.array(["4500"]) for name in ("star_id", "teff", "logg", "fe_h")}
    np.savez(tmp_path / "words.npz", flux=np.ones((1, 3)), **words)
    code, said = ingest(tmp_path / source, "--data-dir", tmp_path / "data")
    assert code == 1
    assert message in said
    assert said.count("\n") == 1


def test_a_cluster_of_processes_that_are_killed_fills_one_postgres(large, whole, postgres, tmp_path):
    """Workers die at random; each block is in the one store once, as an ingest without a cluster has it."""
    from distributed import LocalCluster

    command = ("catalogue", "ingest", large, "--report", tmp_path / "report.csv", "--scheduler")
    url, generator = postgres.create(), random.Random(5)
    store = open_store(url)
    with LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        process = start(*command, cluster.scheduler_address, CHEMTWIN_STORE=url)
        killed, deadline = 0, time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5 + generator.random())
            if killed < 3 and len(rows(store)) >= 512 * killed:
                worker = generator.choice(list(cluster.workers.values()))
                os.kill(worker.pid, signal.SIGKILL)
                killed += 1
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        assert killed >= 1
        assert rows(store) == whole
        code, said = run(*command, cluster.scheduler_address, CHEMTWIN_STORE=url)
        assert "0 stars stored, 1500 already stored" in said
    store.close()
    postgres.drop(url)


@pytest.mark.slow
def test_a_cluster_elsewhere_gets_no_file_of_this_machine(tmp_path, large):
    code, said = run(
        "catalogue", "ingest", large, "--scheduler", "tcp://192.0.2.1:8786", "--data-dir", tmp_path
    )
    assert code == 1
    assert "set CHEMTWIN_STORE to a postgresql:// URL" in said


def test_a_column_of_another_length_is_refused(tmp_path, survey):
    path = tmp_path / "s.h5"
    path.write_bytes(survey.path.read_bytes())
    with h5py.File(path, "a") as file:
        file["teff_err"] = np.zeros(3)
    code, said = ingest(path, "--data-dir", tmp_path)
    assert code == 1
    assert "teff_err has shape (3,)" in said


def test_of_rows_with_one_id_the_first_is_stored_and_the_same_command_again_stores_nothing(survey, tmp_path):
    ids = np.array([f"TWICE-{row % 200:03d}" for row in range(300)])  # over two blocks
    snr = np.where(np.arange(300) < 200, 50.0, 100.0)
    source = npz(tmp_path / "s.npz", survey, stars=300, star_id=ids, snr=snr)
    for stored in (200, 0):
        code, said = run("catalogue", "ingest", source, "--data-dir", tmp_path, "--workers", 2)
        assert code == 1
        assert f"{stored} stars stored, {200 - stored} already stored, 0 refused, 100 repeat an id" in said
        assert "TWICE-000: row 200 repeats the id of row 0" in said
        assert "and 80 more" in said
    store = SqliteStore(tmp_path / "stars.sqlite")
    found = [star.snr for star, _ in store.dump()]
    store.close()
    assert len(found) == 200
    assert max(found) < 75
    with (tmp_path / "ingest-report.csv").open() as file:
        listed = [row for row in csv.DictReader(file) if row["outcome"] == "repeated"]
    assert [row["star_id"] for row in listed] == ids[200:].tolist()


def test_stars_to_look_at_are_counted_and_listed(survey, tmp_path):
    teff = survey.column("teff")[:20].copy()
    teff[3] = 9000
    fe_h = survey.column("fe_h")[:20].copy()
    fe_h[4] = np.nan
    cluster = np.array(["M67"] * 20)
    source = npz(
        tmp_path / "s.npz", survey, stars=20, teff=teff, fe_h=fe_h, cluster=cluster, extent=np.ones((20, 2))
    )
    report = tmp_path / "look.csv"
    code, said = ingest(source, "--data-dir", tmp_path / "data", "--report", report)
    assert code == 1
    assert "19 stars stored, 0 already stored, 1 refused\n" in said
    assert "of these: 1 outside the model's domain" in said
    assert "\n  1 star: teff = ... is outside the model's training range ... to ... K\n" in said
    assert f"listed in {report}" in said
    assert "stored in meta: cluster\nnot stored: extent; --meta COLUMN stores one" in said
    with report.open() as file:
        found = {row["star_id"]: row for row in csv.DictReader(file)}
    outside, refused = found[survey.star_id[3]], found[survey.star_id[4]]
    assert (outside["outcome"], outside["in_domain"]) == ("stored", "False")
    assert "teff" in outside["text"]
    assert (refused["outcome"], refused["text"][:21]) == ("refused", "row 4: fe_h unknown: ")
    ingest(npz(source, survey, stars=3), "--data-dir", tmp_path / "data", "--report", report)
    assert report.read_text().splitlines()[0] == "star_id,outcome,in_domain,text"
    assert "replaced" in report.read_text()


@pytest.mark.parametrize("name", ["s.npz", "stars.sqlite", "notes.txt", "folder"])
def test_the_report_replaces_an_earlier_report_only(name, survey, tmp_path):
    source = npz(tmp_path / "s.npz", survey, stars=3)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    assert ingest(source, "--data-dir", tmp_path)[0] == 0
    before = rows_at(tmp_path)
    code, said = ingest(source, "--data-dir", tmp_path, "--report", tmp_path / name)
    assert code != 0
    assert "is no report of an ingest" in said or "is a directory" in said
    assert source.exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert rows_at(tmp_path) == before


def test_typical_errors_are_said_once_and_no_star_is_listed_for_them(survey, tmp_path):
    model = load_model(REFERENCE)
    model.card = replace(model.card, typical_errors={"teff": 70.0, "logg": 0.12})
    save_model(model, tmp_path / "typical.safetensors")
    own = {"CHEMTWIN_MODEL": str(tmp_path / "typical.safetensors")}
    teff = survey.column("teff")[:20].copy()
    teff[3] = 9000
    known = {"teff_err": np.zeros(20), "logg_err": np.array([np.nan] * 12 + [0.0] * 8)}
    fluxes = {"ivar": np.full((20, len(survey.wavelength)), 1e4), "wavelength": survey.wavelength}
    source = npz(tmp_path / "s.npz", survey, stars=20, teff=teff, **known, **fluxes)
    for times in ("20 stars stored", "0 stars stored, 20 already stored"):
        code, said = ingest(source, "--data-dir", tmp_path / "data", **own)
        assert (code, said.startswith(times)) == (0, True), said
        assert "of these: 1 outside the model's domain, 0 more with warnings" in said
        assert (
            "12 stars came without errors of some parameters: the model's typical errors were used "
            "(teff_err = 70 K, logg_err = 0.12 dex (cgs)); 0 means exact\n"
        ) in said
        with (tmp_path / "data" / "ingest-report.csv").open() as file:
            (listed,) = csv.DictReader(file)
        assert listed["star_id"] == survey.star_id[3]
        assert "teff = 9000" in listed["text"]
        assert "typical" not in listed["text"]


def test_stars_of_another_source_under_the_same_ids_are_named(survey, tmp_path):
    for name, rows, spectra in (("first.npz", slice(0, 4), "1"), ("second.npz", slice(4, 8), "0")):
        ids = np.array([f"NUM-{number}" for number in range(4)])
        labels = {label: survey.column(label)[rows] for label in ("teff", "logg", "fe_h")}
        source = npz(tmp_path / name, survey, stars=4, flux=survey.flux(rows), star_id=ids, **labels)
        code, said = ingest(source, "--data-dir", tmp_path, CHEMTWIN_STORE_SPECTRA=spectra)
    assert (code, "of those stored 4 replaced an earlier star of the same id" in said) == (0, True)
    with (tmp_path / "ingest-report.csv").open() as file:
        listed = [(row["outcome"], row["text"]) for row in csv.DictReader(file)]
    text = "replaces a star from first.npz; the spectrum stored before was deleted: "
    assert listed == [("replaced", text + "CHEMTWIN_STORE_SPECTRA=true stores this one")] * 4


def test_stars_taken_from_another_model_are_counted(survey, tmp_path):
    model = load_model(REFERENCE)
    model.card = replace(model.card, name="other")
    save_model(model, tmp_path / "other.safetensors")
    other = {"CHEMTWIN_MODEL": str(tmp_path / "other.safetensors")}
    code, said = ingest(npz(tmp_path / "few.npz", survey, stars=5), "--data-dir", tmp_path / "data")
    assert (code, "another model" in said) == (0, False)
    source = npz(tmp_path / "more.npz", survey, stars=8)
    code, said = ingest(source, "--data-dir", tmp_path / "data", **other)
    assert (code, "8 stars stored" in said) == (0, True)
    assert (
        f"with {load_model(tmp_path / 'other.safetensors').card.identity} 5 took the place of stars of" in said
    )
    code, said = ingest(source, "--data-dir", tmp_path / "data", **other)
    assert (code, "another model" in said) == (0, False)

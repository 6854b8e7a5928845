"""A catalogue embedded again with another model, while a service with the old one reads and changes it."""

import dataclasses
import shutil
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.inference.embedder import Embedder, Job
from app.inference.stored_observation import pack
from app.settings import Settings
from index.stores.sqlite import SqliteStore
from model.bundle import REFERENCE, load_model, save_model
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation
from tests.app.bulk.test_ingest import ingest, npz, run, start

FACTOR = 2.0


@pytest.fixture(scope="module")
def new_model(tmp_path_factory) -> Path:
    """The shipped model with latents, and so distances, twice as long."""
    model = load_model(REFERENCE)
    model.card = dataclasses.replace(model.card, name="other")
    model.metric = model.metric * FACTOR
    path = tmp_path_factory.mktemp("model") / "new.safetensors"
    save_model(model, path)
    return path


@pytest.fixture(scope="module")
def embedded(survey, tmp_path_factory) -> Path:
    """A folder with the survey's first 600 stars and their spectra: three blocks."""
    folder = tmp_path_factory.mktemp("embedded")
    source = npz(folder / "s.npz", survey, stars=600)
    code, said = ingest(source, "--data-dir", folder / "data", CHEMTWIN_STORE_SPECTRA="1")
    assert code == 0, said
    return folder / "data"


@pytest.fixture
def folder(embedded, tmp_path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(embedded, tmp_path / "data")


def test_no_response_mixes_two_models(folder, new_model, survey, star, start_server):
    old, new = load_model(REFERENCE).card, load_model(new_model).card
    server = start_server(folder, CHEMTWIN_STORE_SPECTRA="true")
    fixed = survey.star_id[:20]

    def distances(url: str) -> list[float]:
        return [
            httpx.get(url + f"/twins/{one}", params={"k": 1}, timeout=60).json()["twins"][0]["distance"]
            for one in fixed
        ]

    before, stop, wrong, done = distances(server.url), threading.Event(), [], {"asked": 0}
    changed, deleted = {}, []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while not stop.is_set():
                for one, distance in zip(fixed, before, strict=True):
                    response = http.get(f"/twins/{one}", params={"k": 1})
                    body = response.json() if response.status_code == 200 else {}
                    right = body and body["model"]["version"] == old.version
                    if not right or body["twins"][0]["distance"] != distance:
                        wrong.append(response.text)
                    done["asked"] += 1

    def change() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for number in range(10_000):
                if stop.is_set():
                    return
                replaced = survey.star_id[200 + number % 150]
                for star_id in (f"NEW-{number}", replaced):
                    body = {**star, "star_id": star_id, "teff": 4100 + number % 800}
                    response = http.post("/embed", json=body)
                    assert response.status_code in (200, 201)
                    changed[star_id] = response.json()["latent"]
                gone = survey.star_id[400 + number % 150]
                if http.delete(f"/stars/{gone}").status_code == 200:
                    deleted.append(gone)

    threads = [threading.Thread(target=ask), threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    first = start("catalogue", "reindex", "--model", new_model, "--data-dir", folder)
    try:
        out, error = first.communicate(timeout=300)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert first.returncode == 0, error
    assert wrong == []
    assert done["asked"] >= 20
    assert changed
    assert deleted
    assert distances(server.url) == before
    # what came after the reindexing had ended waits for the next
    assert run("catalogue", "reindex", "--model", new_model, "--data-dir", folder)[0] == 0
    newer = start_server(folder, CHEMTWIN_MODEL=str(new_model))
    for url, card in ((server.url, old), (newer.url, new)):
        assert httpx.get(url + "/readyz").json()["stars"] == len(_ids(folder))
        assert httpx.get(url + "/model").json()["model"]["version"] == card.version
    np.testing.assert_allclose(distances(newer.url), FACTOR * np.array(before), rtol=1e-4)
    for star_id, latent in list(changed.items())[-20:]:
        body = httpx.get(newer.url + f"/stars/{star_id}").json()
        assert body["model"]["version"] == new.version
        np.testing.assert_allclose(body["latent"], FACTOR * np.array(latent), atol=1e-3)
    assert not set(deleted) & _ids(folder)
    code, said = run("catalogue", "reindex", "--model", new_model, "--drop-old", "--data-dir", folder)
    assert code == 0
    assert f"{len(_ids(folder))} rows of other models deleted" in said
    assert httpx.get(server.url + f"/twins/{fixed[0]}").status_code == 409
    np.testing.assert_allclose(distances(newer.url), FACTOR * np.array(before), rtol=1e-4)


def _ids(folder: Path) -> set[str]:
    store = SqliteStore(folder / "stars.sqlite")
    try:
        return {star.star_id for star, _ in store.dump()}
    finally:
        store.close()


def test_a_killed_reindex_goes_on(folder, new_model):
    process = start("catalogue", "reindex", "--model", new_model, "--data-dir", folder)
    identity = load_model(new_model).card.identity
    store = SqliteStore(folder / "stars.sqlite")
    while process.poll() is None and len(store.waiting(identity, "", 2000)) == 600:
        pass
    process.kill()
    process.communicate()
    left = len(store.waiting(identity, "", 2000))
    code, said = run("catalogue", "reindex", "--model", new_model, "--data-dir", folder)
    assert (code, store.waiting(identity, "", 1)) == (0, [])
    assert f"{left} stars embedded with {identity}, 0 refused, 0 without a stored spectrum" in said
    store.close()


def test_stars_without_a_spectrum_and_those_refused_are_counted(tmp_path, survey, new_model):
    flux = survey.flux(slice(0, 3)).astype(float)
    store = SqliteStore(tmp_path / "stars.sqlite")
    parameters = Parameters(4500.0, 2.0, 0.0)
    jobs = [Job(Observation(one, parameters), f"S{i}") for i, one in enumerate(flux)]
    embedded = [
        done for done in Embedder(Settings(store_spectra=True)).embed(jobs) if not isinstance(done, Exception)
    ]
    other = Observation(flux[0], dataclasses.replace(parameters, extra={"vbroad": 1.0}))
    grid = load_model(REFERENCE).grid
    store.upsert([done.star for done in embedded], [embedded[0].packed, None, pack(other, grid)])
    store.close()
    code, said = run("catalogue", "reindex", "--model", new_model, "--data-dir", tmp_path)
    assert code == 1
    assert "S2: this model does not know vbroad" in said
    assert "1 star embedded" in said
    assert "1 refused, 1 without a stored spectrum" in said


def test_errors_that_were_never_given_become_those_typical_of_the_new_model(tmp_path, survey):
    """An error of 0, which was given, stays exact."""
    model = load_model(REFERENCE)
    model.card = dataclasses.replace(model.card, typical_errors={"teff": 70.0, "fe_h": 0.04})
    save_model(model, tmp_path / "typical.safetensors")
    ivar, stars = np.full(survey.flux(slice(0, 2)).shape, 1e4), 2
    source = npz(tmp_path / "s.npz", survey, stars=stars, ivar=ivar, fe_h_err=np.array([np.nan, 0.0]))
    data = tmp_path / "data"
    code, said = ingest(source, "--data-dir", data, CHEMTWIN_STORE_SPECTRA="1")
    assert code == 0, said
    code, said = run("catalogue", "reindex", "--model", tmp_path / "typical.safetensors", "--data-dir", data)
    assert code == 0, said
    store = SqliteStore(data / "stars.sqlite")
    found = store.get(survey.star_id[:2], load_model(tmp_path / "typical.safetensors").card.identity)
    store.close()
    first, second = (found[star_id] for star_id in survey.star_id[:2])
    assert "teff_err = 70 K, fe_h_err = 0.04 dex" in first.warnings[-1]
    assert second.warnings[-1].endswith("teff_err = 70 K")
    assert (first.fe_h_err, second.fe_h_err) == (0.04, 0)

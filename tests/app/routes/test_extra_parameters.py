"""A model conditioned on line broadening as well: trained, validated and served by the same commands."""

import csv
import io

import h5py
import httpx
import numpy as np
import pytest
from astropy.io.fits import getheader
from astropy.io.votable import parse_single_table
from astropy.table import Table
from click.testing import CliRunner

from app.cli.main import cli
from model.bundle import load_model
from tests.conftest import APSTAR, GIANT, Server
from tests.pages import draw_nothing

pytestmark = pytest.mark.slow  # every test waits for the models that `folder` trains

FOUR = 'parameters=["teff", "logg", "fe_h", "vbroad"]'
TINY = {
    "polydis": ["components=15"],
    "faderdis": ["components=15", "encoder=[24]", "decoder=[24]", "adversary=[16]", "batch=64", "steps=20"],
    "factordis": ["components=15", "encoder=[24]", "decoder=[24]", "adversary=[16]", "batch=64", "steps=6"],
}
FITS, NPZ = {"Content-Type": "application/fits"}, {"Content-Type": "application/x-npz"}


def run(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Surveys with 0 to 12 km/s of broadening, and a model of every method trained on them."""
    folder = tmp_path_factory.mktemp("further")
    for name, seed, pairs in (("train", 11, 150), ("validation", 12, 50)):
        out = folder / f"{name}.h5"
        run("survey", "synthesize", out, "--pairs", pairs, "--seed", seed, "--own-fe-h", "--broadening", 0, 12)
    run(
        "survey",
        "synthesize",
        folder / "stars.h5",
        "--pairs",
        30,
        "--seed",
        13,
        "--snr",
        100,
        "--broadening",
        0,
        12,
    )
    surveys = (folder / "train.h5", "--validation", folder / "validation.h5")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        for method, changes in TINY.items():
            settings = [option for change in (FOUR, *changes) for option in ("--set", change)]
            out = folder / f"{method}.safetensors"
            run("model", "train", *surveys, "--method", method, "--out", out, *settings)
    return folder


@pytest.fixture(scope="module", params=["polydis", "faderdis"])
def client(request, folder, tmp_path_factory):
    model, data_dir = folder / f"{request.param}.safetensors", tmp_path_factory.mktemp(request.param) / "data"
    server = Server(data_dir, {"CHEMTWIN_MODEL": str(model)}, [])
    server.wait()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
    server.stop()


@pytest.fixture(scope="module")
def star(folder):
    """A JSON body for /embed that lacks the broadening, and the broadening."""
    with h5py.File(folder / "stars.h5") as file:
        flux, vbroad = file["flux"][0].astype(float).tolist(), float(file["vbroad"][0])
        labels = {name: float(file[name][0]) for name in ("teff", "logg", "fe_h")}
    return {"star_id": "S-1", "flux": flux, "ivar": [1e4] * len(flux), **labels}, vbroad


@pytest.mark.parametrize("method", TINY)
def test_the_card_knows_the_fourth_parameter(folder, method):
    card = load_model(folder / f"{method}.safetensors").card
    assert list(card.parameters) == ["teff", "logg", "fe_h", "vbroad"]
    low, high = card.parameters["vbroad"]
    assert 0 <= low < 0.2
    assert 11.8 < high <= 12
    assert card.units == {"vbroad": "km/s"}


def test_the_report_measures_what_is_left_of_it(folder, monkeypatch):
    draw_nothing(monkeypatch)
    run("survey", "synthesize", folder / "test.h5", "--pairs", 80, "--seed", 14, "--broadening", 0, 12)
    run(
        "model",
        "evaluate",
        folder / "polydis.safetensors",
        "--survey",
        folder / "test.h5",
        "--report",
        folder / "out",
    )
    assert "| label | regressor | Teff | logg | [Fe/H] | vbroad |" in (folder / "out" / "report.md").read_text()


def test_pairs_that_share_it_cannot_judge(folder, tmp_path):
    shared = tmp_path / "shared.h5"
    shared.write_bytes((folder / "validation.h5").read_bytes())
    with h5py.File(shared, "a") as file:
        file["vbroad"][:] = np.repeat(file["vbroad"][::2], 2)
    with pytest.raises(ValueError, match="twins share their vbroad"):
        run(
            "model",
            "train",
            folder / "train.h5",
            "--validation",
            shared,
            "--method",
            "polydis",
            "--out",
            tmp_path / "m",
            "--set",
            FOUR,
        )


def test_a_survey_that_lacks_it_is_refused(folder, survey, catalogue, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="lacks vbroad"):
        run("model", "train", survey.path, "--method", "polydis", "--out", tmp_path / "m", "--set", FOUR)
    monkeypatch.setenv("CHEMTWIN_MODEL", str(folder / "polydis.safetensors"))
    with pytest.raises(ValueError, match="lacks vbroad"):
        run("catalogue", "ingest", catalogue, "--data-dir", tmp_path / "data")


def test_ingest_takes_it_from_the_survey(folder, tmp_path, monkeypatch, start_server):
    model = str(folder / "polydis.safetensors")
    monkeypatch.setenv("CHEMTWIN_MODEL", model)
    run("catalogue", "ingest", folder / "stars.h5", "--data-dir", tmp_path / "data")
    url = start_server(CHEMTWIN_MODEL=model).url
    stars = httpx.get(f"{url}/stars").json()["stars"]
    with h5py.File(folder / "stars.h5") as file:
        assert [s["parameters"]["vbroad"] for s in stars] == file["vbroad"][:].tolist()
    twins = httpx.get(f"{url}/twins/{stars[0]['star_id']}").json()["twins"]
    assert all(0 <= twin["parameters"]["vbroad"] <= 12 for twin in twins)


def test_the_service_asks_for_it_and_keeps_it(client, star):
    body, vbroad = star
    assert client.get("/model").json()["parameters"]["vbroad"]["unit"] == "km/s"
    sure = client.post("/embed", json={**body, "parameters": {"vbroad": vbroad}})
    assert sure.status_code in (200, 201)
    unsure = {"parameters": {"vbroad": vbroad}, "parameters_err": {"vbroad": 3}}
    wider = client.post("/embed", json=body | unsure).json()
    assert sum(wider["latent_sd"]) > 1.2 * sum(sure.json()["latent_sd"])
    assert wider["latent"] == sure.json()["latent"]
    other = client.post("/embed", json={**body, "parameters": {"vbroad": 20}}).json()
    assert other["latent"] != wider["latent"]
    assert any(w.startswith("vbroad = 20 is outside") and w.endswith("km/s") for w in other["warnings"])
    assert client.get("/stars/S-1").json()["parameters"] == {"vbroad": 20}


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({}, "missing_parameters", "vbroad"),
        ({"parameters": {"vmic": 1.5}}, "missing_parameters", "vbroad"),
        ({"parameters": {"vbroad": 5, "vmic": 1.5}}, "unknown_parameters", "vmic"),
        ({"parameters": {"vbroad": 5, "teff": 4500}}, "unknown_parameters", "teff"),
        ({"parameters": {"vbroad": "5"}}, "invalid_request", "parameters.vbroad"),
        ({"parameters": {"vbroad": None}}, "invalid_request", "parameters.vbroad"),
        ({"parameters": [5]}, "invalid_request", "parameters"),
        ({"parameters": {"vbroad": 5}, "parameters_err": {"vbroad": -1}}, "invalid_request", "parameters_err"),
        ({"parameters": {"vbroad": 5}, "parameters_err": {"vmic": 1}}, "bad_parameters", "vmic"),
        ({"parameters": {"vbroad": 1e8}}, "no_latent", "latent"),
        ({"parameters": {"vbroad": 1e300}}, "bad_parameters", "vbroad"),
        ({"vbroad": 5}, "invalid_request", "vbroad"),
    ],
)
def test_refusals_name_what_is_wrong(client, star, change, code, named):
    response = client.post("/embed", json={**star[0], "star_id": "R-1", **change})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == code
    assert named in response.json()["error"]["message"]
    assert client.get("/stars/R-1").status_code == 404


def test_recasting_to_another_broadening(client, star):
    body, vbroad = star
    client.post("/embed", json={**body, "parameters": {"vbroad": vbroad}})
    own, sharp, broad = (
        client.post("/recast", json={"star_id": "S-1", "to": {"parameters": to}}).json()
        for to in ({}, {"vbroad": 1}, {"vbroad": 11})
    )
    assert own["from"] == own["to"]
    assert broad["from"]["parameters"] == {"vbroad": vbroad}
    assert broad["to"] == {**broad["from"], "parameters": {"vbroad": 11}}
    assert min(broad["flux"]) > min(sharp["flux"]) + 0.05
    spectrum = {key: value for key, value in body.items() if key != "star_id"}
    sent = {"spectrum": {**spectrum, "parameters": {"vbroad": vbroad}}, "to": {"parameters": {"vbroad": 11}}}
    assert client.post("/recast", json=sent).json()["flux"] == broad["flux"]
    sent["spectrum"] = spectrum
    assert client.post("/recast", json=sent).json()["error"]["code"] == "missing_parameters"
    for to in ({"parameters": {"vmic": 1}}, {"parameters": {"teff": 4500}}):
        refused = client.post("/recast", json={"star_id": "S-1", "to": to})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "not_conditioned")


def test_every_form_of_a_response_has_it(client, star):
    body, vbroad = star
    client.post("/embed", json={**body, "parameters": {"vbroad": vbroad}})
    client.post("/embed", json={**body, "star_id": "S-2", "parameters": {"vbroad": 3}})
    columns = {}
    for path in ("/stars", "/twins/S-1?fe_h_within=any"):
        query = f"{path}{'&' if '?' in path else '?'}format="
        table = Table.read(io.BytesIO(client.get(query + "votable").content), format="votable")
        columns[path] = table["vbroad"].tolist()
        assert table["vbroad"].unit == "km/s"
        rows = csv.DictReader(io.StringIO(client.get(query + "csv").text))
        assert [float(row["vbroad"]) for row in rows] == columns[path]
    assert columns["/twins/S-1?fe_h_within=any"][0] == 3
    wish = {"star_id": "S-1", "to": {"parameters": {"vbroad": 11}}}
    response = client.post("/recast?format=fits", json=wish)
    assert response.headers["content-disposition"].endswith('"recast-S-1-vbroad11.fits"')
    header = getheader(io.BytesIO(response.content))
    assert (header["FR_vbroad"], header["TO_vbroad"]) == (vbroad, 11)
    document = parse_single_table(io.BytesIO(client.post("/recast?format=votable", json=wish).content))
    assert {param.name: param.value for param in document.params}["to_vbroad"] == 11
    assert client.post("/recast?format=png", json=wish).content.startswith(b"\x89PNG")
    (result,) = client.post("/twins?fe_h_within=any", json={"star_ids": ["S-1"], "k": 1}).json()["results"]
    assert result["twins"][0]["parameters"] == {"vbroad": 3}
    client.delete("/stars/S-2")


def test_npz_and_fits_carry_it_by_name(client, star):
    body, vbroad = star
    arrays = {name: np.array([body[name]]) for name in ("star_id", "flux", "ivar", "teff", "logg", "fe_h")}

    def npz(**extra) -> httpx.Response:
        out = io.BytesIO()
        np.savez(out, **arrays, **extra)
        return client.post("/embed", content=out.getvalue(), headers=NPZ)

    (stored,) = npz(vbroad=np.array([vbroad])).json()["results"]
    assert stored["status"] in (200, 201)
    assert npz().json()["error"]["message"] == "the npz lacks vbroad"
    assert npz(vbroad=np.array([vbroad]), vmic=np.ones(1)).json()["error"]["code"] == "unknown_arrays"

    def fits(**extra) -> httpx.Response:
        return client.post("/embed", params=GIANT | extra, content=APSTAR.read_bytes(), headers=FITS)

    sure, unsure = fits(vbroad=4.5), fits(vbroad=4.5, vbroad_err=3)
    assert (sure.status_code, unsure.status_code) == (201, 200)
    assert sum(unsure.json()["latent_sd"]) > sum(sure.json()["latent_sd"])
    assert client.get(f"/stars/{sure.json()['star_id']}").json()["parameters"] == {"vbroad": 4.5}
    for extra, code in (
        ({}, "missing_parameters"),
        ({"vbroad": "nan"}, "invalid_request"),
        ({"vbroad": 4, "vmic": 1}, "invalid_request"),
        ({"vbroad": 4, "vbroad_err": -1}, "invalid_request"),
        ({"parameters": "{}"}, "invalid_request"),
    ):
        assert (fits(**extra).status_code, fits(**extra).json()["error"]["code"]) == (422, code)

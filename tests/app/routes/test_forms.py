"""The forms of the responses, read back by the libraries that people read them with."""

import csv
import io
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse, validate
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from tests.app.routes.test_errors import check

TWINS = "/twins/SYN-202-000003A?k=7"
VOTABLE = "application/x-votable+xml"
TO = {"star_id": "SYN-202-000003A", "to": {"teff": 4300.0, "logg": 1.5}}


def form_of(response) -> str:
    return response.headers["content-type"].partition(";")[0]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("text/csv, */*", "text/csv"),
        ("text/csv;q=0.5, application/json;q=0.4", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("application/json;q=0, */*", "text/csv"),
        (f"image/png, {VOTABLE};q=0.2", VOTABLE),
        ("text/csv;q=nonsense, application/json;q=0.1", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"),
    ],
)
def test_accept_picks_the_form(client, accept, kind):
    client.headers.pop("accept")
    response = client.get(TWINS, headers={} if accept is None else {"Accept": accept})
    assert (response.status_code, form_of(response)) == (200, kind)
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "application/json;q=0", "nonsense/type"])
def test_an_accept_that_nothing_matches_is_406(client, accept):
    check(client.get(TWINS, headers={"Accept": accept}), 406, "not_acceptable")
    check(client.get(TWINS + "&format=png", headers={"Accept": accept}), 422, "invalid_request")
    assert form_of(client.get(TWINS + "&format=csv", headers={"Accept": accept})) == "text/csv"


def rows(response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(response.text)))


def same(text: str, value) -> bool:
    if isinstance(value, bool):
        return text == str(value).lower()
    return text == "" if value is None else math.isclose(float(text), value, rel_tol=1e-12)


def test_twins_as_csv(client):
    response, json = (
        client.get(TWINS + "&format=csv&rank=likelihood"),
        client.get(TWINS + "&rank=likelihood").json(),
    )
    assert response.headers["content-disposition"] == 'attachment; filename="twins-SYN-202-000003A.csv"'
    lines = rows(response)
    assert list(lines[0]) == [*json["twins"][0], "model"]
    assert len(lines) == 7
    for row, twin in zip(lines, json["twins"], strict=True):
        assert [row.pop(name) for name in ("star_id", "verdict")] == [twin["star_id"], twin["verdict"]]
        assert row.pop("model") == f"{json['model']['name']}@{json['model']['version']}"
        assert all(same(value, twin[name]) for name, value in row.items())


def votable(response):
    """The table of a response that the validator and the strictest reader accept, read as pyvo reads it."""
    assert response.status_code == 200, response.text
    assert form_of(response) == VOTABLE
    said = io.StringIO()
    assert validate(io.BytesIO(response.content), said), said.getvalue()
    document = parse(io.BytesIO(response.content), verify="exception")
    (resource,) = [resource for resource in document.resources if resource.type == "results"]
    (status,) = [info.value for info in resource.infos if info.name == "QUERY_STATUS"]
    return resource.tables[0], status


def test_twins_as_votable(client):
    json = client.get(TWINS).json()
    response = client.get(TWINS, headers={"Accept": VOTABLE})
    assert response.headers["content-disposition"] == 'attachment; filename="twins-SYN-202-000003A.vot"'
    table, status = votable(response)
    assert status == "OK"
    params = {param.name: param.value for param in table.params}
    assert params["asked_star_id"] == "SYN-202-000003A"
    assert params["model"] == f"{json['model']['name']}@{json['model']['version']}"
    assert params["metric"] == json["metric"]
    assert (bool(params["exact"]), int(params["searched"]), int(params["k"])) == (True, json["searched"], 7)
    assert all(field.description and field.ucd for field in table.fields)
    (main,) = [field.name for field in table.fields if field.ucd == "meta.id;meta.main"]
    read = Table.read(io.BytesIO(response.content), format="votable")
    assert read[main].tolist() == [twin["star_id"] for twin in json["twins"]]
    assert str(read["teff"].unit) == "K"
    for name in (
        "distance",
        "p_same",
        "verdict",
        "doppelganger_rate",
        "teff",
        "logg",
        "fe_h",
        "snr",
        "in_domain",
    ):
        assert read[name].tolist() == [twin[name] for twin in json["twins"]], name


def test_twins_of_a_bare_spectrum_as_a_table(client, star):
    bare = {name: value for name, value in star.items() if name not in ("ivar", "star_id")} | {"logg": 4.4}
    response = client.post("/twins?k=3&format=votable&fe_h_within=any", json=bare)
    assert response.headers["content-disposition"] == 'attachment; filename="twins.vot"'
    table, _ = votable(response)
    params = {param.name: param.value for param in table.params}
    assert bool(params["in_domain"]) is False
    assert "logg = 4.4 is outside" in params["warning_1"]
    assert np.ma.getmaskarray(table.to_table()["p_same"]).all()
    lines = rows(client.post("/twins?k=3&format=csv&fe_h_within=any", json=bare))
    assert [(row["p_same"], row["verdict"]) for row in lines] == [("", "cannot tell")] * 3


def test_no_twins_make_an_empty_table(client):
    query = TWINS + "&max_distance=0"
    assert len(votable(client.get(query + "&format=votable"))[0].array) == 0
    assert rows(client.get(query + "&format=csv")) == []


def test_stars_as_tables(client):
    json = client.get("/stars?limit=5").json()
    response = client.get("/stars?limit=5&format=csv")
    lines = rows(response)
    assert [row["star_id"] for row in lines] == [star["star_id"] for star in json["stars"]]
    assert [float(row["latent_17"]) for row in lines] == pytest.approx([s["latent"][17] for s in json["stars"]])
    assert response.links["next"]["url"] == f"/stars?after={json['next']}&limit=5&format=csv"
    following = client.get(response.links["next"]["url"])
    assert following.headers["content-disposition"] == f'attachment; filename="stars-after-{json["next"]}.csv"'
    assert rows(following)[0]["star_id"] > json["next"]
    response = client.get("/stars?limit=5&format=votable")
    table, status = votable(response)
    assert status == "OVERFLOW"
    read = table.to_table()
    assert read["latent"].shape == (5, 18)
    np.testing.assert_array_equal(read["latent_sd"][0], np.array(json["stars"][0]["latent_sd"], "f4"))
    last = client.get("/stars?limit=1000&after=SYN-202-000500A&format=votable")
    assert votable(last)[1] == "OK"
    assert "link" not in last.headers


def test_tables_go_from_their_address_into_fits(service, tmp_path):
    for path in (
        TWINS,
        "/twins/SYN-202-000003A?fe_h_within=0&max_distance=0",
        "/stars?limit=5",
        "/cone?RA=0&DEC=0&SR=1",
    ):
        address = service.url + path + ("" if "cone" in path else "&format=votable")
        table = Table.read(address, format="votable")
        table.write(tmp_path / "x.fits", overwrite=True)
        back = Table.read(tmp_path / "x.fits")
        assert (len(back), back.colnames) == (len(table), table.colnames)
        assert list(back["star_id"].astype(str)) == list(table["star_id"])
        assert {table[name].dtype.kind for name in table.colnames} <= set("Ufb"), "no objects"


def test_recast_as_csv_and_votable(client):
    json = client.post("/recast", json=TO).json()
    response = client.post("/recast?format=csv", json=TO)
    assert (
        response.headers["content-disposition"]
        == 'attachment; filename="recast-SYN-202-000003A-teff4300-logg1.5.csv"'
    )
    lines = rows(response)
    assert list(lines[0]) == ["wavelength", "flux", "flux_sd", "model", "in_domain", "warnings"]
    assert {(row["in_domain"], row["warnings"]) for row in lines} == {("true", "")}
    assert [float(row["wavelength"]) for row in lines] == json["wavelength"]
    np.testing.assert_array_equal(np.array([row["flux"] for row in lines], "f4"), np.array(json["flux"], "f4"))
    table, _ = votable(client.post("/recast", json=TO, headers={"Accept": VOTABLE}))
    params = {param.name: param.value for param in table.params}
    assert (params["to_teff"], params["to_logg"]) == (4300, 1.5)
    assert params["from_teff"] == json["from"]["teff"]
    read = table.to_table()
    np.testing.assert_allclose(read["wavelength"].to("AA").value, json["wavelength"], rtol=1e-15)
    np.testing.assert_array_equal(read["flux"], np.array(json["flux"], "f4"))


@pytest.mark.parametrize("errors", [True, False])
def test_recast_opens_in_specutils(client, star, tmp_path, errors):
    from specutils import Spectrum

    without = () if errors else ("ivar",)
    wish = TO if errors else {
        "spectrum": {name: value for name, value in star.items() if name not in ("star_id", *without)}, "to": {"logg": 9.0}
    }  # fmt: skip
    json = client.post("/recast", json=wish).json()
    response = client.post("/recast", json=wish, headers={"Accept": "image/fits"})
    assert (response.status_code, form_of(response)) == (200, "application/fits")
    name = "recast-SYN-202-000003A-teff4300-logg1.5.fits" if errors else "recast-logg9.fits"
    assert response.headers["content-disposition"] == f'attachment; filename="{name}"'
    path = tmp_path / name
    path.write_bytes(response.content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        spectrum = Spectrum.read(path)
    good = ~spectrum.mask
    assert good.sum() == len(json["wavelength"]) == 7514
    np.testing.assert_allclose(spectrum.spectral_axis.to_value("AA")[good], json["wavelength"], rtol=1e-10)
    np.testing.assert_array_equal(spectrum.flux.value[good], np.array(json["flux"], "f4"))
    assert np.isnan(spectrum.flux.value[~good]).all()
    assert spectrum.flux.unit == ""
    header = spectrum.meta["header"]
    assert (header["VACUUM"], header["CTYPE1"], header["MODEL"]) == (True, "WAVE-LOG", json["model"]["name"])
    if errors:
        assert type(spectrum.uncertainty).__name__ == "StdDevUncertainty"
        np.testing.assert_array_equal(spectrum.uncertainty.array[good], np.array(json["flux_sd"], "f4"))
        assert (header["OBJECT"], header["TO_TEFF"], header["FR_TEFF"]) == (
            "SYN-202-000003A", 4300, json["from"]["teff"]
        )  # fmt: skip
    else:
        assert spectrum.uncertainty is None
        assert ("OBJECT" in header, header["INDOMAIN"]) == (False, False)
        assert "logg = 9 is outside" in str(header["COMMENT"]).replace("\n", "")


def test_the_fits_table_holds_the_models_own_pixels(client):
    json = client.post("/recast", json=TO).json()
    with fits.open(io.BytesIO(client.post("/recast?format=fits", json=TO).content), checksum=True) as hdus:
        hdus.verify("exception")
        table = Table.read(hdus["SPECTRUM"])
    assert table["wavelength"].tolist() == json["wavelength"]
    assert str(table["wavelength"].unit) == "Angstrom"


def test_recast_as_a_picture(client, star):
    from matplotlib.image import imread

    response = client.post("/recast", json=TO, headers={"Accept": "image/png"})
    assert (response.status_code, form_of(response)) == (200, "image/png")
    assert (
        response.headers["content-disposition"]
        == 'inline; filename="recast-SYN-202-000003A-teff4300-logg1.5.png"'
    )
    picture = imread(io.BytesIO(response.content))
    assert picture.shape[0] > 1000
    assert picture.shape[1] > 1500
    blue = np.abs(picture[..., :3] - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=-1) < 0.1
    orange = np.abs(picture[..., :3] - np.array([0xD5, 0x5E, 0x00]) / 255).max(axis=-1) < 0.1
    assert min(blue.sum(), orange.sum()) > 1000, "both spectra are drawn"
    spectrum = {name: value for name, value in star.items() if name != "star_id"}
    assert client.post("/recast?format=png", json={"spectrum": spectrum, "to": {}}).status_code == 200


def test_what_a_recast_refuses_is_json_whatever_was_asked(client):
    wish = TO | {"star_id": "nobody"}
    for form in ("csv", "fits", "png", "votable"):
        check(client.post(f"/recast?format={form}", json=wish), 404, "star_not_found")
    check(client.post("/recast?format=gif", json=TO), 422, "invalid_request")
    check(client.post("/recast?forms=png", json=TO), 422, "invalid_request")
    check(client.post("/recast", json=TO, headers={"Accept": "text/html"}), 406, "not_acceptable")


def test_openapi_tells_the_forms(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"application/json", "text/csv", VOTABLE} == set(
        paths["/twins/{star_id}"]["get"]["responses"]["200"]["content"]
    )
    assert {"image/png", "application/fits"} < set(paths["/recast"]["post"]["responses"]["200"]["content"])
    asked = paths["/twins"]["post"]
    assert {"k", "format", "teff_min"} <= {parameter["name"] for parameter in asked["parameters"]}
    taken = {"application/json", "application/fits", "image/fits", "application/x-npz"}
    assert set(asked["requestBody"]["content"]) == taken


@pytest.mark.slow
def test_a_start_imports_no_matplotlib():
    code = "import sys, app.application; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_abundances_as_tables(client):
    path = "/stars/SYN-202-000003A/abundances"
    response = client.get(path).json()
    table, _ = votable(client.get(path, headers={"Accept": VOTABLE}))
    params = {param.name: param.value for param in table.params}
    assert (params["star_id"], bool(params["in_domain"])) == (response["star_id"], response["in_domain"])
    assert params["model"] == f"{response['model']['name']}@{response['model']['version']}"
    read, lines = table.to_table(), rows(client.get(path + "?format=csv"))
    for name in ("element", "x_fe", "x_fe_err"):
        expected = [one[name] for one in response["abundances"]]
        assert read[name].tolist() == expected
        assert [line[name] for line in lines] == [str(value) for value in expected]


def test_a_form_that_a_response_does_not_have_is_refused(client):
    for method, path in (
        ("GET", "/stars/X"),
        ("GET", "/model"),
        ("GET", "/map"),
        ("DELETE", "/stars/X"),
    ):
        refused = client.request(method, path + "?format=csv")
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")
        assert "'format'" in refused.json()["error"]["message"]
    assert client.get("/stars/X/abundances?format=fits").status_code == 422
    assert client.get("/stars/X/spectrum?format=png").status_code == 422

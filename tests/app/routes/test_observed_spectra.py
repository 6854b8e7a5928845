"""Observed spectra of stored stars, and recasts with a star's own residual, asked of a service with real giants."""

import csv
import io

import h5py
import httpx
import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table

from tests.conftest import GIANTS

STAR = "2M08512156+1146061"
OTHER = "2M19205368+3750236"
TO = {"teff": 4500.0, "logg": 2.2}


@pytest.fixture
def observed(giants):
    with httpx.Client(base_url=giants.url, timeout=60) as client:
        yield client


@pytest.fixture
def shown(observed) -> dict:
    return observed.get(f"/stars/{STAR}/spectrum").json()


def numbers(values) -> np.ndarray:
    return np.array(values, dtype=float)


def test_the_spectrum_is_the_survey_s(shown, model):
    with h5py.File(GIANTS) as file:
        row = file["star_id"].asstr()[:].tolist().index(STAR)
        flux, error = (file[name][row][model.grid.apogee_pixels] for name in ("flux", "error"))
    known = np.isfinite(numbers(shown["flux"]))
    assert known.sum() <= (error > 0).sum()
    assert known.sum() > 0.95 * (error > 0).sum()
    ratio = numbers(shown["flux"])[known] / flux[known]
    assert np.std(ratio) < 0.02, "the model's own normalisation differs by a smooth factor"
    assert np.allclose(numbers(shown["error"])[known] / error[known], ratio, rtol=0.01)


def test_as_csv_and_votable(observed, shown):
    path = f"/stars/{STAR}/spectrum"
    response = observed.get(path, params={"format": "csv"})
    assert response.headers["content-disposition"] == f'attachment; filename="spectrum-{STAR}.csv"'
    lines = list(csv.DictReader(io.StringIO(response.text)))
    assert list(lines[0]) == [
        "wavelength", "flux", "error", "reconstruction", "model", "in_domain", "warnings"
    ]  # fmt: skip
    assert {(line["in_domain"], line["warnings"]) for line in lines} == {("true", "")}
    response = observed.get(path, headers={"Accept": "application/x-votable+xml"})
    table = parse_single_table(io.BytesIO(response.content))
    for name in ("wavelength", "flux", "error", "reconstruction"):
        expected = numbers(shown[name])
        assert np.allclose(
            numbers([line[name] or "nan" for line in lines]), expected, equal_nan=True, rtol=1e-6
        )
        assert np.allclose(np.ma.filled(table.array[name], np.nan), expected, equal_nan=True, rtol=1e-6)
    params = {param.name: param.value for param in table.params}
    assert (params["star_id"], params["teff"]) == (STAR, shown["teff"])


def test_as_fits_it_opens_in_specutils(observed, shown, tmp_path):
    from specutils import Spectrum

    path = tmp_path / "spectrum.fits"
    path.write_bytes(observed.get(f"/stars/{STAR}/spectrum", params={"format": "fits"}).content)
    with fits.open(path) as hdus:
        assert hdus[0].header["OBJECT"] == STAR
        assert (hdus[0].header["TEFF"], hdus[0].header["LOGG"]) == (shown["teff"], shown["logg"])
        table = hdus["SPECTRUM"].data
        assert np.allclose(table["flux"], numbers(shown["flux"]), equal_nan=True)
    opened = Spectrum.read(path)
    flux = numbers(shown["flux"])
    known = np.isfinite(flux)
    assert np.array_equal(opened.flux.value[~opened.mask].astype("f4"), flux[known].astype("f4"))
    assert np.allclose(opened.uncertainty.array[~opened.mask], numbers(shown["error"])[known])
    wavelength = opened.spectral_axis.to_value("AA")[~opened.mask]
    assert np.allclose(wavelength, numbers(shown["wavelength"])[known], rtol=1e-8)


def test_without_a_stored_spectrum(client):
    """JSON has the reconstruction alone, unless the observed spectrum is asked for."""
    path = "/stars/SYN-202-000003A/spectrum"
    assert client.get(path).json()["flux"] is None
    for query in ("observed=true", "format=csv", "format=fits", "format=votable"):
        response = client.get(f"{path}?{query}")
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (404, "no_spectrum")
        assert "CHEMTWIN_STORE_SPECTRA" in error["message"]
    assert client.get("/stars/NO/spectrum?observed=true").json()["error"]["code"] == "star_not_found"


def test_a_recast_with_its_own_residual(observed, shown):
    """At its own parameters it is the observed spectrum; elsewhere the plain recast and that residual."""
    flux, reconstruction = numbers(shown["flux"]), numbers(shown["reconstruction"])
    good = np.isfinite(flux)
    own = observed.post("/recast", json={"star_id": STAR, "to": {}, "residual": True}).json()
    assert own["residual"] is True
    assert not good.all()
    assert np.allclose(numbers(own["flux"]), flux, atol=2e-5, equal_nan=True)
    plain = observed.post("/recast", json={"star_id": STAR, "to": TO}).json()
    assert plain["residual"] is False
    changed = observed.post("/recast", json={"star_id": STAR, "to": TO, "residual": True}).json()
    residual = flux - reconstruction
    assert np.nanstd(residual) > 0.005
    expected = numbers(plain["flux"]) + residual
    assert np.allclose(numbers(changed["flux"]), expected, atol=3e-5, equal_nan=True)
    expected = np.hypot(numbers(plain["flux_sd"]), numbers(shown["error"]))
    assert np.allclose(numbers(changed["flux_sd"]), expected, atol=2e-5, equal_nan=True)


def test_residuals_in_every_form(observed):
    wish = {"star_id": STAR, "to": TO, "residual": True}
    json = observed.post("/recast", json=wish).json()
    lines = list(csv.DictReader(io.StringIO(observed.post("/recast?format=csv", json=wish).text)))
    found = numbers([line["flux"] or None for line in lines])
    assert np.allclose(found, numbers(json["flux"]), atol=1e-6, equal_nan=True)
    with fits.open(io.BytesIO(observed.post("/recast?format=fits", json=wish).content)) as hdus:
        assert hdus[0].header["RESIDUAL"] is True
        assert np.allclose(hdus["SPECTRUM"].data["flux_sd"], numbers(json["flux_sd"]), equal_nan=True)
        assert hdus["MASK"].data.sum() > np.isnan(numbers(json["flux"])).sum() > 0
    table = parse_single_table(io.BytesIO(observed.post("/recast?format=votable", json=wish).content))
    assert {param.name: param.value for param in table.params}["residual"]
    plain = observed.post("/recast?format=png", json={**wish, "residual": False}).content
    picture = observed.post("/recast?format=png", json=wish).content
    assert picture[:4] == plain[:4] == b"\x89PNG"
    assert picture != plain


def test_residuals_of_several_stars(observed):
    several = observed.post("/recast", json={"star_ids": [STAR, OTHER], "to": TO, "residual": True}).json()
    for star_id, result in zip((STAR, OTHER), several["results"], strict=True):
        alone = observed.post("/recast", json={"star_id": star_id, "to": TO, "residual": True}).json()
        assert np.allclose(numbers(result["flux"]), numbers(alone["flux"]), atol=1e-5, equal_nan=True)


def test_residuals_of_spectra_that_are_sent(client, star):
    sent = {name: value for name, value in star.items() if name != "star_id"}
    own = client.post("/recast", json={"spectrum": sent, "to": {}, "residual": True}).json()
    plain = client.post("/recast", json={"spectrum": sent, "to": {}}).json()
    flux = client.post("/spectrum", json=sent).json()["flux"]
    assert np.allclose(numbers(own["flux"]), numbers(flux), atol=2e-5)
    assert np.allclose(numbers(own["flux_sd"]) ** 2 - numbers(plain["flux_sd"]) ** 2, 1e-4, rtol=0.5)


def test_residuals_that_are_not_known(client, star):
    stored = client.post("/recast", json={"star_id": "SYN-202-000003A", "to": TO, "residual": True})
    assert (stored.status_code, stored.json()["error"]["code"]) == (404, "no_spectrum")
    several = client.post("/recast", json={"star_ids": ["SYN-202-000003A"], "to": TO, "residual": True}).json()
    assert several["results"][0]["error"]["code"] == "no_spectrum"
    latent = client.get("/stars/SYN-202-000003A").json()
    origin = {"latent": latent["latent"], "from": {name: latent[name] for name in ("teff", "logg", "fe_h")}}
    alone = client.post("/recast", json={"star": origin, "to": TO, "residual": True})
    assert (alone.status_code, alone.json()["error"]["code"]) == (422, "no_spectrum")

"""POST /recast, asked of a running server."""

import csv
import io

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table


def test_recasting_to_its_own_parameters_gives_the_star_back(client, star, posted, model):
    response = client.post("/recast", json={"star_id": "TEST-1", "to": {}}).json()
    assert response["from"] == response["to"] == {name: star[name] for name in ("teff", "logg", "fe_h")}
    assert response["wavelength"] == model.grid.wavelength.tolist()
    own = model.normaliser.batch(np.array([star["flux"]], dtype=np.float32))[0]
    assert np.sqrt(np.mean((np.array(response["flux"]) - own) ** 2)) < 0.0105  # the noise of S/N 100
    assert len(response["flux_sd"]) == len(response["flux"])
    assert 0 < np.median(response["flux_sd"]) < 0.01


def test_a_latent_that_no_star_has_is_said(client, posted, model):
    own = {"teff": 4705, "logg": 2.5, "fe_h": 0}
    size = model.card.latent_dim
    for number, in_domain in ((0.0, True), (1000.0, False)):
        body = {"star": {"latent": [number] * size, "from": own}, "to": {}}
        response = client.post("/recast", json=body).json()
        assert (response["in_domain"], len(response["warnings"])) == (in_domain, 0 if in_domain else 1)
    assert "where no star is" in response["warnings"][0]
    body = {"star": {"latent": [1e30] * size, "from": own}, "to": {}}
    assert "below 1e+06" in client.post("/recast", json=body).json()["error"]["message"]


def test_recasting_finds_the_twins_spectrum(client, model, catalogue):
    with h5py.File(catalogue) as file:
        pairs = [(i, i + 1) for i in range(0, 40, 2)]
        flux = model.normaliser.batch(file["flux"][:40])
        labels = [{n: float(file[n][i]) for n in ("teff", "logg", "fe_h")} for i in range(40)]
        ids = file["star_id"].asstr()[:40]
    recast, raw = [], []
    for a, b in pairs:
        response = client.post("/recast", json={"star_id": ids[a], "to": labels[b]}).json()
        recast.append(np.mean((np.array(response["flux"]) - flux[b]) ** 2))
        raw.append(np.mean((flux[a] - flux[b]) ** 2))
    assert np.mean(recast) - 1e-4 < 0.2 * (np.mean(raw) - 2e-4)


def test_a_recast_says_where_it_is_computed(client, posted, model):
    """Beyond the margin of the training range it is that of the nearest parameters, in every form."""
    near = client.post("/recast", json={"star_id": "TEST-1", "to": {"teff": 5100}}).json()
    assert (near["in_domain"], near["computed_at"]) == (False, near["to"])
    assert len(near["warnings"]) == 1
    wish = {"star_id": "TEST-1", "to": {"teff": 9000, "logg": 2.0}}
    far = client.post("/recast", json=wish).json()
    assert far["computed_at"] == {**far["to"], "teff": pytest.approx(5200, abs=0.1)}
    assert (far["in_domain"], far["to"]["teff"]) == (False, 9000)
    assert far["warnings"][1] == (
        "the flux is computed at teff = 5200 K: the model cannot go farther outside its training range"
    )
    same = client.post("/recast", json={"star_id": "TEST-1", "to": far["computed_at"]}).json()
    assert far["flux"] == same["flux"]
    (several,) = client.post("/recast", json={"star_ids": ["TEST-1"], "to": wish["to"]}).json()["results"]
    assert (several["computed_at"], several["warnings"]) == (far["computed_at"], far["warnings"])
    row = next(csv.DictReader(io.StringIO(client.post("/recast?format=csv", json=wish).text)))
    assert (row["in_domain"], row["warnings"]) == ("false", "; ".join(far["warnings"]))
    with fits.open(io.BytesIO(client.post("/recast?format=fits", json=wish).content)) as hdus:
        assert (hdus[0].header["TO_TEFF"], hdus[0].header["AT_TEFF"]) == (9000, far["computed_at"]["teff"])
    table = parse_single_table(io.BytesIO(client.post("/recast?format=votable", json=wish).content))
    params = {param.name: param.value for param in table.params}
    assert (params["to_teff"], params["computed_at_teff"]) == (9000, far["computed_at"]["teff"])


def test_recasting_a_spectrum_stores_nothing(client, star):
    spectrum = {name: value for name, value in star.items() if name != "star_id"}
    response = client.post("/recast", json={"spectrum": spectrum, "to": {"teff": 4900, "logg": 9.0}})
    assert response.status_code == 200, response.text
    assert response.json()["star_id"] is None
    assert response.json()["in_domain"] is False
    assert "logg = 9 is outside" in response.json()["warnings"][0]

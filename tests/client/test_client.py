"""One star at a time: embed, twins, recast and the rest, against a running service."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io.votable import parse_single_table
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable, Table
from chemtwin_client import Chemtwin, ChemtwinWarning, Embedded, InvalidRequest, NotFound, as_table

from model.spectra.grid import APOGEE_PIXELS
from tests.conftest import APSTAR, ASPCAP, GIANT

ODD = "Odd+1.2:3_4-5"


@pytest.fixture
def arrays(star):
    """Flux and ivar of a catalogue star on the model's grid, and its labels."""
    labels = {name: star[name] for name in ("teff", "logg", "fe_h")}
    return np.array(star["flux"]), np.array(star["ivar"]), labels


@pytest.fixture
def stored(chem, arrays):
    """The same star, stored under an id that addresses must escape."""
    flux, ivar, labels = arrays
    yield chem.embed(flux, ivar=ivar, star_id=ODD, ra=10.5, dec=-3.25, meta={"field": "M 67"}, **labels)
    chem.delete(ODD)


def test_a_fits_file_is_stored_as_the_service_stores_it(chem, client):
    with pytest.warns(ChemtwinWarning, match="unlike those"):
        star = chem.embed(APSTAR, **GIANT)
    assert isinstance(star, Embedded)
    assert (star.star_id, star.replaced, star.in_domain) == ("2M00004994+1621552", False, False)
    direct = client.get(f"/stars/{star.star_id}").json()
    assert star.latent.tolist() == direct["latent"]
    assert star.snr == direct["snr"]
    with pytest.warns(ChemtwinWarning, match="unlike those"):
        assert chem.embed(str(APSTAR), **GIANT).replaced
    chem.delete(star.star_id)
    with pytest.raises(NotFound):
        chem.star(star.star_id)


def test_labels_come_from_the_file_and_warnings_are_python_s_too(chem):
    with pytest.warns(ChemtwinWarning) as warned:
        star = chem.embed(ASPCAP)
    assert not star.in_domain
    assert any(text.startswith("teff") for text in star.warnings)
    assert [str(one.message) for one in warned] == [f"{star.star_id}: {text}" for text in star.warnings]
    assert {one.filename for one in warned} == {__file__}
    chem.delete(star.star_id)


def test_arrays_in_any_unit_and_byte_order_give_the_same_latent(chem, arrays, stored, model):
    flux, ivar, labels = arrays
    assert stored.latent_sd is not None
    ways = [
        {"source": flux.astype(">f8"), "ivar": ivar.astype(">f8"), **labels},
        {"source": flux * u.dimensionless_unscaled, "error": 1 / np.sqrt(ivar), **labels},
        {"source": 100 * flux * u.percent, "error": np.ma.array(100 / np.sqrt(ivar)), **labels},
        {
            "source": flux,
            "ivar": ivar,
            "wavelength": model.grid.wavelength / 10 * u.nm,
            "teff": labels["teff"] / 1000 * u.kK,
            "logg": u.Dex(labels["logg"], u.dex(u.cm / u.s**2)),
            "fe_h": labels["fe_h"] * u.dex,
        },
    ]
    for way in ways:
        again = chem.embed(**way, star_id="way")
        assert np.abs(again.latent - stored.latent).max() < 1e-3
        chem.delete("way")


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_a_spectrum_s_uncertainty_mask_order_and_velocity_are_minded(chem, arrays, stored, model, kind):
    from specutils import Spectrum

    flux, ivar, labels = arrays
    mask = np.zeros(len(flux), dtype=bool)
    mask[100:130] = True
    spoilt = np.where(mask, np.nan, flux)
    rest = model.grid.wavelength * u.AA
    error = StdDevUncertainty(1 / np.sqrt(ivar)).represent_as(kind)
    plain = Spectrum(flux=spoilt * u.one, spectral_axis=rest, uncertainty=error, mask=mask)
    star = chem.embed(plain, star_id="spectrum", **labels)
    assert star.masked_fraction == pytest.approx(30 / len(flux))
    assert np.abs(star.latent - stored.latent).max() < 1
    backwards = Spectrum(
        flux=spoilt * u.one, spectral_axis=rest.to(u.THz, u.spectral()), uncertainty=error, mask=mask
    )
    moving = Spectrum(
        flux=spoilt * u.one,
        spectral_axis=rest * np.sqrt((1 + 1e-4) / (1 - 1e-4)),
        uncertainty=error,
        mask=mask,
        radial_velocity=1e-4 * 299792.458 * u.km / u.s,
    )
    for same in (backwards, moving):
        again = chem.embed(same, star_id="spectrum", **labels)
        assert np.abs(again.latent - star.latent).max() < 0.02
    unmoved = Spectrum(
        flux=moving.flux, spectral_axis=moving.spectral_axis.value * u.AA, uncertainty=error, mask=mask
    )
    with pytest.warns(ChemtwinWarning) as warned:
        wrong = chem.embed(unmoved, star_id="spectrum", **labels)
    assert ["unlike those" in str(one.message) for one in warned] == [False, True]
    assert np.abs(wrong.latent - star.latent).max() > 1
    chem.delete("spectrum")


def test_a_flux_with_a_unit_is_taken_for_counts(chem, arrays, model):
    flux, ivar, labels = arrays
    slope = 1e-14 * (1 + np.linspace(0, 0.5, len(flux)))
    unit = u.erg / u.s / u.cm**2 / u.AA
    wavelength = model.grid.wavelength * u.AA
    known = {"wavelength": wavelength, "star_id": "counts", **labels}
    plain = chem.embed(flux, ivar=ivar, **known)
    counts = chem.embed(slope * flux * unit, ivar=ivar / slope**2 / unit**2, **known)
    assert counts.replaced
    assert np.abs(counts.latent - plain.latent).max() < 0.1
    micro = chem.embed(
        slope * flux * unit, error=slope * 1e-2 * unit.to(u.uW / u.m**2 / u.um) * u.uW / u.m**2 / u.um, **known
    )
    assert np.abs(micro.latent - counts.latent).max() < 1e-3
    chem.delete("counts")


def test_specutils_own_reader_of_an_apstar_gives_nearly_what_the_service_reads(chem):
    from specutils import Spectrum

    with pytest.warns(ChemtwinWarning, match="unlike those"):
        star = chem.embed(APSTAR, **GIANT)
    with pytest.warns(ChemtwinWarning, match="unlike those"):
        found = chem.twins(Spectrum.read(APSTAR, format="APOGEE apStar"), k=1, **GIANT)
    assert found["star_id"][0] == star.star_id
    assert found["distance"][0] < 1.5
    chem.delete(star.star_id)


def test_twins_are_the_service_s_votable_with_its_units_ucds_and_descriptions(chem, client, stored, tmp_path):
    for rank in ("distance", "likelihood"):
        found = chem.twins(ODD, k=5, rank=rank, snr_min=10)
        path = tmp_path / "twins.vot"
        asked = client.get(f"/twins/{ODD}", params={"k": 5, "rank": rank, "snr_min": 10, "format": "votable"})
        path.write_bytes(asked.content)
        votable = parse_single_table(path)
        official = votable.to_table()
        assert found.colnames == official.colnames
        for name in found.colnames[1:]:
            numbers = name not in ("verdict", "cluster")
            assert np.array_equal(
                found[name], np.asarray(official[name].astype(found[name].dtype)), equal_nan=numbers
            )
            assert (found[name].unit or u.one) == (official[name].unit or u.one)
            assert found[name].meta["ucd"] == official[name].meta["ucd"]
            assert name == "teff" or found[name].description == official[name].description
        assert list(found["star_id"]) == list(official["star_id"])
        stated = {param.name: param.value for param in votable.params}
        names = {"star_id": "asked_star_id", "within": "fe_h_within"}
        assert stated.pop("in_domain")
        assert {names.get(name, name): value for name, value in found.meta.items()} == stated


def test_stars_are_the_service_s_votable_too(chem, client, stored, tmp_path):
    path = tmp_path / "stars.vot"
    path.write_bytes(client.get("/stars", params={"format": "votable", "limit": 1000}).content)
    official = parse_single_table(path).to_table()
    shown = as_table(star for star, _ in zip(chem.iter_stars(), range(1000), strict=False))
    assert shown.colnames == official.colnames
    for name in shown.colnames:
        assert (shown[name].unit or u.one) == (official[name].unit or u.one)
        assert shown[name].meta["ucd"] == official[name].meta["ucd"]
        assert shown[name].description == official[name].description
    assert list(shown["star_id"]) == list(official["star_id"])
    assert shown["latent"].shape == official["latent"].shape
    row = list(shown["star_id"]).index(ODD)
    assert (shown["ra"][row], shown["dec"][row]) == (10.5, -3.25)
    assert np.isnan(shown["ra"][row - 1])


def test_what_to_mind_of_a_stored_star_comes_with_its_twins(chem, stored, three):
    labels, flux = three
    row = {name: float(labels[name][0]) for name in ("teff", "logg", "fe_h")}
    with pytest.warns(ChemtwinWarning, match="is below 20"):
        chem.embed(flux[0], ivar=np.full(flux.shape[1], 100.0), star_id="NOISY", **row)
    with pytest.warns(ChemtwinWarning, match="NOISY: S/N .* is below 20: hardly any twin stands out"):
        assert len(chem.twins("NOISY", k=2)) == 2
    chem.delete("NOISY")


def test_a_table_of_twins_is_a_qtable_and_goes_to_files(chem, stored, tmp_path):
    found = chem.twins(ODD, k=4)
    assert QTable(found)["teff"].unit == u.K
    for form in ("vot", "fits", "ecsv", "csv"):
        found.write(tmp_path / f"twins.{form}", **({"format": "votable"} if form == "vot" else {}))
        again = Table.read(tmp_path / f"twins.{form}")
        assert list(again["star_id"].astype(str)) == list(found["star_id"])
        assert np.allclose(again["distance"], found["distance"], atol=1e-4)


def test_filters_and_order(chem, stored):
    found = chem.twins(ODD, k=20, teff_min=4200 * u.K, teff_max=4600, fe_h_within="any")
    assert len(found) == 20
    assert np.all((found["teff"] >= 4200) & (found["teff"] <= 4600))
    assert np.all(np.diff(found["distance"]) >= 0)
    assert ODD not in found["star_id"]
    assert found["in_domain"].all()
    assert len(chem.twins(ODD, k=20, in_domain=True)) == 20
    assert not chem.twins(ODD, k=20, in_domain=False)["in_domain"].any()
    near = chem.twins(ODD, k=1000, max_distance=12.0)
    assert 0 < len(near) < 1000
    assert near["distance"].max() <= 12
    assert len(chem.twins(ODD, max_distance=0.0)) == 0
    ratios = chem.twins(ODD, k=5, rank="likelihood")["log_likelihood_ratio"]
    assert np.all(np.diff(ratios) <= 0)


def test_twins_of_a_spectrum_that_is_not_stored(chem, arrays, stored):
    flux, ivar, labels = arrays
    found = chem.twins(flux, k=2, ivar=ivar, **labels)
    assert found["star_id"][0] == ODD
    assert found.meta["star_id"] is None
    assert found.meta["in_domain"]
    assert found.meta["warnings"] == []
    assert found["verdict"][0] == "same within noise"
    with pytest.warns(ChemtwinWarning, match="unlike those"):
        of_file = chem.twins(APSTAR, k=3, **GIANT)
    assert set(of_file["verdict"]) == {"cannot tell"}
    with pytest.raises(NotFound):
        chem.star("2M00004994+1621552")
    unknown = chem.twins(flux, k=2, **labels)
    assert np.all(np.isnan(unknown["p_same"]))


def test_a_recast_is_a_spectrum(chem, client, stored, arrays):
    from specutils import Spectrum

    to = {"teff": 4.3 * u.kK, "logg": 1.9}
    recast = chem.recast(ODD, to)
    assert isinstance(recast, Spectrum)
    direct = client.post("/recast", json={"star_id": ODD, "to": {"teff": 4300, "logg": 1.9}}).json()
    assert np.array_equal(recast.flux.value, direct["flux"])
    assert np.array_equal(recast.spectral_axis.to_value(u.AA), direct["wavelength"])
    assert np.array_equal(recast.uncertainty.array, direct["flux_sd"])
    assert isinstance(recast.uncertainty, StdDevUncertainty)
    assert recast.meta["from"] == direct["from"]
    assert recast.meta["to"] == direct["to"]
    assert recast.meta["in_domain"]
    flux, ivar, labels = arrays
    unseen = chem.recast(flux, to, ivar=ivar, star_id="ignored", **labels)
    assert np.abs(unseen.flux.value - recast.flux.value).max() < 1e-5
    own = chem.recast(ODD, chem.star(ODD).labels)
    assert np.std(own.flux.value - np.array(flux)) < 0.05
    with pytest.warns(ChemtwinWarning) as warned:
        far = chem.recast(ODD, {"teff": 6500})
    assert [str(one.message).startswith(f"{ODD}: the flux is computed at teff = 5200") for one in warned] == [
        False,
        True,
    ]
    assert (far.meta["in_domain"], far.meta["to"]["teff"]) == (False, 6500)
    assert far.meta["computed_at"]["teff"] == pytest.approx(5200, abs=0.1)
    assert chem.recast(flux, {}, **labels).uncertainty is None


def test_abundances_have_errors(chem, client, stored):
    found = chem.abundances(ODD)
    direct = client.get(f"/stars/{ODD}/abundances").json()["abundances"]
    assert list(found["element"]) == [one["element"] for one in direct]
    assert found["x_fe_err"].tolist() == [one["x_fe_err"] for one in direct]
    assert found.meta["star_id"] == ODD


def test_a_stored_star(chem, stored, arrays):
    star = chem.star(ODD)
    assert star.labels == arrays[2]
    assert (star.ra, star.dec, star.meta) == (10.5, -3.25, {"field": "M 67"})
    assert star.model == stored.model == f"{chem.model()['model']['name']}@{chem.model()['model']['version']}"
    assert star.latent.tolist() == stored.latent.tolist()


def test_stars_are_fetched_page_by_page_and_none_is_lost(chem, stored):
    table = chem.stars()
    assert len(table) == chem.model()["stars"] == 1201
    assert len(set(table["star_id"])) == 1201
    first = next(chem.iter_stars())
    assert first.star_id == table["star_id"][0] == ODD


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda c, f: c.twins(ODD, teff=4500), TypeError, "leave teff out"),
        (lambda c, f: c.twins(ODD, teff_mim=4500), TypeError, "unexpected keyword 'teff_mim'"),
        (lambda c, f: c.embed(f, star_id="x", tef=4500), TypeError, "unexpected keyword 'tef'"),
        (lambda c, f: c.embed(APSTAR, ivar=f, **GIANT), TypeError, "brings its own ivar"),
        (lambda c, f: c.recast(APSTAR, {}, **GIANT), TypeError, "embed it, then recast it"),
        (lambda c, f: c.embed(np.ones((2, 5)), star_id="x", **GIANT), ValueError, r"not of shape \(2, 5\)"),
        (lambda c, f: c.embed(["a"], star_id="x", **GIANT), ValueError, "must hold numbers"),
        (lambda c, f: c.embed(f, star_id="x", **{**GIANT, "teff": 3 * u.m}), u.UnitConversionError, "'m'"),
        (lambda c, f: c.embed(f * u.Jy, error=f * u.K, star_id="x", **GIANT), u.UnitConversionError, "'Jy'"),
        (lambda c, f: c.twins("apStar.fits"), ValueError, r"pathlib\.Path"),
        (lambda c, f: c.twins(np.ma.masked), ValueError, r"neither a spectrum nor a star's id"),
        (lambda c, f: c.twins(None), ValueError, r"None \(NoneType\) is neither a spectrum nor a star's id"),
        (lambda c, f: c.embed(np.nan, star_id="x", **GIANT), ValueError, "neither a spectrum"),
        (lambda c, f: c.recast(np.ma.masked, {}), ValueError, "neither a spectrum"),
        (lambda c, f: c.recast(ODD, [("teff", 4300)]), TypeError, "to must be a mapping"),
        (lambda c, f: c.recast(ODD, None), TypeError, "to must be a mapping .* not NoneType"),
        (lambda c, f: c.embed(f, star_id="x", parameters=[3], **GIANT), TypeError, "parameters must be a mapping"),
        (lambda c, f: c.star("../model"), ValueError, "not a star's id"),
        (lambda c, f: c.star("a/b"), ValueError, "not a star's id"),
        (lambda c, f: c.embed(Path("no such file.fits"), **GIANT), FileNotFoundError, "no such file"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_before_anything_is_sent(call, error, says):
    with Chemtwin("http://127.0.0.1:9", timeout=1) as nobody, pytest.raises(error, match=says):
        call(nobody, np.ones(APOGEE_PIXELS))


def test_a_model_s_own_error_has_its_words(chem, stored):
    with pytest.raises(InvalidRequest, match="does not know vbroad") as refused:
        chem.recast(ODD, {"parameters": {"vbroad": 3.0}})
    assert (refused.value.status, refused.value.code) == (422, "not_conditioned")

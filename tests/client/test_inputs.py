"""What the client makes of ids, numbers, units, masks and tables: each row of the table in docs/client.md."""

import re
from datetime import date

import h5py
import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import InverseVariance
from astropy.table import Column, MaskedColumn, QTable, Table, vstack
from astropy.utils.masked import Masked
from chemtwin_client import ChemtwinWarning, stars
from specutils import Spectrum

from app.schemas import META_BYTES
from model.spectrum import BAD_BITS
from tests.conftest import APSTAR, ASPCAP, GIANT, ROOT

CASES = {}
"""Checks by the input that a row of the table names."""

UNKNOWN = [np.nan, -9999.0, -9999.99, np.inf, None]


def case(row):
    def register(check):
        CASES.setdefault(row, []).append(check)
        return check

    return register


def codes(chem, labels, sources, **keywords):
    """The codes of `embed_many`, "" for a star that is stored."""
    done = chem.embed_many(sources, labels, progress=False, **keywords)
    assert all(
        (outcome == "refused") == bool(code)
        for outcome, code in zip(done["outcome"], done["code"], strict=True)
    )
    return done, [str(code) for code in done["code"]]


def objects(*values):
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


@case("`star_id` as text, bytes or integers")
def ids_are_digits(chem, labels, flux):
    for given, stored in (
        (np.array([2345678901234567891, 7, 12], dtype=np.int64), ["2345678901234567891", "7", "12"]),
        (["007", "12E4", "1.50"], ["007", "12E4", "1.50"]),
        (np.array([b"A  ", b"B\0\0", b"C"]), ["A", "B", "C"]),
        (
            pd.Series([2345678901234567891, 1, 2], dtype="Int64", index=[2, 0, 1]),
            ["2345678901234567891", "1", "2"],
        ),
        (pa.chunked_array([[1], [2345678901234567891, 3]]), ["1", "2345678901234567891", "3"]),
    ):
        labels = {**{name: labels[name] for name in ("teff", "logg", "fe_h")}, "star_id": given}
        done, refused = codes(chem, labels, flux)
        assert refused == [""] * 3
        assert list(done["star_id"]) == stored
        assert {chem.star(star_id).star_id for star_id in stored} == set(stored)
    assert chem.star(2345678901234567891).star_id == "2345678901234567891"
    one = {name: labels[name][0] for name in ("teff", "logg", "fe_h")}
    assert chem.embed(flux[0], star_id=np.int64(2345678901234567891), **one).replaced
    assert len(chem.twins(2345678901234567891, k=1)) == 1
    assert len(chem.twins(np.bytes_(b"1"), k=1)) == 1


@case("`star_id` as floating-point numbers")
def float_ids(chem, labels, flux):
    labels["star_id"] = pd.Series([2345678901234567891, np.nan, 3]).to_numpy()
    done, refused = codes(chem, labels, flux)
    assert refused == ["bad_star_id"] * 3
    assert "loses digits (row 0)" in done["message"][0]
    with pytest.raises(ValueError, match="loses digits"):
        chem.embed(flux[0], star_id=3.0, **GIANT)
    with pytest.raises(ValueError, match=r"loses digits \(row 1 of star_ids\)"):
        chem.twins_many(["A", 3.0], progress=False)
    with pytest.raises(ValueError, match="loses digits"):
        chem.star(3.0)


@case("`star_id` masked, None, NaN or empty")
def unknown_ids(chem, labels, flux):
    for hidden in (
        MaskedColumn(["A", "B", "C"], mask=[False, True, False]),
        pd.Series(["A", None, "C"], index=[5, 4, 3]),
        pd.Series([1, None, 3], dtype="Int64"),
        ["A", np.nan, "C"],
        ["A", "  ", "C"],
        [b"A", pd.NA, b"C"],
    ):
        labels = {**{name: labels[name] for name in ("teff", "logg", "fe_h")}, "star_id": hidden}
        done, refused = codes(chem, labels, flux)
        assert refused == ["", "bad_star_id", ""]
        assert "(row 1)" in done["message"][1]


@case("`star_id` of an earlier row")
def duplicates(chem, labels, flux):
    labels["star_id"] = ["A", "B", b"A "]
    done, refused = codes(chem, labels, flux)
    assert refused == ["", "", "duplicate_id"]
    assert "star A is in row 0 already" in done["message"][2]
    assert chem.star("A").teff == labels["teff"][0]
    done = chem.embed_many(flux, labels, skip_stored=True, progress=False)
    assert list(done["outcome"]) == ["skipped", "skipped", "refused"]


@case("`teff`, `logg`, `fe_h` or a further parameter of the model: masked, None, NaN, infinite, -9990 or less")
def unknown_labels(chem, labels, flux):
    for name in ("teff", "logg", "fe_h"):
        for unknown in [*UNKNOWN, pd.NA, np.ma.masked]:
            changed = {title: list(labels[title]) for title in labels.colnames}
            changed[name][1] = unknown
            done, refused = codes(chem, changed, flux)
            assert refused == ["", "unknown_label", ""]
            assert f"{name} is unknown" in done["message"][1]
            assert "(row 1, star B)" in done["message"][1]
            if unknown is not None:
                with pytest.raises(ValueError, match=f"{name} is unknown"):
                    chem.embed(flux[0], star_id="x", **{**GIANT, name: unknown})
    masked = MaskedColumn([4705, 4600], mask=[False, True])
    own = {"star_id": ["A", "B"], "teff": masked, "logg": [2.0, 2.0], "fe_h": [0.0, 0.0]}
    with pytest.warns(ChemtwinWarning, match=r"fe_h is the file's"):
        chem.embed(ASPCAP, star_id="own")  # it has labels of its own
    assert codes(chem, own, [ASPCAP, ASPCAP])[1] == ["", "unknown_label"]
    with pytest.raises(ValueError, match="teff is unknown"):
        chem.embed(ASPCAP, teff=np.nan)


@case("`teff_err`, `logg_err`, `fe_h_err`, `ra`, `dec`: the same")
def unknown_errors(chem, labels, flux):
    for unknown in [*UNKNOWN, np.ma.masked]:
        for name in ("teff_err", "ra", "dec"):
            labels[name] = objects(30.0, unknown, 20.0)
        assert codes(chem, labels, flux)[1] == [""] * 3
        star = chem.star("B")
        assert (star.ra, star.dec) == (None, None)
        assert chem.star("A").ra == 30
        chem.embed(flux[0], star_id="x", ra=unknown, teff_err=unknown, **GIANT)
        assert chem.star("x").ra is None


@case("text or booleans for numbers")
def text_for_numbers(chem, labels, flux):
    for wrong in ("4700", b"4700", True, np.True_, 4700j, [4700.0]):
        labels["teff"] = objects(4700.0, wrong, 4700.0)
        done, refused = codes(chem, labels, flux)
        assert refused == ["", "not_sent", ""]
        assert "teff must be a number" in done["message"][1]
        with pytest.raises(ValueError, match="teff must be a number"):
            chem.embed(flux[0], star_id="x", teff=wrong, logg=2, fe_h=0)
    with pytest.raises(ValueError, match="must be a number"):
        chem.recast("A", {"teff": "4700"})


@case("names of labels in capitals")
def capitals(chem, labels, flux):
    labels.rename_columns(["teff", "fe_h"], ["TEFF", "Fe_H"])
    assert codes(chem, labels, flux)[1] == [""] * 3
    assert chem.star("B").meta == {}
    labels["teff"] = 5000.0
    with pytest.raises(ValueError, match="several columns teff"):
        chem.embed_many(flux, labels, progress=False)


@case("numbers without a unit")
def no_units(chem, labels, flux):
    labels["ra"], labels["dec"] = 12.5, -3
    assert codes(chem, labels, flux)[1] == [""] * 3
    star = chem.star("C")
    assert (star.teff, star.ra, star.dec) == (labels["teff"][2], 12.5, -3)


@case("a unit that can be converted")
def units(chem, labels, flux):
    gravity = u.dex(u.cm / u.s**2)
    for logg in (u.dex(u.m / u.s**2), u.m / u.s**2, u.dex, gravity, u.one):
        given = 2.5 if logg in (u.dex, u.one) else gravity.to(logg, 2.5)
        converted = Table(labels, copy=True)
        converted["teff"] = Column(labels["teff"] / 1000, unit="kK")
        converted["logg"] = Column([given] * 3, unit=logg)
        converted["fe_h"].unit = u.dex
        converted["logg_err"] = Column([0.1] * 3, unit=logg if logg != u.m / u.s**2 else u.dex)
        converted["ra"] = Column([1.0] * 3, unit=u.hourangle)
        converted["dec"] = Column([60.0] * 3, unit=u.arcmin)
        for table in (
            converted,
            QTable(converted),
            {name: QTable(converted)[name] for name in converted.colnames},
        ):
            assert codes(chem, table, flux)[1] == [""] * 3
            star = chem.star("B")
            assert star.teff == pytest.approx(labels["teff"][1])
            assert (star.logg, star.ra, star.dec) == (pytest.approx(2.5), pytest.approx(15), pytest.approx(1))
        one = {name: QTable(converted)[name][0] for name in ("teff", "logg", "fe_h")}
        chem.embed(flux[0], star_id="x", **one)
        assert chem.star("x").logg == pytest.approx(2.5)
    cells = objects(4.7 * u.kK, 4700 * u.K, Masked(4700 * u.K, mask=True))
    labels["teff"] = cells
    assert codes(chem, {name: labels[name] for name in labels.colnames}, flux)[1] == ["", "", "unknown_label"]


@case("any other unit")
def wrong_units(chem, labels, flux):
    for name, unit in (
        ("teff", "m"), ("teff", u.dex), ("logg", "K"), ("logg", "log(cgs)"), ("fe_h", u.mag), ("fe_h", u.percent),
        ("ra", "h"), ("ra", "no unit"), ("teff_err", u.percent), ("fe_h_err", "K"),
    ):  # fmt: skip
        wrong = Table(labels, copy=True)
        wrong[name] = Column([1.0, 1.0, 1.0], unit=u.Unit(unit, parse_strict="silent"))
        with pytest.raises(u.UnitsError, match=f"{name}"):
            chem.embed_many(flux, wrong, progress=False)
    assert chem.model()["stars"] == 0
    with pytest.raises(u.UnitsError, match="logg"):
        chem.embed(flux[0], star_id="x", teff=4700, logg=2 * u.K, fe_h=0)
    with pytest.raises(u.UnitsError, match="vbroad"):
        chem.embed(flux[0], star_id="x", **GIANT, parameters={"vbroad": 2 * u.km / u.s})


@case("masked pixels of `flux`, `ivar`, `error` or `bitmask`; the mask of a Spectrum")
def masked_pixels(chem, labels, flux):
    one = {name: labels[name][0] for name in ("teff", "logg", "fe_h")}
    ivar, hidden = np.full(flux.shape, 1e4), np.zeros(flux.shape, dtype=bool)
    hidden[:, 100:400] = True
    spoilt = np.where(hidden, 0.01, flux)
    right = chem.embed(flux[0], ivar=np.where(hidden, 0, ivar)[0], star_id="right", **one)
    without = chem.embed(flux[0], bitmask=hidden[0], star_id="without", **one)
    assert right.masked_fraction == without.masked_fraction == pytest.approx(300 / flux.shape[1])
    ma, error = np.ma.array, np.full(flux.shape, 1e-2)
    ways = [
        ({"sources": ma(spoilt, mask=hidden), "ivar": ivar}, right),
        ({"sources": ma(spoilt, mask=hidden), "error": error}, right),
        ({"sources": ma(spoilt, mask=hidden)}, without),
        ({"sources": ma(spoilt, mask=hidden), "bitmask": np.zeros(flux.shape, dtype=int)}, without),
        ({"sources": MaskedColumn(spoilt, mask=hidden), "ivar": ivar}, right),
        ({"sources": Masked(spoilt, mask=hidden), "ivar": ivar}, right),
        ({"sources": Masked(spoilt * u.one, mask=hidden), "ivar": ivar}, right),
        ({"sources": list(ma(spoilt, mask=hidden)), "ivar": ivar}, right),
        ({"sources": spoilt, "ivar": ma(ivar, mask=hidden)}, right),
        ({"sources": spoilt, "error": ma(error, mask=hidden)}, right),
        ({"sources": spoilt, "error": MaskedColumn(error, mask=hidden)}, right),
        ({"sources": spoilt, "bitmask": ma(np.zeros(flux.shape, dtype=int), mask=hidden), "ivar": ivar}, right),
    ]
    for way, same in ways:
        done = chem.embed_many(labels=labels, progress=False, **way)
        assert done["masked_fraction"][0] == same.masked_fraction, way
        assert np.abs(done["latent"][0] - same.latent).max() < 1e-3, way
        source = way.pop("sources")
        alone = chem.embed(source[0], star_id="x", **one, **{name: values[0] for name, values in way.items()})
        assert np.abs(alone.latent - same.latent).max() < 1e-3, way
    wavelength = chem.recast("right", {}).spectral_axis
    spectrum = Spectrum(
        flux=spoilt[0] * u.one, spectral_axis=wavelength, mask=hidden[0], uncertainty=InverseVariance(ivar[0])
    )
    assert np.abs(chem.embed(spectrum, star_id="x", **one).latent - right.latent).max() < 1e-3
    with pytest.raises(ValueError, match="wavelength has masked values"):
        chem.embed(flux[0], wavelength=ma(wavelength.value, mask=hidden[0]), star_id="x", **one)


@case("`bitmask` of booleans, integers, or whole numbers with a decimal point")
def bitmasks(chem, labels, flux):
    whole = np.zeros(flux.shape, dtype=int)
    whole[:, :200] = 1
    for bitmask in (
        whole,
        whole.astype(bool),
        whole.astype(float),
        whole.astype(np.uint64),
        pd.DataFrame(whole),
        whole.tolist(),
    ):
        done, refused = codes(chem, labels, flux, bitmask=bitmask)
        assert refused == [""] * 3
        assert set(done["masked_fraction"]) == {200 / flux.shape[1]}
    assert stars.spectra.BAD == BAD_BITS


@case("`bitmask` of anything else")
def no_bitmask(chem, labels, flux):
    for wrong in (0.5, np.nan, np.inf, "0", 0j):
        with pytest.raises(ValueError, match="bitmask must hold"):
            chem.embed(flux[0], bitmask=np.full(flux.shape[1], wrong), star_id="x", **GIANT)
    bitmask = pd.DataFrame(np.zeros(flux.shape), dtype=object)
    assert codes(chem, labels, flux, bitmask=bitmask)[1] == ["not_sent"] * 3
    with pytest.raises(u.UnitsError, match="bitmask"):
        chem.embed(flux[0], bitmask=np.zeros(flux.shape[1]) * u.K, star_id="x", **GIANT)


@case("`flux` of integers, or of objects that are numbers")
def other_numbers(chem, labels, flux):
    counts = np.round(flux * 10000).astype(np.int32)
    reference, _ = codes(chem, labels, flux, normalized=False)
    for sources in (
        counts,
        counts.astype(object),
        pd.DataFrame(counts),
        pd.Series(list(counts), index=[9, 1, 0]),
    ):
        done, refused = codes(chem, labels, sources, normalized=False)
        assert refused == [""] * 3
        assert np.abs(done["latent"] - reference["latent"]).max() < 0.1
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        done, _ = codes(chem, labels, file.create_dataset("flux", data=flux))
    assert np.isfinite(done["latent"]).all()


@case("`flux` of text, booleans or complex numbers, or in magnitudes")
def no_flux(chem, labels, flux):
    for wrong in (flux.astype(str), flux.astype(complex), flux > 1, flux.astype(str).astype(object)):
        done, refused = codes(chem, labels, wrong)
        assert refused == ["not_sent"] * 3
        assert "flux must hold numbers" in done["message"][0]
    for unit in (u.mag, u.ABmag):
        with pytest.raises(u.UnitsError, match="flux must be linear"):
            chem.embed(u.Magnitude(flux[0], unit) if unit == u.ABmag else flux[0] * unit, star_id="x", **GIANT)


@case("`ivar` or `error` without a unit")
def plain_errors(chem, labels, flux):
    error = np.full(flux.shape, 0.01)
    right, _ = codes(chem, labels, flux, error=error)
    for keywords in ({"error": 100 * error}, {"ivar": 1 / (100 * error) ** 2}, {"error": error * u.one}):
        for sources in (100 * flux * u.percent, Column(100 * flux, unit=u.percent)):
            done, refused = codes(chem, labels, sources, **keywords)
            assert refused == [""] * 3
            assert np.allclose(done["snr"], right["snr"])


@case("`wavelength` with a unit, or the axis of a Spectrum that moves")
def wavelengths(chem, labels, flux):
    right, _ = codes(chem, labels, flux)
    rest = chem.recast("A", {}).spectral_axis.value * u.AA
    shift = np.sqrt((1 + 1e-4) / (1 - 1e-4))
    moving = Spectrum(
        flux=flux[0] * u.one, spectral_axis=rest * shift, radial_velocity=1e-4 * 299792.458 * u.km / u.s
    )
    for axis in (
        rest.to(u.nm),
        rest.to(u.THz, u.spectral()),
        Column(rest.to_value(u.um), unit="um"),
        pd.Series(rest.value, index=np.arange(len(rest))[::-1]),
        moving.spectral_axis,
    ):
        done, refused = codes(chem, labels, flux, wavelength=axis)
        assert refused == [""] * 3
        assert np.abs(done["latent"] - right["latent"]).max() < 0.02
    with pytest.raises(u.UnitsError):
        chem.embed_many(flux, labels, wavelength=rest.value * u.K, progress=False)


@case("pandas, whatever its index")
def pandas(chem, labels, flux):
    frame = (
        labels.to_pandas()
        .assign(row=[0, 1, 2])
        .sort_values("teff", ascending=labels["teff"][0] > labels["teff"][1])
    )
    order = frame["row"].to_numpy()
    assert list(frame.index) != [0, 1, 2]
    ivar = np.full(flux.shape, 1e4)
    series = {name: frame[name] for name in frame if name != "row"}
    rows = pd.Series(list(flux[order]), index=frame.index)
    pixels = pd.DataFrame(ivar[order], index=frame.index)
    right = codes(chem, labels, flux, ivar=ivar)[0]["latent"]
    for table in (
        frame,
        series,
        {name: list(column) for name, column in series.items()},
        pa.table(series),
        labels[order].as_array(),
    ):
        for sources in (flux[order], rows, pd.DataFrame(flux[order], index=frame.index), list(rows)):
            done, refused = codes(chem, table, sources, ivar=pixels)
            assert refused == [""] * 3
            assert np.abs(done["latent"] - right[order]).max() < 1e-3
            for number, star_id in enumerate("ABC"):
                assert chem.star(star_id).teff == labels["teff"][number]
    files = pd.Series([str(APSTAR), str(ASPCAP)], index=[1, 0])
    table = pd.DataFrame(
        {"star_id": ["giant", "other"], "teff": [4705.0, 4300.0], "logg": 2.0, "fe_h": 0.0}, index=[0, 1]
    )
    done, _ = codes(chem, table, files)
    assert done["snr"][0] == pytest.approx(753, abs=1)
    one = {name: labels[name][0] for name in ("teff", "logg", "fe_h")}
    backwards = np.arange(flux.shape[1])[::-1]
    alone = chem.embed(
        pd.Series(flux[0], index=backwards), ivar=pd.Series(ivar[0], index=backwards), star_id="x", **one
    )
    assert np.abs(alone.latent - right[0]).max() < 1e-3
    found = chem.twins_many(pd.Series(["C", "A"], index=[1, 0]), k=1, fe_h_within="any", progress=False)
    assert list(found["asked_star_id"]) == ["C", "A"]


@case("a set, a mapping or a single value for a column")
def no_order(chem, labels, flux):
    plain = {name: list(labels[name]) for name in labels.colnames}
    for wrong in ({"A", "B", "C"}, {0: "A", 1: "B", 2: "C"}, "ABC", 5, np.array("ABC")):
        with pytest.raises(TypeError, match="must hold one value per star"):
            chem.embed_many(flux, plain | {"star_id": wrong}, progress=False)
    with pytest.raises(TypeError, match="one value per star"):
        chem.embed_many(flux, plain | {"teff": flux}, progress=False)
    with pytest.raises(TypeError, match="sources must hold one per star"):
        chem.embed_many(str(APSTAR), plain, progress=False)
    with pytest.raises(TypeError, match="one value per star"):
        chem.twins_many("ABC", progress=False)
    with pytest.raises(TypeError, match="must be a table"):
        chem.embed_many(flux, [dict(row) for row in labels], progress=False)
    with pytest.raises(TypeError, match=r"Table\.read"):
        chem.embed_many(flux, fits.BinTableHDU(labels).data, progress=False)
    frame = labels.to_pandas()
    twice = pd.concat([frame, frame["teff"]], axis=1)
    with pytest.raises(ValueError, match="several columns teff"):
        chem.embed_many(flux, twice, progress=False)
    with pytest.raises(ValueError, match="labels 3, teff 2"):
        chem.embed_many(flux, plain | {"teff": [1.0, 2.0]}, progress=False)
    assert chem.model()["stars"] == 0


@case("several spectra in one Spectrum")
def several_in_one(chem, labels, flux):
    right, _ = codes(chem, labels, flux)
    axis = chem.recast("A", {}).spectral_axis
    done, refused = codes(chem, labels, Spectrum(flux=flux * u.one, spectral_axis=axis))
    assert refused == [""] * 3
    assert np.abs(done["latent"] - right["latent"]).max() < 1e-3
    with pytest.raises(ValueError, match="must hold one spectrum"):
        chem.embed(Spectrum(flux=flux * u.one, spectral_axis=axis), star_id="x", **GIANT)


@case("further columns of text, numbers, truth values or dates")
def further_columns(chem, labels, flux):
    labels["cluster"] = MaskedColumn(["M 67", "NGC 188", "M 67"], mask=[False, True, False])
    labels["members"] = [700, 1050, 2**60 + 1]
    labels["age"] = [4.3, np.nan, -9999.0]
    labels["good"] = [True, False, True]
    labels["night"] = [date(2020, 1, 2)] * 3
    assert codes(chem, labels, flux)[1] == [""] * 3
    common = {"night": "2020-01-02"}
    assert chem.star("A").meta == {"cluster": "M 67", "members": 700, "age": 4.3, "good": True, **common}
    assert chem.star("B").meta == {"members": 1050, "good": False, **common}
    assert chem.star("C").meta == {
        "cluster": "M 67", "members": "1152921504606846977", "age": -9999.0, "good": True, **common
    }  # fmt: skip


@case("further columns of arrays or objects, or with FITS files")
def not_stored(chem, labels, flux):
    labels["sky"] = SkyCoord([1, 2, 3] * u.deg, [1, 2, 3] * u.deg)
    labels["flux"] = flux
    labels["mixed"] = objects("text", [1], None)
    with pytest.warns(ChemtwinWarning, match="neither text nor numbers: sky, flux, mixed"):
        done, refused = codes(chem, labels, flux)
    assert refused == [""] * 3
    assert chem.star("A").meta == {}
    table = Table({"star_id": ["A", "B"], **{name: [value] * 2 for name, value in GIANT.items()}})
    table["cluster"], table["ra"] = "M 67", 1.0
    with pytest.warns(ChemtwinWarning) as warned:
        codes(chem, table, [APSTAR, flux[0]])
    assert [str(one.message) for one in warned] == [
        "not stored with stars from FITS files, which carry no meta: cluster",
        "stars from FITS files have the files' own ra",
    ]
    assert {one.filename for one in warned} == {__file__}
    assert (chem.star("B").meta, chem.star("B").ra) == ({"cluster": "M 67"}, 1)
    with pytest.raises(TypeError, match="meta cannot go with a FITS file"):
        chem.embed(APSTAR, meta={"cluster": "M 67"}, **GIANT)


@case("further columns of more than 4096 bytes in a row")
def too_much(chem, labels, flux):
    labels["note"] = ["short", "x" * 5000, "short"]
    with pytest.raises(ValueError, match=r"bytes of JSON in row 1; at most 4096"):
        chem.embed_many(flux, labels, progress=False)
    assert chem.model()["stars"] == 0
    assert stars.META_BYTES == META_BYTES


@pytest.mark.filterwarnings("default::chemtwin_client.ChemtwinWarning")
@pytest.mark.parametrize(
    "check", [check for checks in CASES.values() for check in checks], ids=lambda check: check.__name__
)
def test_input(check, fresh, three):
    check(fresh, *three)


def test_the_page_has_the_rows_that_are_tested():
    page = (ROOT / "docs" / "client.md").read_text()
    table = page.partition("## What the client makes of your columns")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    assert rows[0] == "you give"
    assert rows[1:] == list(CASES)


def test_stored_stars_are_looked_for_in_one_call_a_block(fresh, empty, three):
    def requests(route):
        lines = httpx.get(empty.url + "/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if f'route="{route}"' in line and "_count" in line)

    labels, flux = three
    labels, flux = vstack([labels] * 30), np.tile(flux, (30, 1))
    labels["star_id"] = [f"S{row}" for row in range(90)]
    fresh.embed_many(flux[:80], labels[:80], progress=False)
    before, single = requests("/stars"), requests("/stars/{star_id}")
    done = fresh.embed_many(flux, labels, skip_stored=True, progress=False)
    assert list(done["outcome"]) == ["skipped"] * 80 + ["stored"] * 10
    assert requests("/stars") - before == 2
    assert requests("/stars/{star_id}") == single

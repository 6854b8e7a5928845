"""What the client makes of ids, numbers and units; the docstrings are rows of the table in docs/reference/client.md."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from chemtwin_client import ChemtwinWarning, arrays

from tests.client.inputs import codes, objects
from tests.conftest import ASPCAP, GIANT

pytestmark = pytest.mark.filterwarnings("default::chemtwin_client.ChemtwinWarning")

UNKNOWN = [np.nan, -9999.0, -9999.99, np.inf, None]


def test_ids_are_digits(fresh, three):
    """`star_id` as text, bytes or integers"""
    import pandas as pd

    labels, flux = three
    for given, stored in (
        (np.array([2345678901234567891, 7, 12], dtype=np.int64), ["2345678901234567891", "7", "12"]),
        (["007", "12E4", "1.5-B"], ["007", "12E4", "1.5-B"]),
        (np.array([b"A  ", b"B\0\0", b"C"]), ["A", "B", "C"]),
        (
            pd.Series([2345678901234567891, 1, 2], dtype="Int64", index=[2, 0, 1]),
            ["2345678901234567891", "1", "2"],
        ),
        (pa.chunked_array([[1], [2345678901234567891, 3]]), ["1", "2345678901234567891", "3"]),
    ):
        labels = {**{name: labels[name] for name in ("teff", "logg", "fe_h")}, "star_id": given}
        done, refused = codes(fresh, labels, flux)
        assert refused == [""] * 3
        assert list(done["star_id"]) == stored
        assert {fresh.star(star_id).star_id for star_id in stored} == set(stored)
    assert fresh.star(2345678901234567891).star_id == "2345678901234567891"
    one = {name: labels[name][0] for name in ("teff", "logg", "fe_h")}
    assert fresh.embed(flux[0], star_id=np.int64(2345678901234567891), **one).replaced
    assert len(fresh.twins(2345678901234567891, k=1)) == 1
    assert len(fresh.twins(np.bytes_(b"1"), k=1)) == 1


def test_float_ids(fresh, three):
    """`star_id` as floating-point numbers"""
    import pandas as pd

    labels, flux = three
    labels["star_id"] = pd.Series([2345678901234567891, np.nan, 3]).to_numpy()
    done, refused = codes(fresh, labels, flux)
    assert refused == ["bad_star_id"] * 3
    assert "loses digits (row 0)" in done["message"][0]
    with pytest.raises(ValueError, match="loses digits"):
        fresh.embed(flux[0], star_id=3.0, **GIANT)
    with pytest.raises(ValueError, match=r"loses digits \(row 1 of star_ids\)"):
        fresh.twins_many(["A", 3.0], progress=False)
    with pytest.raises(ValueError, match="loses digits"):
        fresh.star(3.0)
    for boolean in (True, np.True_):
        with pytest.raises(ValueError, match="True is a truth value"):
            fresh.embed(flux[0], star_id=boolean, **GIANT)
    with pytest.raises(ValueError, match=r"not timedelta64$"):
        fresh.embed(flux[0], star_id=np.timedelta64(3, "s"), **GIANT)


def test_ids_that_were_numbers(fresh, three):
    """`star_id` as text that was a floating-point number (`4.6e+18`, `12345.0`) or a missing value (`nan`, `--`)"""
    import pandas as pd

    labels, flux = three
    labels = {name: list(labels[name]) for name in ("teff", "logg", "fe_h")}
    for wrong in (
        pd.Series([4611686018427387905, np.nan, 1]).map(str),
        pd.Series([4611686018427387905, 12345, np.nan]).map(str).str.upper(),
        ["12345.0", "1.50", "-7."],
        ["None", "NULL", "NaT"],
        ["<NA>", "masked", " -- "],
    ):
        done, refused = codes(fresh, labels | {"star_id": wrong}, flux)
        assert refused == ["bad_star_id"] * 3
        for star_id in wrong:
            with pytest.raises(ValueError, match=r"has been a floating-point number|a missing value becomes"):
                fresh.embed(flux[0], star_id=star_id, **GIANT)


def test_unknown_ids(fresh, three):
    """`star_id` masked, None, NaN or empty"""
    import pandas as pd

    labels, flux = three
    for hidden in (
        MaskedColumn(["A", "B", "C"], mask=[False, True, False]),
        pd.Series(["A", None, "C"], index=[5, 4, 3]),
        pd.Series([1, None, 3], dtype="Int64"),
        ["A", np.nan, "C"],
        ["A", "  ", "C"],
        [b"A", pd.NA, b"C"],
    ):
        labels = {**{name: labels[name] for name in ("teff", "logg", "fe_h")}, "star_id": hidden}
        done, refused = codes(fresh, labels, flux)
        assert refused == ["", "bad_star_id", ""]
        assert "(row 1)" in done["message"][1]


def test_duplicates(fresh, three):
    """`star_id` of an earlier row"""
    labels, flux = three
    labels["star_id"] = ["A", "B", b"A "]
    done, refused = codes(fresh, labels, flux)
    assert refused == ["", "", "duplicate_id"]
    assert "star A is in row 0 already" in done["message"][2]
    assert fresh.star("A").teff == labels["teff"][0]
    done = fresh.embed_many(flux, labels, skip_stored=True, progress=False)
    assert list(done["outcome"]) == ["skipped", "skipped", "refused"]


def test_unknown_labels(fresh, three):
    """`teff`, `logg`, `fe_h` or an extra parameter of the model: masked, None, NaN, infinite, -9990 or less"""
    import pandas as pd

    labels, flux = three
    for name in ("teff", "logg", "fe_h"):
        for unknown in [*UNKNOWN, pd.NA, np.ma.masked]:
            changed = {title: list(labels[title]) for title in labels.colnames}
            changed[name][1] = unknown
            done, refused = codes(fresh, changed, flux)
            assert refused == ["", "unknown_label", ""]
            assert f"{name} is unknown" in done["message"][1]
            assert "(row 1, star B)" in done["message"][1]
            if unknown is not None:
                with pytest.raises(ValueError, match=f"{name} is unknown"):
                    fresh.embed(flux[0], star_id="x", **{**GIANT, name: unknown})
    masked = MaskedColumn([4705, 4600], mask=[False, True])
    own = {"star_id": ["A", "B"], "teff": masked, "logg": [2.0, 2.0], "fe_h": [0.0, 0.0]}
    with pytest.warns(ChemtwinWarning, match=r"fe_h is the file's"):
        fresh.embed(ASPCAP, star_id="own")  # it has labels of its own
    assert codes(fresh, own, [ASPCAP, ASPCAP])[1] == ["", "unknown_label"]
    with pytest.raises(ValueError, match="teff is unknown"):
        fresh.embed(ASPCAP, teff=np.nan)


def test_unknown_errors(fresh, three):
    """`teff_err`, `logg_err`, `fe_h_err`, `ra`, `dec`: the same"""
    labels, flux = three
    for unknown in [*UNKNOWN, np.ma.masked]:
        for name in ("teff_err", "ra", "dec"):
            labels[name] = objects(30.0, unknown, 20.0)
        assert codes(fresh, labels, flux)[1] == [""] * 3
        star = fresh.star("B")
        assert (star.ra, star.dec) == (None, None)
        assert fresh.star("A").ra == 30
        fresh.embed(flux[0], star_id="x", ra=unknown, teff_err=unknown, **GIANT)
        assert fresh.star("x").ra is None


def test_text_for_numbers(fresh, three):
    """text, booleans or durations for numbers"""
    labels, flux = three
    for wrong in ("4700", b"4700", True, np.True_, 4700j, [4700.0], np.timedelta64(4700, "s")):
        labels["teff"] = objects(4700.0, wrong, 4700.0)
        done, refused = codes(fresh, labels, flux)
        assert refused == ["", "not_sent", ""]
        assert "teff must be a number" in done["message"][1]
        with pytest.raises(ValueError, match="teff must be a number"):
            fresh.embed(flux[0], star_id="x", teff=wrong, logg=2, fe_h=0)
    with pytest.raises(ValueError, match="must be a number"):
        fresh.recast("A", {"teff": "4700"})


def test_capitals(fresh, three):
    """names of labels in capitals"""
    labels, flux = three
    labels.rename_columns(["teff", "fe_h"], ["TEFF", "Fe_H"])
    assert codes(fresh, labels, flux)[1] == [""] * 3
    assert fresh.star("B").meta == {}
    labels["teff"] = 5000.0
    with pytest.raises(ValueError, match="several columns teff"):
        fresh.embed_many(flux, labels, progress=False)


def test_errors_as_surveys_name_them(fresh, three):
    """`e_teff`, `e_logg`, `e_fe_h` and those of extra parameters"""
    labels, flux = three
    ivar = np.full(flux.shape, 1e4)
    labels["teff_err"], labels["logg_err"], labels["fe_h_err"] = 300.0, 0.3, 0.2
    right, _ = codes(fresh, labels, flux, ivar=ivar)
    labels["E_TEFF"] = Column([0.3] * 3, unit="kK")
    labels["e_logg"], labels["e_fe_h"] = labels["logg_err"], labels["fe_h_err"]
    with pytest.warns(ChemtwinWarning, match="not used, but stored in meta at most: E_TEFF, e_logg, e_fe_h;"):
        codes(fresh, labels, flux, ivar=ivar)
    labels.remove_columns(["teff_err", "logg_err", "fe_h_err"])
    fresh.delete("A")
    done, refused = codes(fresh, labels, flux, ivar=ivar)
    assert refused == [""] * 3
    assert np.allclose(done["latent_sd"], right["latent_sd"], rtol=1e-4)
    assert fresh.star("A").meta == {}


def test_no_units(fresh, three):
    """numbers without a unit"""
    labels, flux = three
    labels["ra"], labels["dec"] = 12.5, -3
    assert codes(fresh, labels, flux)[1] == [""] * 3
    star = fresh.star("C")
    assert (star.teff, star.ra, star.dec) == (labels["teff"][2], 12.5, -3)


def test_units(fresh, three):
    """a unit that can be converted"""
    labels, flux = three
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
            assert codes(fresh, table, flux)[1] == [""] * 3
            star = fresh.star("B")
            assert star.teff == pytest.approx(labels["teff"][1])
            assert (star.logg, star.ra, star.dec) == (pytest.approx(2.5), pytest.approx(15), pytest.approx(1))
        one = {name: QTable(converted)[name][0] for name in ("teff", "logg", "fe_h")}
        fresh.embed(flux[0], star_id="x", **one)
        assert fresh.star("x").logg == pytest.approx(2.5)
    cells = objects(4.7 * u.kK, 4700 * u.K, Masked(4700 * u.K, mask=True))
    labels["teff"] = cells
    assert codes(fresh, {name: labels[name] for name in labels.colnames}, flux)[1] == ["", "", "unknown_label"]


def test_units_in_hdf5(fresh, three):
    """the attribute `unit` or `units` of an h5py dataset: of labels, pixels or wavelengths"""
    labels, flux = three
    right, _ = codes(fresh, labels, flux, error=np.full(flux.shape, 0.01))
    wavelength = fresh.recast("A", {}).spectral_axis.value
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        for name, values, attribute, unit in (
            ("teff", labels["teff"] / 1000, "unit", "kK"),
            ("logg", 10 ** (labels["logg"] - 2), "units", "m/s2"),
            ("fe_h", labels["fe_h"], "unit", ""),
            ("ra", [1.0, 2.0, 3.0], "units", np.bytes_(b"hourangle")),
            ("dec", [60.0] * 3, "unit", "arcmin"),
            ("flux", 100 * flux, "unit", "percent"),
            ("error", np.ones(flux.shape), "unit", "percent"),
            ("wavelength", wavelength / 10, "unit", "nm"),
            ("angstrom", wavelength, "unit", "Angstrom (vacuum)"),
            ("air", wavelength, "unit", "Angstrom (air)"),
            ("note", [1.0, 2.0, 3.0], "unit", "[X/Fe], dex"),
        ):
            file.create_dataset(name, data=values).attrs[attribute] = unit
        names = ("teff", "logg", "fe_h", "ra", "dec", "note")
        table = {"star_id": ["A", "B", "C"], **{name: file[name] for name in names}}
        for axis in (file["wavelength"], file["angstrom"]):
            done, refused = codes(fresh, table, file["flux"], error=file["error"], wavelength=axis)
            assert refused == [""] * 3
            assert np.abs(done["latent"] - right["latent"]).max() < 0.02
            assert np.allclose(done["snr"], right["snr"])
        star = fresh.star("B")
        assert (star.teff, star.logg) == (pytest.approx(labels["teff"][1]), pytest.approx(labels["logg"][1]))
        assert (star.ra, star.dec, star.meta) == (pytest.approx(30), pytest.approx(1), {"note": 2.0})
        assert isinstance(arrays.by_row("flux", file["flux"]).array, h5py.Dataset)  # it is read in blocks
        with pytest.raises(u.UnitsError, match=r"wavelength: .* 'Angstrom \(air\)'"):
            fresh.embed_many(file["flux"], table, wavelength=file["air"], progress=False)
        file["teff"].attrs["unit"] = "furlong"
        with pytest.raises(u.UnitsError, match="teff"):
            fresh.embed_many(file["flux"], table, progress=False)


def test_wrong_units(fresh, three):
    """any other unit"""
    labels, flux = three
    for name, unit in (
        ("teff", "m"), ("teff", u.dex), ("logg", "K"), ("logg", "log(cgs)"), ("fe_h", u.mag), ("fe_h", u.percent),
        ("ra", "h"), ("ra", "no unit"), ("teff_err", u.percent), ("fe_h_err", "K"),
    ):  # fmt: skip
        wrong = Table(labels, copy=True)
        wrong[name] = Column([1.0, 1.0, 1.0], unit=u.Unit(unit, parse_strict="silent"))
        with pytest.raises(u.UnitsError, match=f"{name}"):
            fresh.embed_many(flux, wrong, progress=False)
    assert fresh.model()["stars"] == 0
    with pytest.raises(u.UnitsError, match="logg"):
        fresh.embed(flux[0], star_id="x", teff=4700, logg=2 * u.K, fe_h=0)
    with pytest.raises(u.UnitsError, match="vbroad"):
        fresh.embed(flux[0], star_id="x", **GIANT, parameters={"vbroad": 2 * u.km / u.s})

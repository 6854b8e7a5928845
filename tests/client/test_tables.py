"""What the client makes of tables; the docstrings are rows of the table in docs/reference/client.md."""

import ast
import re
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, Table, vstack
from chemtwin_client import ChemtwinWarning, stars

from app.schemas.bodies import META_BYTES
from tests.client.inputs import codes, objects
from tests.conftest import APSTAR, ASPCAP, GIANT, ROOT

pytestmark = pytest.mark.filterwarnings("default::chemtwin_client.ChemtwinWarning")


def test_pandas(fresh, three):
    """pandas, whatever its index"""
    import pandas as pd

    labels, flux = three
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
    right = codes(fresh, labels, flux, ivar=ivar)[0]["latent"]
    for table in (
        frame,
        series,
        {name: list(column) for name, column in series.items()},
        pa.table(series),
        labels[order].as_array(),
    ):
        for sources in (flux[order], rows, pd.DataFrame(flux[order], index=frame.index), list(rows)):
            done, refused = codes(fresh, table, sources, ivar=pixels)
            assert refused == [""] * 3
            assert np.abs(done["latent"] - right[order]).max() < 1e-3
            for number, star_id in enumerate("ABC"):
                assert fresh.star(star_id).teff == labels["teff"][number]
    files = pd.Series([str(APSTAR), str(ASPCAP)], index=[1, 0])
    table = pd.DataFrame(
        {"star_id": ["giant", "other"], "teff": [4705.0, 4300.0], "logg": 2.0, "fe_h": 0.0}, index=[0, 1]
    )
    done, _ = codes(fresh, table, files)
    assert done["snr"][0] == pytest.approx(756, abs=1)
    one = {name: labels[name][0] for name in ("teff", "logg", "fe_h")}
    backwards = np.arange(flux.shape[1])[::-1]
    alone = fresh.embed(
        pd.Series(flux[0], index=backwards), ivar=pd.Series(ivar[0], index=backwards), star_id="x", **one
    )
    assert np.abs(alone.latent - right[0]).max() < 1e-3
    found = fresh.twins_many(pd.Series(["C", "A"], index=[1, 0]), k=1, fe_h_within="any", progress=False)
    assert list(found["asked_star_id"]) == ["C", "A"]


def test_contradicting_indexes(fresh, three):
    """pandas, where two indexes have the same labels in another order, or one is `star_id` in another order"""
    import pandas as pd

    labels, flux = three
    frame = labels.to_pandas().set_index(pd.Index([4, 8, 6]))
    mixed = frame.loc[[8, 4, 6]]
    spectra, series = pd.DataFrame(flux, index=frame.index), pd.Series(list(flux), index=frame.index)
    named = pd.DataFrame(flux[[1, 0, 2]], index=["B", "A", "C"])
    pixels = pd.DataFrame(flux).rename(columns="pixel {}".format)
    ivar = pd.DataFrame(np.full(flux.shape, 1e4), index=mixed.index)
    for sources, table, arrays, says in (
        (spectra, mixed, {}, "the index of sources and the index of labels"),
        (series, mixed, {}, "the index of sources and the index of labels"),
        (flux, frame, {"ivar": ivar}, "the index of ivar and the index of labels"),
        (spectra, labels, {"bitmask": ivar * 0}, "the index of sources and the index of bitmask"),
        (flux, {**frame, "teff": mixed["teff"]}, {}, "the index of labels teff"),
        (series, {**labels, "teff": mixed["teff"]}, {}, "the index of sources and the index of labels teff"),
        (named, labels, {}, "the index of sources and star_id"),
        (pixels, labels, {"error": pixels.iloc[:, ::-1]}, "the columns of sources and the columns of error"),
    ):
        with pytest.raises(ValueError, match=f"{says}.* same labels in another order.*reindex"):
            fresh.embed_many(sources, table, progress=False, **arrays)
    assert fresh.model()["stars"] == 0
    one = pixels.iloc[0]
    with pytest.raises(ValueError, match="the index of flux and the index of ivar"):
        fresh.embed(one, ivar=one[::-1], star_id="x", **GIANT)
    for sources, table in (
        (spectra.loc[mixed.index], mixed),
        (flux[[1, 0, 2]], mixed),
        (spectra.loc[mixed.index].reset_index(drop=True), mixed),
        (spectra.set_index(pd.Index([1, 2, 3])), mixed),
        (named, mixed),
    ):
        assert codes(fresh, table, sources)[1] == [""] * 3


def test_no_order(fresh, three):
    """a set, a mapping or a single value for a column"""
    import pandas as pd

    labels, flux = three
    plain = {name: list(labels[name]) for name in labels.colnames}
    for wrong in ({"A", "B", "C"}, {0: "A", 1: "B", 2: "C"}, "ABC", 5, np.array("ABC")):
        with pytest.raises(TypeError, match="must hold one value per star"):
            fresh.embed_many(flux, plain | {"star_id": wrong}, progress=False)
    with pytest.raises(TypeError, match="one value per star"):
        fresh.embed_many(flux, plain | {"teff": flux}, progress=False)
    with pytest.raises(TypeError, match="sources must hold one per star"):
        fresh.embed_many(str(APSTAR), plain, progress=False)
    with pytest.raises(TypeError, match="one value per star"):
        fresh.twins_many("ABC", progress=False)
    with pytest.raises(TypeError, match="must be a table"):
        fresh.embed_many(flux, [dict(row) for row in labels], progress=False)
    with pytest.raises(TypeError, match=r"Table\.read"):
        fresh.embed_many(flux, fits.BinTableHDU(labels).data, progress=False)
    frame = labels.to_pandas()
    twice = pd.concat([frame, frame["teff"]], axis=1)
    with pytest.raises(ValueError, match="several columns teff"):
        fresh.embed_many(flux, twice, progress=False)
    with pytest.raises(ValueError, match="labels 3, teff 2"):
        fresh.embed_many(flux, plain | {"teff": [1.0, 2.0]}, progress=False)
    assert fresh.model()["stars"] == 0


def test_several_in_one(fresh, three):
    """several spectra in one Spectrum"""
    from specutils import Spectrum

    labels, flux = three
    right, _ = codes(fresh, labels, flux)
    axis = fresh.recast("A", {}).spectral_axis
    done, refused = codes(fresh, labels, Spectrum(flux=flux * u.one, spectral_axis=axis))
    assert refused == [""] * 3
    assert np.abs(done["latent"] - right["latent"]).max() < 1e-3
    with pytest.raises(ValueError, match="must hold one spectrum"):
        fresh.embed(Spectrum(flux=flux * u.one, spectral_axis=axis), star_id="x", **GIANT)


def test_extra_columns(fresh, three):
    """extra columns of text, numbers, truth values, dates or durations"""
    labels, flux = three
    labels["cluster"] = MaskedColumn(["M 67", "NGC 188", "M 67"], mask=[False, True, False])
    labels["members"] = [700, 1050, 2**60 + 1]
    labels["age"] = [4.3, np.nan, -9999.0]
    labels["good"] = [True, False, True]
    labels["night"] = [date(2020, 1, 2)] * 3
    labels["exposure"] = np.array([500] * 3, dtype="m8[s]")
    assert codes(fresh, labels, flux)[1] == [""] * 3
    common = {"night": "2020-01-02", "exposure": "500 seconds"}
    assert fresh.star("A").meta == {"cluster": "M 67", "members": 700, "age": 4.3, "good": True, **common}
    assert fresh.star("B").meta == {"members": 1050, "good": False, **common}
    assert fresh.star("C").meta == {
        "cluster": "M 67", "members": "1152921504606846977", "age": -9999.0, "good": True, **common
    }  # fmt: skip


def test_names_of_arguments(fresh, three):
    """extra columns named as if they were used: `snr`, `flux`, `error`, `normalized`, `RAJ2000` and the like"""
    labels, flux = three
    for name in ("snr", "ivar", "error", "bitmask", "wavelength", "RAJ2000", "DEJ2000"):
        labels[name] = 7.5
    labels["normalized"], labels["Flux"] = False, flux
    with pytest.warns(ChemtwinWarning) as warned:
        assert codes(fresh, labels, flux)[1] == [""] * 3
    assert str(warned[0].message) == (
        "columns of labels that are not used, but stored in meta at most: snr, ivar, error, bitmask, wavelength, "
        "RAJ2000, DEJ2000, normalized, Flux; arrays of pixels and normalized are arguments, "
        "a position is ra and dec"
    )
    star = fresh.star("A")
    assert (star.ra, star.snr, star.meta["RAJ2000"], star.meta["normalized"]) == (None, None, 7.5, False)


def test_not_stored(fresh, three):
    """extra columns of arrays or objects, or with FITS files"""
    labels, flux = three
    labels["sky"] = SkyCoord([1, 2, 3] * u.deg, [1, 2, 3] * u.deg)
    labels["flux"] = flux
    labels["mixed"] = objects("text", [1], None)
    with pytest.warns(ChemtwinWarning, match="neither text nor numbers: sky, flux, mixed"):
        done, refused = codes(fresh, labels, flux)
    assert refused == [""] * 3
    assert fresh.star("A").meta == {}
    table = Table({"star_id": ["A", "B"], **{name: [value] * 2 for name, value in GIANT.items()}})
    table["cluster"], table["ra"], table["dec"] = "M 67", 1.0, 2.0
    with pytest.warns(ChemtwinWarning) as warned:
        fresh.embed_many([APSTAR, flux[0]], table, progress=False)
    assert [str(one.message) for one in warned] == [
        "not stored with stars from FITS files, which carry no meta: cluster",
        "stars from FITS files have the files' own ra and dec",
        "2 stars: 1 with warnings (column warnings), 1 outside the model's domain (column in_domain), "
        "0 refused (columns code and message)",
    ]
    assert {one.filename for one in warned} == {__file__}
    assert (fresh.star("B").meta, fresh.star("B").ra) == ({"cluster": "M 67"}, 1)
    with pytest.raises(TypeError, match="meta cannot go with a FITS file"):
        fresh.embed(APSTAR, meta={"cluster": "M 67"}, **GIANT)


def test_too_much(fresh, three):
    """extra columns of more than 4096 bytes in a row"""
    labels, flux = three
    labels["note"] = ["short", "x" * 5000, "short"]
    with pytest.raises(ValueError, match=r"bytes of JSON in row 1; at most 4096"):
        fresh.embed_many(flux, labels, progress=False)
    assert fresh.model()["stars"] == 0
    assert stars.META_BYTES == META_BYTES


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


def test_the_page_has_the_rows_that_are_tested():
    page = (ROOT / "docs" / "reference" / "client.md").read_text()
    table = page.partition("## What the client makes of your columns")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    assert rows[0] == "you give"
    tested = []
    for name in ("test_labels.py", "test_pixels.py", "test_tables.py"):
        tree = ast.parse((Path(__file__).parent / name).read_text())
        tested += [ast.get_docstring(one) for one in tree.body if isinstance(one, ast.FunctionDef)]
    assert rows[1:] == [row for row in tested if row]

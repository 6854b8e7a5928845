"""Tables of labels as archives have them: which row is a star's, what it says, and which flags exclude it."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from app.bulk.survey_build.flags import chosen_flags
from app.bulk.survey_build.refused import RefusedSpectrum
from app.bulk.survey_build.star_labels import StarLabels, key

STAR = "2M00004994+1621552"


def table(path, columns) -> StarLabels:
    """The labels of a table that astropy writes in the format of its ending."""
    kinds = {
        ".vot": "votable",
        ".ecsv": "ascii.ecsv",
        ".csv": "ascii.csv",
        ".fits": "fits",
        ".parquet": "parquet",
    }
    Table(columns).write(path, format=kinds[path.suffix])
    return StarLabels(path, chosen_flags([]))


ALLSTAR = {
    "APOGEE_ID": [STAR, "AP17334253-1654573"],
    "TEFF": [4705.0, 3788.0],
    "TEFF_ERR": [60.0, np.nan],
    "LOGG": [2.58, 1.08],
    "LOGG_ERR": [0.08, 0.1],
    "FE_H": [0.05, 0.0],
    "FE_H_ERR": [0.03, -9999.0],
    "ASPCAPFLAG": [0, 0],
    "STARFLAG": [0, 512],
    "SNR": [200.0, 90.0],
    "RA": [0.2081, 263.4272],
    "DEC": [16.3653, -16.9159],
}


@pytest.mark.parametrize("ending", ["fits", "csv", "ecsv", "vot", "parquet"])
def test_an_allstar_table_of_any_format_gives_labels_errors_and_positions(ending, tmp_path):
    labels = table(tmp_path / f"allStar.{ending}", ALLSTAR)
    row = labels.row_of("", (STAR,))
    found = labels.parameters(row, 1)
    assert (found.teff, found.logg, found.fe_h) == pytest.approx((4705, 2.58, 0.05))
    assert (found.teff_err, found.logg_err, found.fe_h_err) == pytest.approx((60, 0.08, 0.03))
    assert labels.position(row) == pytest.approx((0.2081, 16.3653))
    second = labels.parameters(labels.row_of("", ("2M17334253-1654573",)), 1)
    assert (second.teff_err, second.fe_h_err) == (None, None)
    assert labels.metals == "fe_h"


def test_the_names_of_astra_are_understood(tmp_path):
    columns = {
        "sdss_id": [54323421, 54323422],
        "sdss4_apogee_id": [STAR, ""],
        "teff": [4705.0, 4600.0],
        "e_teff": [60.0, 50.0],
        "logg": [2.58, 2.2],
        "e_logg": [0.08, 0.07],
        "m_h_atm": [0.05, -0.1],
        "e_m_h_atm": [0.03, 0.02],
        "flag_bad": [False, True],
        "spectrum_flags": [0, 0],
    }
    labels = table(tmp_path / "mwmAllStar.fits", columns)
    assert labels.row_of("", ("54323421",)) == labels.row_of("", (STAR,)) == 0
    found = labels.parameters(0, 1)
    assert (found.fe_h, found.fe_h_err, found.teff_err) == pytest.approx((0.05, 0.03, 60))
    assert labels.metals == "m_h_atm"
    with pytest.raises(RefusedSpectrum, match="row 2: FLAG_BAD has bit 0 set") as error:
        labels.parameters(1, 1)
    assert error.value.reason == "flags"


def test_the_survey_s_vectors_and_nulls_do_not_matter(tmp_path):
    columns = [
        fits.Column("APOGEE_ID", "18A", array=[STAR]),
        *(
            fits.Column(name, "E", array=[value])
            for name, value in {"TEFF": 4705, "LOGG": 2.58, "FE_H": 0.05}.items()
        ),
        fits.Column("FPARAM", "9E", array=np.zeros((1, 9))),
        fits.Column("ASPCAPFLAG", "J", null=-9999, array=[-9999]),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "allStar.fits")
    labels = StarLabels(tmp_path / "allStar.fits", chosen_flags([]))
    assert labels.parameters(0, 1).teff == 4705


@pytest.mark.parametrize(
    ("options", "flags", "refused"),
    [
        ([], {"ASPCAPFLAG": 1 << 23}, "ASPCAPFLAG has bit 23 set"),
        ([], {"ASPCAPFLAG": 1 << 7}, None),
        ([], {"ASPCAPFLAGS": "TEFF_WARN,STAR_BAD"}, "ASPCAPFLAGS has STAR_BAD set"),
        ([], {"STARFLAG": 1 << 3}, "STARFLAG has bit 3 set"),
        ([], {"STARFLAG": 1 << 9}, None),
        ([], {"STARFLAG": -9999}, None),
        (["none"], {"ASPCAPFLAG": 1 << 23}, None),
        (["STARFLAG:9,11"], {"STARFLAG": 1 << 9, "ASPCAPFLAG": 1 << 23}, "STARFLAG has bit 9 set"),
        (["ASPCAPFLAG:7", "STARFLAG:9"], {"STARFLAG": 0, "ASPCAPFLAG": 3 << 6}, "ASPCAPFLAG has bit 7 set"),
    ],
)
def test_flags_keep_a_star_out(options, flags, refused, tmp_path):
    columns = {
        name: [value] for name, value in (ALLSTAR | flags).items() if name not in ALLSTAR or name in flags
    }
    columns |= {name: [ALLSTAR[name][0]] for name in ("APOGEE_ID", "TEFF", "LOGG", "FE_H")}
    Table(columns).write(tmp_path / "t.fits")
    labels = StarLabels(tmp_path / "t.fits", chosen_flags(options))
    if refused is None:
        assert labels.parameters(0, 1).teff == 4705
        return
    with pytest.raises(RefusedSpectrum, match=refused):
        labels.parameters(0, 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("SNR", "give COLUMN:BIT"),
        ("SNR:", "give COLUMN:BIT"),
        ("MYFLAG:3", "has no column myflag, which --flags names: it has .*aspcapflag"),
        ("STARFLAGS:3", "the column has text such as 'SUSPECT_RV', so flags are words"),
        ("ASPCAPFLAG:STAR_BAD", "the column has numbers, and 'STAR_BAD' is the number of no bit"),
        ("ASPCAPFLAG:-1", "'-1' is the number of no bit"),
        ("ASPCAPFLAG:23,31,41", "--flags ASPCAPFLAG:23,31,41: the column has bits 0 to 30, not 31, 41"),
        ("EXTRATARG:8", "the column has bits 0 to 7, not 8"),
        ("FLAG_BAD:1", "the column has bits 0 to 0, not 1"),
        ("TEFF:3", "the column has 4705.5, and bits are those of whole numbers"),
    ],
)
def test_flags_that_cannot_be_looked_at_are_named(option, message, flagged, tmp_path):
    with pytest.raises(ValueError, match=message):
        StarLabels(flagged(tmp_path / "t.fits"), chosen_flags([option]))


def test_flags_of_a_table_without_types_are_checked_by_its_cells(flagged, tmp_path):
    path = flagged(tmp_path / "t.csv")
    for option, message in (
        ("ASPCAPFLAG:63", "the column has bits 0 to 62, not 63"),
        ("TEFF:3", "the column has 4705.5"),
        ("STARFLAGS:3", "the column has text"),
        ("EXTRATARG:BAD", "the column has numbers"),
        ("FLAG_BAD:1", "the column has bits 0 to 0, not 1"),
    ):
        with pytest.raises(ValueError, match=message):
            StarLabels(path, chosen_flags([option]))
    options = ["ASPCAPFLAG:7", "ASPCAPFLAG:23", "STARFLAGS:SUSPECT_RV", "FLAG_BAD:0"]
    found = StarLabels(path, chosen_flags(options)).flags
    assert found.of(0) == "ASPCAPFLAG has bit 23 set; STARFLAGS has SUSPECT_RV set; FLAG_BAD has bit 0 set"
    assert found.of(1) == ""


@pytest.fixture
def flagged():
    """Writes a table with columns of flags of every type."""

    def write(path: Path) -> Path:
        columns = {"APOGEE_ID": [STAR, "B"], "TEFF": [4705.5, 3788.0], "LOGG": [2.58, 1.0], "FE_H": [0.1, 0.1]}
        columns |= {
            "ASPCAPFLAG": np.array([1 << 23, 0], np.int32),
            "EXTRATARG": np.array([128, 0], np.uint8),
            "FLAG_BAD": [True, False],
            "STARFLAGS": ["SUSPECT_RV", ""],
        }
        Table(columns).write(path)
        return path

    return write


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        ({"TEFF": np.nan}, "labels", "row 1: teff unknown"),
        ({"TEFF": 47050.0, "LOGG": 99.0}, "labels", "row 1: impossible stellar parameters: logg = 99"),
        ({"SNR": 9.0}, "snr", "row 1: S/N 9 in the table"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(change, reason, text, tmp_path):
    columns = {name: [values[0]] for name, values in ALLSTAR.items()} | {n: [v] for n, v in change.items()}
    labels = table(tmp_path / "t.fits", columns)
    with pytest.raises(RefusedSpectrum, match=text) as error:
        labels.parameters(0, 10)
    assert error.value.reason == reason


def test_of_rows_of_one_star_its_file_decides_or_else_the_highest_snr(tmp_path):
    columns = {name: [values[0]] * 3 for name, values in ALLSTAR.items()}
    columns["SNR"] = [50.0, 200.0, 100.0]
    columns["FILE"] = ["a/apStar-1.fits", "same.fits", "same.fits"]
    labels = table(tmp_path / "t.fits", columns)
    assert labels.row_of("apStar-dr17.fits", (STAR,)) == 1
    assert labels.row_of("a/apStar-1.fits.gz", (STAR,)) == 0
    assert labels.row_of("same.fits", (STAR,)) == 1, "a name that two rows have says nothing"
    assert [labels.is_first(row) for row in range(3)] == [False, True, False]


def test_a_row_and_a_file_of_two_stars_are_refused(tmp_path):
    labels = table(tmp_path / "t.fits", ALLSTAR)
    labels.check_star(0, "AP00004994+1621552", "f.fits")
    with pytest.raises(RefusedSpectrum, match=r"f.fits is of 2M17334253-1654573, row 1 of 2M00004994") as error:
        labels.check_star(0, "2M17334253-1654573", "f.fits")
    assert error.value.reason == "another_star"


@pytest.mark.parametrize(
    ("names", "message"),
    [(["TEFF"], "lacks columns teff: it has star_id"), (["FE_H"], "lacks columns fe_h"), (["APOGEE_ID"], "has no column of ids")],
)  # fmt: skip
def test_a_table_without_labels_or_ids_is_named(names, message, tmp_path):
    columns = {name: values for name, values in ALLSTAR.items() if name not in names}
    with pytest.raises(ValueError, match=message):
        table(tmp_path / "t.fits", columns)


def test_masked_cells_are_unknown(tmp_path):
    columns = ALLSTAR | {"TEFF": MaskedColumn([4705.0, 3788.0], mask=[True, False])}
    with pytest.raises(RefusedSpectrum, match="teff unknown"):
        table(tmp_path / "t.ecsv", columns).parameters(0, 1)


def test_ids_of_one_star_have_one_key():
    assert key("AP00004994+1621552") == key(STAR) == key("2MASS-J00004994+1621552") == "00004994+1621552"
    assert key("54323421") == "54323421"

"""The one rule for columns: identifiers digit for digit, unknown numbers, units."""

import numpy as np
import pytest

from app.values.identifiers_and_numbers import (
    ColumnError,
    converted,
    identifiers,
    lost_digits,
    meta_value,
    numbers,
    vacuum_angstrom,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", "12E4", " 2M00004994+1621552 "], ["007", "12E4", "2M00004994+1621552"]),
        (np.array([b"2M1   ", b"a\0\0"]), ["2M1", "a"]),
        (np.array([4295806720123456789, 7]), ["4295806720123456789", "7"]),
        (np.array([18446744073709551615], "u8"), ["18446744073709551615"]),
        (np.ma.array(["a", "b"], mask=[False, True]), ["a", None]),
        (["", None, "nan", "--"], [None] * 4),
    ],
)
def test_identifiers_are_text_digit_for_digit(values, expected):
    assert identifiers("star_id", values) == expected


@pytest.mark.parametrize("values", [np.array([1.0, 2.0]), [1.5], np.array([True])])
def test_numbers_of_floating_point_are_no_identifiers(values):
    with pytest.raises(ColumnError, match="star_id holds"):
        identifiers("star_id", values)


@pytest.mark.parametrize(
    ("text", "lost"), [("4.2958e+18", True), ("12345.0", True), ("12E4", False), ("1.b", False)]
)
def test_an_identifier_that_a_spreadsheet_rounded_is_known(text, lost):
    assert lost_digits(text) is lost


UNKNOWN = [-9999.0, -9999.99, np.nan, np.inf, -np.inf]
UNKNOWN_TEXT = ["", " ", "null", "NaN", "--", "-9999", "-9999.99", "inf", "None", "N/A"]


@pytest.mark.parametrize(
    "values",
    [np.array(UNKNOWN), np.array(UNKNOWN, ">f4"), UNKNOWN_TEXT, np.array(UNKNOWN_TEXT, dtype="S9"), [None]],
)
def test_unknown_numbers_are_nan(values):
    found = numbers(values)
    assert np.isnan(found.values).all()
    assert not found.wrong


def test_a_masked_number_is_unknown_whatever_lies_beneath():
    found = numbers(np.ma.array([4705, 4600], mask=[False, True]))
    np.testing.assert_array_equal(found.values, [4705, np.nan])
    assert numbers(np.ma.array(["4705", "x"], mask=[False, True])).wrong == {}


def test_numbers_may_be_text_and_text_that_is_none_is_an_error_of_its_row():
    found = numbers(["4705", " +4.7e3", "4,705", "4705 K", "1_000", "0x10", "-.5"])
    np.testing.assert_array_equal(found.values, [4705, 4700, np.nan, np.nan, np.nan, np.nan, -0.5])
    assert sorted(found.wrong) == [2, 3, 4, 5]
    assert found.wrong[2] == "'4,705' is no number"


@pytest.mark.parametrize("values", [np.array([True]), np.array([1j])])
def test_other_types_are_no_numbers(values):
    with pytest.raises(ColumnError, match="not numbers"):
        numbers(values)


@pytest.mark.parametrize(
    ("name", "value", "unit", "expected"),
    [
        ("teff", 4705.0, "K", 4705.0),
        ("teff", 4431.85, "deg_C", 4705.0),
        ("teff_err", 0.05, "kK", 50.0),
        ("ra", 1.0, "hourangle", 15.0),
        ("dec", np.pi, "rad", 180.0),
        ("logg", 2.5, "dex(cm/s2)", 2.5),
        ("logg", 2.5, "log(cm.s**-2)", 2.5),
        ("logg", 2.5, "[cm/s2]", 2.5),
        ("fe_h", 0.1, "[Sun]", 0.1),
        ("fe_h_err", 0.1, "dex", 0.1),
        ("fe_h", 0.1, "", 0.1),
    ],
)
def test_units_are_converted(name, value, unit, expected):
    assert converted(name, np.array([value]), unit)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("teff", "mag"),
        ("teff", "furlongs"),
        ("teff_err", "deg_C"),
        ("logg", "m/s2"),
        ("logg", "dex(m/s2)"),
        ("fe_h", "%"),
        ("ra", "K"),
        ("ra", "h"),
    ],
)
def test_units_that_cannot_be_converted_are_refused(name, unit):
    with pytest.raises(ColumnError, match=f"{name} is in '{unit}'".replace("(", r"\(").replace(")", r"\)")):
        converted(name, np.array([1.0]), unit)


def test_an_extra_parameter_is_converted_to_the_models_unit():
    assert converted("vbroad", np.array([3000.0]), "m/s", "km/s")[0] == pytest.approx(3.0)
    with pytest.raises(ColumnError, match="vbroad is in 'K'"):
        converted("vbroad", np.array([3.0]), "K", "km/s")


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("", 1), ("Angstrom", 1), ("Angstrom (vacuum)", 1), ("AA", 1), ("nm", 10), ("um", 1e4), ("micron", 1e4)],
)
def test_wavelengths_become_angstrom(unit, factor):
    np.testing.assert_allclose(vacuum_angstrom(np.array([1.5]), unit), 1.5 * factor)


@pytest.mark.parametrize("unit", ["Angstrom (air)", "Hz", "pixel", "log10(Angstrom)"])
def test_wavelengths_of_another_kind_are_refused(unit):
    with pytest.raises(ColumnError, match="wavelength is in"):
        vacuum_angstrom(np.array([1.5]), unit)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (b"M67 ", "M67"),
        (np.int64(5), 5),
        (4295806720123456789, "4295806720123456789"),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (-9999, None),
        (np.nan, None),
        (np.ma.masked, None),
        ("", None),
    ],
)
def test_extra_cells_become_json(cell, expected):
    found = meta_value(cell)
    assert found == expected
    assert type(found) is type(expected)

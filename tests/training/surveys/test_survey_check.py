"""Each row of the table in docs/reference/file-formats.md: what is accepted and what is refused when a survey is opened."""

import re

import h5py
import numpy as np
import pytest

from model.spectra.grid import Grid, apogee_wavelength
from tests.training.small_surveys import PIXELS, STARS, contents, write
from training.evaluation.evaluate import twin_rows
from training.evaluation.probes import abundances
from training.surveys.survey import Survey
from training.surveys.survey_check import ZEROS


@pytest.fixture
def opened(tmp_path):
    """Opens a sound survey with some datasets changed (None: left out)."""

    def make(**changes) -> Survey:
        return Survey.open(write(tmp_path / "s.h5", contents() | changes))

    return make


def changed(name, row, value):
    values = contents()[name].copy()
    values[row] = value
    return {name: values}


def flux(row, pixels, value):
    values = contents()["flux"]
    values[row, pixels] = value
    return {"flux": values}


def noise(row, pixels, value):
    """The same noise everywhere, but `value` in some pixels of one star."""
    values = np.full((STARS, PIXELS), 100.0, np.float32)
    values[row, pixels] = value
    return values


def ids(*names):
    return np.array(names, dtype=h5py.string_dtype())


def test_a_sound_survey_is_opened(opened):
    survey = opened()
    assert len(survey) == STARS
    assert np.array_equal(survey.twin, np.arange(STARS) ^ 1)
    assert np.isposinf(survey.snr).all()
    assert survey.flux(slice(0, 2)).shape == (2, PIXELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teff": None}, "is not a survey: it lacks teff"),
        (changed("teff", 3, -9999), "teff is not between 1000 and 100000 K: 1 star (S1-003)"),
        (changed("fe_h", 3, np.nan), "fe_h is not between -8 and 3 dex: 1 star (S1-003)"),
        (changed("logg", slice(0, 7), 99), "logg is not between -3 and 10 dex (cgs): 7 stars (S1-000, S1-001, S1-002, S1-003, S1-004, and 2 more)"),
        ({"teff": contents()["teff"].astype("S8")}, "teff is |S8, not numbers"),
        ({"teff": contents()["teff"][:-1]}, f"teff is (39,), not (40,): flux has 40 stars of {PIXELS} pixels"),
        ({"star_id": np.arange(STARS)}, "star_id is int64, not text"),
        (changed("star_id", 1, b"S1-000"), "star_id is that of an earlier row: 1 star (S1-000)"),
        (changed("star_id", 1, b""), "star_id is empty, padded or no text: 1 star ('')"),
        (changed("star_id", 1, b"S1-001 "), "star_id is empty, padded or no text: 1 star ('S1-001 ')"),
        (changed("star_id", 1, b"S\xff"), "star_id is empty, padded or no text: 1 star"),
        (changed("twin_of", 4, b"nobody"), "twin_of is no star of the survey: 1 star (S1-004)"),
        (changed("twin_of", 4, b"S1-004"), "twin_of is the star itself: 1 star (S1-004)"),
        (changed("twin_of", 4, b"S1-000"), "the twin has another twin_of: 2 stars (S1-004, S1-005)"),
        (changed("teff", 3, 90_000), "teff is far from all other stars': 1 star (S1-003)"),
        (changed("logg", 3, 9.9), "logg is far from all other stars': 1 star (S1-003)"),
        ({"group": np.arange(STARS)}, "the twin is of another group: 40 stars"),
        ({"group": np.full(STARS, 1.5)}, "group is float64, not integers"),
        (changed("group", 2, -2), "group is below -1: 1 star (S1-002)"),
        ({"ivar": noise(2, 5, -1.0)}, "ivar is negative or not finite (0 masks a pixel): 1 star (S1-002)"),
        ({"ivar": noise(2, 5, np.nan)}, "ivar is negative or not finite (0 masks a pixel): 1 star (S1-002)"),
        ({"ivar": noise(2, slice(0, 16), 0.0)}, "more than 50% of the pixels are masked: 1 star (S1-002)"),
        ({"error": noise(2, slice(0, 16), 0.0)}, "more than 50% of the pixels are masked: 1 star (S1-002)"),
        ({"ivar": noise(0, 0, 1.0), "error": noise(0, 0, 1.0)}, "ivar and error are both there"),
        ({"ivar": noise(0, 0, 1.0)[:, 1:]}, "ivar is (40, 29), not (40, 30)"),
        ({"teff_err": np.full(STARS, -1.0)}, "teff_err is not between 0 and 99000, nor NaN (not known): 40 stars"),
        ({"logg_err": np.full(STARS, np.inf)}, "logg_err is not between 0 and 13, nor NaN"),
        (flux(7, 10, np.nan), "flux is not finite (fill bad pixels in"),
        (flux(7, 10, np.inf), "flux is not finite"),
        (flux(7, slice(0, ZEROS + 1), 0), f"flux is exactly 0 in more than {ZEROS} pixels"),
        (flux(7, 10, -9999), "flux is not between -10 and 10"),
        ({"flux": contents()["flux"] * np.float32(1e-17)}, "mean flux is not between 0.2 and 2 (divide by the continuum): 40 stars"),
        ({"flux": (contents()["flux"] * 65535).astype(np.uint16)}, "flux is uint16, not floating point"),
        ({"flux": contents()["flux"][0]}, f"flux is ({PIXELS},), not one row for each star"),
        ({"wavelength": contents()["wavelength"][:-1]}, f"wavelength is (29,), not ({PIXELS},)"),
        ({"wavelength": contents()["wavelength"][::-1]}, "wavelength is not finite and strictly increasing"),
        ({"wavelength": contents()["wavelength"] / 10}, "not Angstrom, it looks like nanometres"),
        ({"wavelength": contents()["wavelength"] / 1e4}, "not Angstrom, it looks like micrometres"),
        ({"wavelength": np.log10(contents()["wavelength"])}, "not Angstrom, it looks like log10 of Angstrom"),
        ({"wavelength": np.log(contents()["wavelength"])}, "it looks like the natural logarithm of Angstrom"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(opened, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        opened(**changes)


@pytest.mark.parametrize(
    ("unit", "message"),
    [("nm", "wavelength has the unit 'nm'"), ("Angstrom (air)", "wavelength is in air"), ("Angstrom", None), ("AA", None)],
)  # fmt: skip
def test_the_unit_of_wavelengths_is_believed(tmp_path, unit, message):
    path = write(tmp_path / "s.h5", contents())
    with h5py.File(path, "a") as file:
        file["wavelength"].attrs["unit"] = unit
    if message is None:
        assert len(Survey.open(path)) == STARS
        return
    with pytest.raises(ValueError, match=message):
        Survey.open(path)


@pytest.mark.parametrize(("name", "unit"), [("teff", "kK"), ("logg", "dex(m/s2)"), ("fe_h", "percent")])
@pytest.mark.parametrize("attribute", ["unit", "units"])
def test_the_unit_of_labels_is_believed(tmp_path, name, unit, attribute):
    path = write(tmp_path / "s.h5", contents())
    with h5py.File(path, "a") as file:
        file[name].attrs[attribute] = unit
    with pytest.raises(ValueError, match=rf"{name} has the unit '{re.escape(unit)}'"):
        Survey.open(path)


def test_twins_of_an_id_that_is_there_twice_are_not_named(opened):
    with pytest.raises(ValueError, match="earlier row") as error:
        opened(**changed("star_id", 1, b"S1-000"))
    assert len(error.value.detail) == 1


def test_all_problems_are_named_at_once(opened):
    with pytest.raises(ValueError, match="cannot be used as a survey") as error:
        opened(**changed("teff", 3, -9999), **changed("twin_of", 4, b"nobody"), **flux(7, 10, np.nan))
    for problem in ("teff is not between", "twin_of is no star", "flux is not finite"):
        assert problem in str(error.value)
    assert len(error.value.detail) == 4, "the fourth: the twin of the star whose twin is nobody"


def test_a_file_of_another_format_is_named(tmp_path):
    (tmp_path / "s.csv").write_text("star_id,teff\n")
    with pytest.raises(ValueError, match=r"s\.csv is not a survey: it is not an HDF5 file"):
        Survey.open(tmp_path / "s.csv")


def test_a_few_pixels_of_exactly_0_are_spectra(opened):
    assert len(opened(**flux(7, slice(0, ZEROS), 0))) == STARS


@pytest.mark.parametrize("value", [-9999, 0, np.nan])
def test_an_snr_that_is_not_positive_is_not_known(opened, value):
    """Training does not need it; evaluation takes surveys known to be without noise."""
    survey = opened(snr=np.r_[float(value), np.full(STARS - 1, np.inf)])
    assert np.isnan(survey.snr[0])
    with pytest.raises(ValueError, match="noise of its own"):
        twin_rows(survey)


def test_abundances_are_asked_for_where_they_are_needed(opened):
    values = np.linspace(-0.5, 0.5, 2 * STARS).reshape(-1, 2)
    assert abundances(opened(abundances=values))[1].shape == (STARS, 3)
    for unknown in (np.nan, -9999.99):
        values[5, 1] = unknown
        survey = opened(abundances=values)
        with pytest.raises(ValueError, match=re.escape("abundances is not finite, or -9999: 1 star (S1-005)")):
            abundances(survey)
    values[5, 1] = 40
    with pytest.raises(ValueError, match="abundances is not between -10 and 10: 1 star"):
        abundances(opened(abundances=values))


def test_an_extra_label_may_not_be_a_sentinel(opened):
    survey = opened(vbroad=np.r_[np.full(2, -9999.0), np.arange(2, STARS)])
    with pytest.raises(ValueError, match=re.escape("vbroad is not finite, or -9999: 2 stars (S1-000, S1-001)")):
        survey.column("vbroad")


def test_apogee_pixels_are_cut_to_the_detectors(tmp_path):
    """Between the detectors APOGEE's files hold zeros or NaN."""
    wavelength = apogee_wavelength()
    detectors = Grid.apogee().apogee_pixels
    content = contents(4, len(wavelength))
    flux = np.zeros_like(content["flux"])
    flux[:, detectors] = content["flux"][:, detectors]
    flux[:, 0] = np.nan
    whole = Survey.open(write(tmp_path / "whole.h5", content | {"flux": flux, "wavelength": wavelength}))
    cut = {"flux": flux[:, detectors], "wavelength": wavelength[detectors]}
    same = Survey.open(write(tmp_path / "cut.h5", content | cut))
    assert np.array_equal(whole.wavelength, same.wavelength)
    assert np.array_equal(whole.flux(slice(1, 3)), flux[1:3, detectors])
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(whole.blocks("a"), same.blocks("b"), strict=True))
    assert whole.identity() == same.identity()


def test_numbers_of_any_size_are_read(opened):
    """float64 flux is the same survey as float32, big-endian numbers too."""
    one = opened()
    for kind in ("<f8", ">f4"):
        other = opened(flux=contents()["flux"].astype(kind))
        assert other.flux(slice(0, 1)).dtype == np.float32
        assert other.identity() == one.identity()
    assert len(opened(flux=np.round(contents()["flux"], 3).astype("f2"))) == STARS


def test_errors_of_pixels_are_inverse_variances_of_the_used_pixels(opened):
    survey = opened(error=noise(2, slice(0, 3), 0.0), teff_err=np.full(STARS, 60.0))
    assert survey.ivar(slice(2, 3))[0] == pytest.approx([0] * 3 + [1e-4] * (PIXELS - 3))
    assert survey.masked[2] == pytest.approx(3 / PIXELS)
    assert survey.errors[0, 0] == 60
    assert np.isnan(survey.errors[:, 1:]).all()
    assert opened(ivar=noise(0, 0, 4.0)).ivar(slice(0, 1))[0, 0] == 4
    with pytest.raises(ValueError, match="has no errors of its pixels"):
        opened().ivar(slice(0, 1))


def test_without_errors_of_pixels_the_noise_is_that_of_the_snr_if_every_star_has_one(opened):
    snr = np.linspace(20, 90, STARS)
    survey = opened(snr=snr)
    assert survey.noise == "snr"
    assert survey.ivar(slice(1, 3)) == pytest.approx(np.repeat(snr[1:3, None] ** 2, PIXELS, axis=1), rel=1e-6)
    assert survey.masked.max() == 0
    snr[3] = np.nan
    assert opened(snr=snr).noise is None
    assert opened(snr=snr, ivar=noise(0, 0, 4.0)).noise == "ivar"


def test_errors_of_pixels_and_labels_are_part_of_a_surveys_identity(opened):
    plain = opened().identity()
    assert plain == "47e17be44f1b3a07", "models that exist record the identities of surveys without errors"
    assert opened(teff_err=np.full(STARS, np.nan)).identity() == plain, "no error is known"
    one_pixel = np.full((STARS, PIXELS), 4.0)
    one_pixel[3, 5] = 5.0
    identities = [
        plain,
        opened(ivar=np.full((STARS, PIXELS), 4.0)).identity(),
        opened(ivar=one_pixel).identity(),
        opened(teff_err=np.full(STARS, 60.0)).identity(),
        opened(logg_err=np.full(STARS, 0.1)).identity(),
    ]
    assert len(set(identities)) == 5
    assert opened(error=np.full((STARS, PIXELS), 0.5)).identity() == identities[1], "the same noise as errors"


def test_stars_of_no_group_are_no_siblings_for_evaluation(opened):
    survey = opened(twin_of=None, group=np.full(STARS, -1))
    with pytest.raises(ValueError, match="has stars of no group"):
        survey.check_noiseless()

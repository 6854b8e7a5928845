"""What ingest makes of a star of a survey, an npz or a folder, and what it refuses: nothing is misread."""

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits

from app.bulk.readers.open_stars import open_stars
from app.bulk.readers.star_reader import InputFiles, ReadStar, RejectedStar, StarReader
from app.settings import Settings
from tests.conftest import APSTAR, ASPCAP
from training.surveys.survey import Survey

STAR = "2M00004994+1621552"


def hdf5(path: Path, survey: Survey, units: dict[str, str] | None = None, **changes: object) -> StarReader:
    """A survey file of two stars with some datasets changed, opened as ingest does; None leaves one out."""
    values = {
        "flux": survey.flux(slice(0, 2)),
        "wavelength": survey.wavelength,
        "star_id": np.array([b"H5-a", b"H5-b"]),
        **{name: survey.column(name)[:2] for name in ("teff", "logg", "fe_h")},
        **changes,
    }
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if value is not None:
                kind = h5py.string_dtype() if isinstance(value, list) else None
                file.create_dataset(name, data=value, dtype=kind).attrs["unit"] = (units or {}).get(name, "")
    return open_stars(InputFiles.of(path, None), Settings(), {})


def stars(source: StarReader) -> list[ReadStar | RejectedStar]:
    return source.read(slice(0, len(source)))


def reason(star: ReadStar | RejectedStar) -> str:
    assert isinstance(star, RejectedStar)
    return star.reason


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["H5-a", "H5-bb"], ["H5-a", "H5-bb"]),
        (np.array([b"H5-a   ", b"H5-b   "]), ["H5-a", "H5-b"]),
        (np.array([4295806720123456789, 7]), ["4295806720123456789", "7"]),
        (["007", "12E4"], ["007", "12E4"]),
    ],
)
def test_ids_of_a_survey_are_digit_for_digit(ids, expected, survey, tmp_path):
    source = hdf5(tmp_path / "s.h5", survey, star_id=ids)
    assert source.ids() == expected
    assert [star.job.star_id for star in stars(source)] == expected


def test_ids_that_are_floating_point_numbers_are_refused(survey, tmp_path):
    with pytest.raises(ValueError, match="star_id holds float64: identifiers are text or integers"):
        hdf5(tmp_path / "s.h5", survey, star_id=np.array([4.295806720123456789e18, 7.0])).ids()
    _, second = stars(hdf5(tmp_path / "t.h5", survey, star_id=["H5-a", ""]))
    assert "star_id is missing" in reason(second)


def test_warnings_of_a_survey_are_warnings_of_its_stars(survey, tmp_path):
    quiet = stars(hdf5(tmp_path / "s.h5", survey))
    noted = stars(hdf5(tmp_path / "s.h5", survey, warnings=["", "a flag; bit 3\nfar off"]))
    assert [star.job.warnings for star in noted] == [(), ("a flag; bit 3", "far off")]
    assert noted[0].digest == quiet[0].digest
    assert noted[1].digest != quiet[1].digest, "a star whose warnings changed is embedded again"
    assert "warnings" not in noted[1].job.meta
    counts = hdf5(tmp_path / "s.h5", survey, warnings=np.array([0, 2]))
    assert counts.meta_columns == ("warnings",), "numbers are a column like any other"


@pytest.mark.parametrize("snr", [-9999.0, -1.0, 0.0, np.nan, np.inf])
def test_an_snr_that_is_not_positive_and_finite_is_unknown(snr, survey, tmp_path):
    known, unknown = stars(hdf5(tmp_path / "s.h5", survey, snr=np.array([100.0, snr])))
    assert known.job.observation.ivar[0] == 10_000
    assert unknown.job.observation.ivar is None


@pytest.mark.parametrize("value", [-9999.0, -9999.99, np.nan, np.inf])
@pytest.mark.parametrize("name", ["teff", "logg", "fe_h"])
def test_an_unknown_label_stops_its_star_only(name, value, survey, tmp_path):
    column = survey.column(name)[:2].copy()
    column[1] = value
    first, second = stars(hdf5(tmp_path / "s.h5", survey, **{name: column}))
    assert isinstance(first, ReadStar)
    assert f"{name} unknown" in reason(second)


@pytest.mark.parametrize("value", [-9999.0, np.nan, np.inf, -1.0])
@pytest.mark.parametrize("name", ["teff_err", "ra", "dec"])
def test_an_unknown_error_or_position_is_none(name, value, survey, tmp_path):
    columns = {"teff_err": np.full(2, 50.0), "ra": np.full(2, 10.0), "dec": np.full(2, 20.0)}
    columns[name] = np.array([columns[name][0], value])
    first, second = stars(hdf5(tmp_path / "s.h5", survey, **columns))
    assert (first.job.observation.parameters.teff_err, first.job.ra, first.job.dec) == (50, 10, 20)
    if name == "teff_err":
        assert second.job.observation.parameters.teff_err is None
    elif value != -1:
        assert (second.job.ra, second.job.dec) == (None, None)


@pytest.mark.parametrize(
    "kind", ["f4", "f8", "i2", "u8", "?"], ids=["single", "double", "short", "unsigned", "boolean"]
)
def test_a_mask_of_any_type_of_number_is_understood(kind, survey, tmp_path):
    mask = np.zeros((2, len(survey.wavelength)), kind)
    mask[1, 100:200] = 1
    first, second = stars(hdf5(tmp_path / "s.h5", survey, bitmask=mask))
    assert not first.job.observation.bad.any()
    assert np.flatnonzero(second.job.observation.bad).tolist() == list(range(100, 200))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wavelength": np.ones((2, 7514))}, r"wavelength has shape \(2, 7514\)"),
        ({"teff": ["4705", "4600"]}, "teff has the type object, not numbers"),
        ({"teff": np.array([True, True])}, "teff has the type bool, not numbers"),
        ({"flux": np.ones((2, 7514), complex)}, "flux has the type complex128, not numbers"),
        ({"star_id": None}, "lacks star_id"),
    ],
)
def test_a_survey_of_another_shape_is_refused(changes, message, survey, tmp_path):
    with pytest.raises(ValueError, match=message):
        hdf5(tmp_path / "s.h5", survey, **changes)


def test_units_of_datasets_are_converted_or_refused(survey, tmp_path):
    kelvin, nanometres = survey.column("teff")[:2], survey.wavelength
    changed = {"teff": kelvin / 1000, "wavelength": nanometres / 10}
    star, _ = stars(hdf5(tmp_path / "s.h5", survey, {"teff": "kK", "wavelength": "nm"}, **changed))
    assert star.job.observation.parameters.teff == pytest.approx(kelvin[0])
    np.testing.assert_allclose(star.job.observation.wavelength, nanometres)
    with pytest.raises(ValueError, match="wavelength is in 'Angstrom, air': convert it to vacuum"):
        hdf5(tmp_path / "t.h5", survey, {"wavelength": "Angstrom, air"})
    with pytest.raises(ValueError, match="fe_h is in '%'"):
        stars(hdf5(tmp_path / "u.h5", survey, {"fe_h": "%"}))


def test_extra_datasets_of_a_survey_go_into_meta(survey, tmp_path):
    extra = {"cluster": ["M67", ""], "gaia": np.array([4295806720123456789, -9999]), "matrix": np.ones((2, 2))}
    source = hdf5(tmp_path / "s.h5", survey, **extra)
    first, second = stars(source)
    assert first.job.meta == {"cluster": "M67", "gaia": "4295806720123456789", "source": "s.h5"}
    assert second.job.meta == {"source": "s.h5"}
    assert (source.meta_columns, source.ignored_columns) == (("cluster", "gaia"), ("matrix",))
    first_digest = first.digest
    extra["cluster"] = ["NGC 188", ""]
    assert stars(hdf5(tmp_path / "s.h5", survey, **extra))[0].digest != first_digest


HEADER = "star_id,file,teff,logg,fe_h\n"


def folder(path: Path, labels: str, *files: Path, meta: tuple[str, ...] | None = None) -> StarReader:
    """A folder of files with a table of labels, opened as ingest does."""
    path.mkdir(exist_ok=True)
    for file in files:
        (path / file.name).write_bytes(file.read_bytes())
    (path / "labels.csv").write_text(labels, encoding="utf-8")
    return open_stars(InputFiles.of(path, path / "labels.csv", meta), Settings(), {})


def test_a_byte_order_mark_does_not_hide_the_id(tmp_path):
    (star,) = stars(folder(tmp_path / "f", f"\ufeff{HEADER}MINE,{APSTAR.name},4705,2.58,0.05\n", APSTAR))
    assert star.job.star_id == "MINE"


def test_a_damaged_row_names_column_row_and_star_and_stops_no_other(tmp_path):
    rows = [
        f"A,{APSTAR.name},4705,2.58,0.05",
        f"B,{APSTAR.name},null,2.58,0.05",
        f"C,{APSTAR.name},4705 K,2.58,0.05",
        f"D,{APSTAR.name},4705,2,58,0.05",
        f"E,{APSTAR.name},4705,2.58,99.99",
        f",{APSTAR.name},4705,2.58,0.05",
        "F,none.fits,4705,2.58,0.05",
        "G,,4705,2.58,0.05",
    ]
    first, *others = stars(folder(tmp_path / "f", HEADER + "\n".join(rows), APSTAR))
    assert isinstance(first, ReadStar)
    found = [f"{star.star_id}: {reason(star)}" for star in others]
    expected = [
        "B: line 3: teff unknown",
        "C: line 4: teff '4705 K' is no number",
        ": line 5: has 6 values, the header 5",
        "E: line 6: impossible stellar parameters: fe_h = 99.99",
        ": line 7: star_id is missing",
        "F: line 8: no file none.fits in the folder",
        "G: line 9: the column file is blank",
    ]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_an_id_that_ends_another_stars_name_has_no_file(tmp_path):
    (star,) = stars(folder(tmp_path / "f", "star_id,teff,logg,fe_h\n0004994+1621552,4705,2.58,0.05\n", APSTAR))
    assert "no file 0004994+1621552.fits" in reason(star)


def test_a_file_of_another_star_is_refused(tmp_path):
    labels = f"{HEADER}2M17334253-1654573,{APSTAR.name},4705,2.58,0.05\n"
    (star,) = stars(folder(tmp_path / "f", labels, APSTAR))
    assert reason(star) == f"line 2: {APSTAR.name} is of {STAR}, another star"


def test_a_position_far_from_the_files_is_named(tmp_path):
    header = HEADER.replace("\n", ",ra,dec\n")
    near = f"A,{APSTAR.name},4705,2.58,0.05,0.2082,16.3653\n"
    first, second = stars(folder(tmp_path / "f", header + near + near.replace("16.3", "17.3"), APSTAR))
    assert not first.job.warnings
    assert second.job.warnings == ("the table's position is 1 degrees from the file's: is it another star?",)


def test_gzipped_files_are_read(tmp_path):
    source = folder(tmp_path / "f", "star_id,teff,logg,fe_h\n" + f"{STAR},4705,2.58,0.05\n")
    (tmp_path / "f" / f"{APSTAR.name}.gz").write_bytes(gzip.compress(APSTAR.read_bytes()))
    source = folder(tmp_path / "f", "star_id,teff,logg,fe_h\n" + f"{STAR},4705,2.58,0.05\n")
    (star,) = stars(source)
    plain = folder(tmp_path / "g", "star_id,teff,logg,fe_h\n" + f"{STAR},4705,2.58,0.05\n", APSTAR)
    np.testing.assert_array_equal(star.job.observation.flux, stars(plain)[0].job.observation.flux)


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("ASPCAPFLAG", 0, 1 << 23),
        ("aspcapflag", -9999, "STAR_BAD"),
        ("ASPCAPFLAGS", "", "TEFF_WARN,STAR_BAD"),
        ("flag_bad", "False", "True"),
        ("STARFLAG", 0, 1),
    ],
)
def test_the_tables_flags_are_warnings(column, good, bad, tmp_path):
    header = HEADER.replace("\n", f",{column}\n")
    rows = [f'A,{APSTAR.name},4705,2.58,0.05,"{flag}"\n' for flag in (good, bad)]
    first, second = stars(folder(tmp_path / "f", header + "".join(rows), APSTAR))
    assert first.job.warnings == ()
    assert len(second.job.warnings) == 1
    assert column.lower() in second.job.warnings[0].lower()


def test_extra_columns_of_a_table_go_into_meta(tmp_path):
    header = "star_id,file,teff,logg,fe_h,Cluster,source,members\n"
    row = f"A,{APSTAR.name},4705,2.58,0.05,M67,me,85\n"
    source = folder(tmp_path / "f", header + row, APSTAR)
    (star,) = stars(source)
    assert star.job.meta == {"cluster": "M67", "members": "85", "file": "apStar", "source": APSTAR.name}
    assert (source.meta_columns, source.ignored_columns) == (("cluster", "members"), ("source",))
    chosen = folder(tmp_path / "f", header + row, meta=("cluster",))
    assert stars(chosen)[0].job.meta.keys() == {"cluster", "file", "source"}
    assert chosen.ignored_columns == ("source", "members")
    with pytest.raises(ValueError, match="has no extra column radius"):
        folder(tmp_path / "f", header + row, meta=("radius",))


def test_of_very_many_extra_columns_none_is_stored_unless_named(tmp_path):
    names = [f"x{number}" for number in range(30)]
    header = "star_id,file,teff,logg,fe_h," + ",".join(names) + "\n"
    row = f"A,{APSTAR.name},4705,2.58,0.05," + ",".join(["1"] * 30) + "\n"
    source = folder(tmp_path / "f", header + row, APSTAR)
    assert (source.meta_columns, source.ignored_columns) == ((), tuple(names))
    assert folder(tmp_path / "f", header + row, meta=("x3",)).meta_columns == ("x3",)
    long = folder(tmp_path / "f", header + row.replace(",1,", f",{'x' * 5000},", 1), meta=("x0",))
    assert "take more than 4096 bytes" in reason(stars(long)[0])


def test_without_star_id_the_file_says_which_star_it_is(tmp_path):
    labels = (
        f"file,teff,logg,fe_h\n{APSTAR.name},4705,2.58,0.05\n{ASPCAP.name},4050,1.6,0\nnone.fits,4000,2,0\n"
    )
    source = folder(tmp_path / "f", labels, APSTAR, ASPCAP)
    assert source.ids() == [STAR, "2M17334253-1654573", ""]
    assert [star.job.star_id for star in stars(source)[:2]] == source.ids()[:2]


def test_a_fits_table_in_the_surveys_words_is_enough(tmp_path):
    path = tmp_path / "f"
    path.mkdir()
    (path / APSTAR.name).write_bytes(APSTAR.read_bytes())
    columns = [
        fits.Column("APOGEE_ID", "20A", array=[STAR]),
        fits.Column("FILE", "60A", array=[APSTAR.name]),
        *(fits.Column(n, "E", array=[v]) for n, v in {"TEFF": 4705, "LOGG": 2.58, "FE_H": 0.05}.items()),
        fits.Column("TEFF_ERR", "E", array=[-9999.0]),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "allStar.fits")
    (star,) = stars(open_stars(InputFiles.of(path, tmp_path / "allStar.fits"), Settings(), {}))
    assert star.job.star_id == STAR
    assert star.job.observation.parameters.teff == 4705
    assert star.job.observation.parameters.teff_err is None


def test_a_table_must_have_every_label(tmp_path):
    with pytest.raises(ValueError, match="lacks columns fe_h, logg: it has star_id, file, teff"):
        folder(tmp_path / "f", f"star_id,file,teff\nA,{ASPCAP.name},4050\n", ASPCAP)


def test_the_warnings_are_those_of_what_was_done(tmp_path):
    (star,) = stars(folder(tmp_path / "f", f"{HEADER}A,{ASPCAP.name},4050,1.6,0\n", ASPCAP))
    assert not star.job.warnings


def test_labels_far_from_the_files_own_are_a_warning(tmp_path):
    (star,) = stars(folder(tmp_path / "f", f"{HEADER}A,{ASPCAP.name},4500,1.6,0\n", ASPCAP))
    assert star.job.warnings == ("teff = 4500 is far from the file's own 3788.4: is it another star's?",)


def test_a_row_of_two_stars_is_refused(tmp_path):
    header = HEADER.replace("\n", ",apogee_id\n")
    rows = [
        f"{STAR},{APSTAR.name},4705,2.58,0.05,{one}\n" for one in ("AP00004994+1621552", "2M17334253-1654573")
    ]
    good, bad = stars(folder(tmp_path / "f", header + "".join(rows), APSTAR))
    assert isinstance(good, ReadStar)
    assert "apogee_id 2M17334253-1654573 is another star than star_id" in reason(bad)


@pytest.mark.parametrize("prefix", ["2m", "J", "2MASS-J", "apogee.apo25m.2M", ""])
def test_another_star_is_known_by_its_coordinates(prefix, tmp_path):
    labels = f"{HEADER}{prefix}17334253-1654573,{APSTAR.name},4705,2.58,0.05\n"
    (star,) = stars(folder(tmp_path / "f", labels, APSTAR))
    assert "another star" in reason(star)


@pytest.mark.parametrize("position", ["400,10", "10,114.5", "10,"])
def test_numbers_that_are_no_position_are_named(position, tmp_path):
    header = HEADER.replace("\n", ",ra,dec\n")
    (star,) = stars(folder(tmp_path / "f", header + f"A,{APSTAR.name},4705,2.58,0.05,{position}\n", APSTAR))
    assert star.job.warnings[0].endswith("is no position in degrees, and was left out")

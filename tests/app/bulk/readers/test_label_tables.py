"""Tables of labels as people have them: every kind of file, every way to say that a number is not known."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from app.bulk.readers.label_tables import LabelTable, read_label_table

PLAIN = b"star_id,teff,cluster\n007,4705,M67\n12E4,4600,\n"


def read(path: Path, *names: str) -> LabelTable:
    return read_label_table(path, lambda there: names or there)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", PLAIN),
        ("bom.csv", b"\xef\xbb\xbf" + PLAIN),
        ("windows.csv", PLAIN.replace(b"\n", b"\r\n")),
        ("semicolons.csv", PLAIN.replace(b",", b";")),
        ("tabs.csv", PLAIN.replace(b",", b"\t")),
        ("spaces.csv", PLAIN.replace(b",", b" , ")),
        ("comments.csv", b"# made in 2026\n\n" + PLAIN + b"\n# end\n"),
        ("upper.csv", PLAIN.replace(b"star_id,teff,cluster", b"APOGEE_ID,TEFF,Cluster")),
        ("quoted.csv", PLAIN.replace(b"007", b'"007"')),
        ("packed.csv.gz", PLAIN),
    ],
)
def test_a_csv_is_read_as_it_comes(name, content, tmp_path):
    table = read(written(tmp_path / name, content))
    assert len(table) == 2
    assert table.identifiers("star_id") == ["007", "12E4"]
    np.testing.assert_array_equal(table.numbers("teff").values, [4705, 4600])
    assert table.identifiers("cluster") == ["M67", None]
    assert not table.damaged


def test_a_byte_order_mark_before_any_column_is_none_of_its_name(tmp_path):
    table = read(written(tmp_path / "b.csv", b"\xef\xbb\xbfteff,star_id\n4705,a\n"))
    assert table.names == ("teff", "star_id")


def test_a_row_of_another_length_is_named_and_stops_no_other(tmp_path):
    table = read(written(tmp_path / "t.csv", b"# note\nstar_id,teff\na,4705\nb,4,600\nc,4500\n"))
    assert table.damaged == {1: "has 3 values, the header 2"}
    assert table.row_name(1) == "line 4"
    assert table.identifiers("star_id") == ["a", None, "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"star_id,teff,TEFF\na,1,2\n", "more than one column teff"),
        (b'star_id,note\na,"x\nb,y\n', "cannot be read: unexpected end of data"),
        ("star_id,teff\nä,1\n".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_an_ambiguous_table_is_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(written(tmp_path / "t.csv", content))


def table_of_the_survey() -> Table:
    """As the survey's allStar: upper case, padded ids, sentinels, masked integers, vectors, units."""
    return Table(
        {
            "APOGEE_ID": np.array(["2M1  ", "2M2  "]),
            "GAIA_ID": np.array([4295806720123456789, 5]),
            "TEFF": np.array([4705.0, -9999.0], "f4") * u.K,
            "TEFF_ERR": np.array([np.nan, 50.0], "f4") * u.K,
            "LOGG": [2.58, 2.4],
            "RA": np.radians([15.0, 30.0]) * u.rad,
            "NVISITS": MaskedColumn([3, 4], mask=[False, True]),
            "PARAM": np.zeros((2, 7)),
        }
    )


@pytest.mark.parametrize("kind", ["fits", "fits.gz", "vot", "vot.gz", "ecsv", "parquet"])
def test_the_surveys_own_table_is_understood(kind, tmp_path):
    path, made = tmp_path / f"allStar.{kind}", table_of_the_survey()
    plain = tmp_path / path.name.removesuffix(".gz")
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        made.remove_column("PARAM")
        fields = [
            pa.field(n, pa.array(np.asarray(made[n])).type, metadata={"unit": str(made[n].unit or "")})
            for n in made.colnames
        ]
        arrays = [pa.array(np.asarray(made[n]), mask=np.ma.getmaskarray(made[n])) for n in made.colnames]
        parquet.write_table(pa.table(arrays, schema=pa.schema(fields)), path)
    else:
        if kind == "ecsv":
            made.remove_column("PARAM")
        form = {"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv"}[plain.suffix[1:]]
        made.write(plain, format=form)
        if kind.endswith(".gz"):
            written(path, plain.read_bytes())
    table = read(path)
    assert table.identifiers("star_id") == ["2M1", "2M2"]
    assert table.identifiers("gaia_id") == ["4295806720123456789", "5"]
    np.testing.assert_array_equal(table.numbers("teff").values, [4705, np.nan])
    np.testing.assert_array_equal(table.numbers("teff_err").values, [np.nan, 50])
    np.testing.assert_allclose(table.numbers("ra").values, [15, 30])
    np.testing.assert_array_equal(table.numbers("nvisits").values, [3, np.nan])
    assert "param" not in table.columns


def test_only_chosen_columns_are_read(tmp_path):
    path = tmp_path / "t.fits"
    table_of_the_survey().write(path)
    table = read(path, "star_id", "teff")
    assert set(table.columns) == {"star_id", "teff"}
    assert "nvisits" in table.names


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (fits.Column("TEFF", "E", unit="mag", array=[4705.0]), "teff is in 'mag'"),
        (fits.Column("TEFF", "L", array=[True]), "teff: holds bool"),
    ],
)
def test_a_column_that_is_no_temperature_is_refused_by_name(column, message, tmp_path):
    path = tmp_path / "t.fits"
    fits.BinTableHDU.from_columns([fits.Column("APOGEE_ID", "4A", array=["2M1"]), column]).writeto(path)
    with pytest.raises(ValueError, match=message):
        read(path).numbers("teff")


@pytest.mark.parametrize(
    ("name", "content"), [("t.txt", b"a"), ("t.fits", b"SIMPLE"), ("t.parquet", b"PAR1"), ("t.gz", b"")]
)
def test_what_is_no_table_is_refused(name, content, tmp_path):
    with pytest.raises(ValueError, match="table"):
        read(written(tmp_path / name, content))


def test_several_tables_of_labels_in_a_file_are_refused(tmp_path):
    path = tmp_path / "t.fits"
    columns = [fits.Column("APOGEE_ID", "4A", array=["2M1"]), fits.Column("TEFF", "E", array=[4705.0])]
    raw, calibrated = (fits.BinTableHDU.from_columns(columns, name=name) for name in ("RAW", "CALIB"))
    fits.HDUList([fits.PrimaryHDU(), raw, calibrated]).writeto(path)
    with pytest.raises(ValueError, match=r"several tables of labels \(RAW, CALIB\)"):
        read(path)


def test_units_of_astropys_parquet_are_converted(tmp_path):
    path = tmp_path / "t.parquet"
    Table({"star_id": ["a"], "teff": [4.705] * u.kK, "logg": [2.5]}).write(path)
    np.testing.assert_allclose(read(path).numbers("teff").values, [4705])

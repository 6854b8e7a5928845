"""Tables, read back by astropy."""

import dataclasses
import io

import pytest
from astropy.table import Table

from app.formats.table_columns import Column, Fact, csv_bytes, star_columns, votable_bytes
from tests.app.bulk.test_export import stars

FACTS = [Fact("model", "chemtwin@0123", "the model"), Fact("exact", True, "no nearer star")]


@pytest.mark.parametrize("count", [0, 3])
def test_a_votable_is_written_as_fits(tmp_path, count):
    content = votable_bytes(star_columns(18, {"vbroad": "km/s"}), stars(count) if count else [], "stars", FACTS)
    table = Table.read(io.BytesIO(content), format="votable")
    table.write(tmp_path / "x.fits")
    back = Table.read(tmp_path / "x.fits")
    assert back.colnames == table.colnames
    assert list(back["star_id"].astype(str)) == ["S0", "S1", "S2"][:count]
    assert table["model"].dtype == "U64"


def test_no_text_is_cut(tmp_path):
    long = dataclasses.replace(stars(1)[0], warnings=("x" * 300,))
    (row,) = Table.read(io.BytesIO(votable_bytes(star_columns(18, {}), [long], "stars")), format="votable")
    assert row["warnings"] == "x" * 300


def test_unknown_text_is_empty():
    columns = [Column("verdict", "what is said", lambda row: row, dtype="O")]
    assert csv_bytes(columns, [None, "a twin"]).decode() == 'verdict\n""\na twin\n'

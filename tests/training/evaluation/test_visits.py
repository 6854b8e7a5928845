import io

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from app.cli.main import cli
from model.bundle import REFERENCE
from model.errors import FormatError
from model.spectra.apogee import read_fits
from tests.conftest import APSTAR, ASPCAP, GIANT
from tests.pages import check_self_contained
from training.evaluation.visits import compare, read_stars

GIANT_LINE = "giant,{},{teff},{logg},{fe_h}"


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    """A table of two stars, one of them twice: with its own aspcapStar file under two names."""
    path = tmp_path_factory.mktemp("stars") / "stars.csv"
    lines = ["star,file,teff,logg,fe_h", GIANT_LINE.format(APSTAR, **GIANT), *[f"cool,{ASPCAP},,,"] * 2]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_visits_of_a_star_lie_nearer_than_different_stars(stars, model):
    spectra = read_stars(stars, model)
    assert [each.name for each in spectra[:4]] == ["apStar", *(f"apStar visit {n}" for n in (1, 2, 3))]
    pairs = {what: [p for p in compare(spectra, model) if p.what == what] for what in ("visits", "files")}
    different = [p for p in compare(spectra, model) if p.what == "different stars"]
    assert [len(pairs["visits"]), len(pairs["files"]), len(different)] == [3, 1, 2]
    assert max(p.distance for p in pairs["visits"]) < min(p.distance for p in different)
    assert min(p.p_same for p in pairs["visits"]) > 0.05 > max(p.p_same for p in different)
    assert pairs["files"][0].distance == 0
    assert pairs["files"][0].p_same == 1


def test_the_visits_are_those_of_the_file(stars, model):
    """The same visit as the first row of a file of its own gives the same latent."""
    with fits.open(APSTAR) as hdus:
        for hdu in hdus[1:4]:
            hdu.data = np.roll(hdu.data, -2, axis=0)
        out = io.BytesIO()
        hdus.writeto(out, output_verify="silentfix")
    path = stars.with_name("visit.fits")
    path.write_bytes(out.getvalue())
    table = stars.with_name("visit.csv")
    table.write_text("star,file,teff,logg,fe_h\n" + GIANT_LINE.format("visit.fits", **GIANT) + "\n")
    expected = read_stars(stars, model)[1].embedding.latent
    assert np.array_equal(read_stars(table, model)[0].embedding.latent, expected)


def test_the_command_prints_both_tables(stars, tmp_path):
    arguments = ["lab", "visits", str(REFERENCE), str(stars), "--report", str(tmp_path / "report")]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "report" / "visits.md").read_text() == result.output
    check_self_contained((tmp_path / "report" / "visits.html").read_text(), pictures=0)
    assert "| giant | apStar visit 3 |" in result.output
    assert "| visits | giant apStar visit 1 | giant apStar visit 2 |" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("star,file,teff\na,b,1\n", "lacks the columns fe_h, logg"),
        ("", "lacks the columns"),
        (f"star,file,teff,logg,fe_h\na,{APSTAR},4700,,0\n", "gives no logg"),
    ],
)
def test_a_table_that_lacks_something_is_refused(tmp_path, model, text, message):
    path = tmp_path / "stars.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_stars(path, model)


def test_a_row_that_is_not_there_is_refused():
    assert read_fits(APSTAR.read_bytes()).rows == 5
    assert read_fits(ASPCAP.read_bytes()).rows == 1
    for row in (-1, 5):
        with pytest.raises(FormatError, match="5 rows"):
            read_fits(APSTAR.read_bytes(), row=row)

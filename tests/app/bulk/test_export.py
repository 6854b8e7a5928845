"""The catalogue as a table, read back by the libraries that people read such tables with."""

import dataclasses
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import psycopg
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table
from astropy.table import Table
from click.testing import CliRunner
from pyarrow import parquet

from app.bulk.export import FORMS, export
from app.cli.main import cli
from index.stores.open_store import open_store
from index.stores.sqlite import SqliteStore
from index.stores.star import Star
from model.bundle import REFERENCE, load_model

IDENTITY = load_model(REFERENCE).card.identity


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def stars(count: int = 7) -> list[Star]:
    """Stars with and without errors and coordinates, of the shipped model."""
    generator = np.random.default_rng(1)
    made = []
    for number in range(count):
        latent = generator.normal(size=18).astype("f4")
        covariance = np.diag(np.arange(1, 19, dtype="f4")) if number % 2 else None
        star = Star(f"S{number}", IDENTITY, latent, covariance, 4500.0 + number, 2.0, 0.1)
        made.append(dataclasses.replace(star, snr=80.0, chi2=1.5, warnings=("a", "b")) if number % 2 else star)
    return [dataclasses.replace(made[0], ra=10.0, dec=-5.0, in_domain=False), *made[1:]]


@pytest.fixture
def folder(tmp_path) -> Path:
    store = SqliteStore(tmp_path / "stars.sqlite")
    foreign = dataclasses.replace(
        stars()[3], star_id="F", model="other@1", latent=np.ones(4, "f4"), covariance=None
    )
    store.upsert([*stars(), foreign])
    store.close()
    return tmp_path


def read(path: Path) -> tuple[dict[str, list], dict[str, tuple[str, str]]]:
    """Columns as lists, and each one's unit and UCD."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            text = [name for name in file if h5py.check_string_dtype(file[name].dtype)]
            values = {
                name: (file[name].asstr()[:] if name in text else file[name][:]).tolist() for name in file
            }
            return values, {name: (file[name].attrs["unit"], file[name].attrs["ucd"]) for name in file}
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        metadata = {field.name: field.metadata for field in table.schema}
        return table.to_pydict(), {n: (m[b"unit"].decode(), m[b"ucd"].decode()) for n, m in metadata.items()}
    if path.suffix == ".fits":
        with fits.open(path) as hdus:
            header, data = hdus[1].header, hdus[1].data
            numbers = range(1, header["TFIELDS"] + 1)
            metadata = {header[f"TTYPE{i}"]: (header.get(f"TUNIT{i}", ""), header[f"TUCD{i}"]) for i in numbers}
            return {name: data[name].tolist() for name in data.names}, metadata
    table = parse_single_table(path)
    metadata = {field.name: (str(field.unit or ""), field.ucd) for field in table.fields}
    return {name: table.array[name].tolist() for name in metadata}, metadata


@pytest.mark.parametrize("form", FORMS)
def test_a_table_says_what_the_store_holds(form, folder):
    out = folder / f"out.{form}"
    code, said = run("catalogue", "export", out, "--data-dir", folder)
    assert code == 0, said
    assert f"7 rows written to {out}" in said
    assert ("whole in memory" in said) == (form in ("fits", "vot"))
    values, metadata = read(out)
    assert values["star_id"] == [star.star_id for star in stars()]
    assert values["teff"] == [star.teff for star in stars()]
    assert values["model"] == [IDENTITY] * 7
    assert values["warnings"][:2] == ["", "a; b"]
    assert [bool(known) for known in values["in_domain"]] == [False] + [True] * 6
    np.testing.assert_array_equal(np.array(values["latent"], "f4"), [star.latent for star in stars()])
    np.testing.assert_allclose(values["latent_sd"][1], np.sqrt(np.arange(1, 19)), rtol=1e-6)
    assert np.isnan(np.array(values["latent_sd"][0], float)).all()
    assert (values["ra"][0], values["snr"][1]) == (10.0, 80.0)
    assert values["ra"][1] is None or np.isnan(values["ra"][1])
    assert metadata["teff"] == ("K", "phys.temperature.effective")
    assert metadata["ra"] == ("deg", "pos.eq.ra;meta.main")


def test_a_votable_goes_into_fits(folder):
    assert run("catalogue", "export", folder / "o.vot", "--all-models", "--data-dir", folder)[0] == 0
    table = Table.read(folder / "o.vot", format="votable")
    table.write(folder / "o.fits")
    back = Table.read(folder / "o.fits")
    assert list(back["star_id"].astype(str)) == list(table["star_id"])
    assert list(back["warnings"].filled("").astype(str)) == list(table["warnings"])
    assert list(table["warnings"][:3]) == ["a; b", "", "a; b"]


@pytest.mark.parametrize("form", FORMS)
def test_every_models_rows_are_distinguished(form, folder):
    out = folder / "out.table"
    code, said = run("catalogue", "export", out, "--format", form, "--all-models", "--data-dir", folder)
    assert code == 0, said
    values, _ = read(out.rename(folder / f"out.{form}"))
    assert sorted(set(values["model"])) == sorted({IDENTITY, "other@1"})
    foreign = values["latent"][values["star_id"].index("F")]
    assert (list(foreign[:4]), np.isnan(np.array(foreign[4:], float)).all()) == ([1, 1, 1, 1], True)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_store_makes_an_empty_table(form, tmp_path):
    store = SqliteStore(tmp_path / "stars.sqlite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert export(store, tmp_path / f"o.{form}", IDENTITY, {}, form) == 0
    store.close()
    assert read(tmp_path / f"o.{form}")[0]["star_id"] == []


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """A store of 1,000 stars, each with one more parameter."""
    store = SqliteStore(tmp_path_factory.mktemp("blocks") / "stars.sqlite")
    first = stars(1)[0]
    store.upsert(
        [dataclasses.replace(first, star_id=f"S{i:05d}", extra={"vbroad": float(i)}) for i in range(1000)]
    )
    yield store
    store.close()


@pytest.mark.parametrize("form", FORMS)
def test_more_stars_than_a_block_with_extra_parameters(form, blocks, tmp_path, monkeypatch):
    """Two whole blocks and a part of one."""
    monkeypatch.setattr("app.bulk.export.BLOCK", 400)
    assert export(blocks, tmp_path / f"o.{form}", IDENTITY, {"vbroad": "km/s"}, form) == 1000
    values, metadata = read(tmp_path / f"o.{form}")
    assert values["vbroad"] == list(range(1000))
    assert metadata["vbroad"][0].replace(" ", "") in ("km/s", "kms-1")


@pytest.fixture(params=["sqlite", "postgres"])
def address(request, tmp_path):
    """A store's path or URL."""
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    address = server.create() if server else str(tmp_path / "stars.sqlite")
    yield address
    if server:
        server.drop(address)


def without_spectra(address: str) -> None:
    """Drop the table of spectra: whoever reads it meets an error."""
    if "://" in address:
        with psycopg.connect(address) as connection:
            connection.execute("DROP TABLE spectra")
    else:
        with closing(sqlite3.connect(address)) as connection:
            connection.execute("DROP TABLE spectra")


def test_no_spectrum_is_read(address, tmp_path):
    store = open_store(address)
    store.upsert(stars(), [b"spectrum"] * 7)
    without_spectra(address)
    assert export(store, tmp_path / "o.h5", IDENTITY, {}, "h5") == 7
    store.close()


def test_columns_and_rows_are_of_one_moment(address, tmp_path):
    """A star with a longer latent and another parameter arrives between the two passes."""
    store, other = open_store(address), open_store(address)
    first = dataclasses.replace(stars(1)[0], extra={"vbroad": 5.0})
    store.upsert([first, stars(2)[1]])

    class Units(dict):
        def get(self, name, default=None):
            """Called for a parameter that is new, in the first pass."""
            longer = dataclasses.replace(
                first, star_id="T", latent=np.zeros(30, "f4"), covariance=None, extra={"v_sin_i": 1.0}
            )
            other.upsert([longer])
            other.delete("S1")
            return super().get(name, default)

    assert export(store, tmp_path / "o.h5", IDENTITY, Units(vbroad="km/s"), "h5") == 2
    values, _ = read(tmp_path / "o.h5")
    assert values["star_id"] == ["S0", "S1"]
    assert (np.shape(values["latent"]), "v_sin_i" in values) == ((2, 18), False)
    store.close()
    other.close()


def test_another_suffix_is_refused(folder):
    code, said = run("catalogue", "export", folder / "out.txt", "--data-dir", folder)
    assert (code, "must be one of h5, parquet, fits, vot" in said) == (1, True)
    assert not (folder / "out.txt").exists()

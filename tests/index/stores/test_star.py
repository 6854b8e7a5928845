"""A star's columns: each is declared once, and everything else follows."""

import dataclasses
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from app.schemas.queries import TwinQuery
from index.errors import StoreError
from index.search.nearest import COLUMNS
from index.stores.postgres import PostgresStore
from index.stores.schema import migrations
from index.stores.sqlite import SqliteStore
from index.stores.star import (
    MAPPING,
    NUMBER,
    STAR_TABLE,
    TEXTS,
    Star,
    Table,
    column,
    covariances_of,
    latents_of,
    text_number,
)
from tests.conftest import ROOT
from tests.index.stars import same


@dataclass(frozen=True)
class Wider(Star):
    """A star with three columns more, each declared here and nowhere else."""

    parallax: float | None = field(default=None, metadata=column(NUMBER, searched=True, brief=True))
    epochs: dict[str, float] = field(default_factory=dict, metadata=column(MAPPING, cleared=True))
    flags: tuple[str, ...] = field(default=(), metadata=column(TEXTS))


class WiderFile(SqliteStore):
    table = Table(Wider)


class WiderDatabase(PostgresStore):
    table = Table(Wider)


@pytest.fixture
def wider_store(addresses):
    """A store of such stars."""
    address = addresses.address("wider")
    store = WiderDatabase(address) if "://" in address else WiderFile(Path(address))
    yield store
    store.close()


def wider(star_id: str, **fields) -> Wider:
    latent = np.arange(3, dtype=np.float32)
    return Wider(star_id, "m@1", latent, np.outer(latent, latent), 4500.0, 2.0, 0.1, **fields)


def test_a_column_is_declared_once(wider_store):
    """Tables, rows, briefs, what a search reads, deletes, dumps and restores: all know it."""
    full = wider("A", parallax=1.5, epochs={"first": 2000.5}, flags=("x", "é"))
    wider_store.upsert([full, wider("B")])
    back = wider_store.get(["A", "B"], "m@1")
    assert {star_id: (one.parallax, one.epochs, one.flags) for star_id, one in back.items()} == {
        "A": (1.5, {"first": 2000.5}, ("x", "é")),
        "B": (None, {}, ()),
    }
    assert [brief.parallax for brief in wider_store.briefs(["A", "B"], "m@1").values()] == [1.5, None]
    assert wider_store.table.searched == (*STAR_TABLE.searched, "parallax")
    assert [change.searched[-1] for change in wider_store.changes("m@1", 0)] == [1.5, None]
    rows = list(wider_store.dump())
    assert wider_store.restore(rows) == 2
    assert all(same(one, other) for (one, _), (other, _) in zip(rows, wider_store.dump(), strict=True))
    wider_store.delete("A")
    assert wider_store._read("SELECT epochs, flags IS NULL, parallax FROM stars WHERE star_id = 'A'") == [
        (None, False, 1.5)
    ]


def test_a_column_that_a_row_does_not_have_yet_is_the_field_s_default():
    values = STAR_TABLE.pack(wider("A"))
    assert Table(Wider).unpack([*values, None, None, None]).epochs == {}


def test_the_search_and_its_query_know_the_columns_that_are_searched():
    assert STAR_TABLE.searched == COLUMNS
    limits = {name: {f"{name}_min", f"{name}_max", name} for name in STAR_TABLE.searched}
    assert all(named & set(TwinQuery.model_fields) for named in limits.values()), "nobody can filter by it"
    other = {"k", "format", "fe_h_within", "max_distance", "rank", "not_cluster"}
    assert set(TwinQuery.model_fields) - other <= set().union(*limits.values()), "no column is filtered by it"


def test_a_search_compares_texts_by_numbers():
    rank = STAR_TABLE.searched.index("cluster")
    assert STAR_TABLE.search_values([1.0] * rank + ["M67"])[rank] == text_number("M67")
    assert text_number("M67") != text_number("m67")
    assert text_number("M67") == float(int(text_number("M67"))) > 0 == text_number(None)


def test_vectors_of_several_stars_are_read_together():
    generator = np.random.default_rng(1)
    stars = []
    for row in range(5):
        half = generator.normal(size=(7, 7))
        latent, covariance = half[0].astype("f4"), (half @ half.T).astype("f4")
        stars.append(Star(f"S{row}", "m@1", latent, covariance, 4500.0, 2.0, 0.0))
    names = STAR_TABLE.names
    briefs = [
        STAR_TABLE.unpack_brief(
            [dict(zip(names, STAR_TABLE.pack(one), strict=True))[name] for name in STAR_TABLE.brief]
        )
        for one in stars
    ]
    assert np.array_equal(latents_of(briefs), [one.latent for one in stars])
    assert np.array_equal(covariances_of(briefs), [one.covariance for one in stars])
    assert all(same(STAR_TABLE.unpack(STAR_TABLE.pack(one)), one) for one in stars)


@pytest.mark.parametrize("change", [{"latent": None}, {"teff": "hot"}, {"meta": {"a": object()}}])
def test_a_star_that_cannot_be_stored_is_named(change):
    with pytest.raises(StoreError, match="the star A cannot be stored"):
        STAR_TABLE.pack(dataclasses.replace(wider("A"), **change))


@pytest.mark.slow
def test_the_migrations_are_installed(tmp_path):
    """A wheel of the package, beside the others empty."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "index", tree / "index", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "LICENSES", tree / "LICENSES")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("app", "model", "training/turbospectrum"):
        (tree / name).mkdir(parents=True)
    code = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tree, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.startswith("index/stores/migrations/")]
    assert len(found) == len(migrations("sqlite")) + len(migrations("postgres"))

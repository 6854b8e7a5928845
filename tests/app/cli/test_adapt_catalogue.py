"""A model adapted to the spectra that a catalogue stores, while its service runs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from app.bulk.observed_stars import Grouped, ObservedStars, stars_of_catalogue, stars_of_files
from app.cli.main import cli
from model.bundle import REFERENCE, load_model
from tests.app.bulk.test_ingest import run
from tests.conftest import DEFAULT_MODEL, Server

M67 = "2M08512156+1146061"
GIANTS = Path("training/observed/dr10_giants.h5")
MEMBERS = "training/observed/members.csv"


@pytest.fixture
def folder(catalogue_of_make: Path, tmp_path: Path) -> Path:
    """A catalogue of the observed giants with their spectra, which a test may change."""
    return shutil.copytree(catalogue_of_make, tmp_path / "data")


@pytest.mark.slow
def test_a_catalogue_moves_to_a_model_adapted_to_it_without_downtime(
    folder: Path, tmp_path: Path, start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command adapts in this process, where the choice of its prior can be made short."""
    monkeypatch.setattr("training.fitting.choose_misfit.SIZES", (1e-4,))
    monkeypatch.setattr("training.fitting.choose_misfit.FOLDS", 2)
    server, adapted = (
        start_server(folder, CHEMTWIN_STORE_SPECTRA="true", **DEFAULT_MODEL),
        tmp_path / "adapted.safetensors",
    )
    stop, statuses = threading.Event(), list[int]()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while not stop.is_set():
                statuses.append(http.get(f"/twins/{M67}?k=3").status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        adapt = "model", "adapt", REFERENCE, "--catalogue", folder, "--name", "own", "--out", adapted
        done = CliRunner().invoke(cli, [*map(str, adapt)])
        assert done.exit_code == 0, done.output
        status, said = run("catalogue", "reindex", "--model", adapted, "--data-dir", folder, **DEFAULT_MODEL)
        assert status == 0, said
        newer = start_server(folder, CHEMTWIN_MODEL=str(adapted))
        found = httpx.get(f"{newer.url}/twins/{M67}?k=3", timeout=60).json()
    finally:
        stop.set()
        asking.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}
    card = load_model(adapted).card
    assert card.training["adapted"]["source"] == "82 stars of a catalogue"
    assert found["model"]["version"] == card.version
    assert found["twins"][0]["cluster"] == "M67"


@pytest.mark.parametrize("source", ["catalogue", "file"])
def test_a_sample_of_stars_has_all_of_the_groups(source: str, folder: Path) -> None:
    model = load_model(REFERENCE)

    def read(grouped: Grouped, most: int) -> ObservedStars:
        if source == "catalogue":
            return stars_of_catalogue(str(folder / "stars.sqlite"), model, grouped, most)
        return stars_of_files(GIANTS, None, model, grouped, most)

    every = read(lambda *_: False, 1000)
    assert (len(every.star_ids), every.clusters.count("M67"), every.unusable) == (82, 15, {})
    some = read(lambda star_id, _: star_id == M67, 10)
    assert len(some.spectra) == 10
    assert M67 in some.star_ids
    assert some.star_ids == [star_id for star_id in every.star_ids if star_id in some.star_ids]
    members = read(lambda _, cluster: cluster == "M67", 10)
    assert members.clusters == ["M67"] * 15


@pytest.mark.slow
def test_a_catalogue_without_spectra_is_named(catalogue_data: Path, tmp_path: Path) -> None:
    shutil.copytree(catalogue_data, tmp_path / "bare")
    out = tmp_path / "out.safetensors"
    arguments = "model", "adapt", REFERENCE, "--catalogue", tmp_path / "bare", "--out", out
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    assert (result.exit_code, "CHEMTWIN_STORE_SPECTRA" in str(result.exception), out.exists()) == (
        1,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give STARS or --catalogue"),
        (
            ["training/observed/dr10_giants.h5", "--clusters", "--siblings", MEMBERS],
            "both name groups: give one",
        ),
    ],
)
def test_stars_come_from_one_source(arguments: list[str], message: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out.safetensors")
    result = CliRunner().invoke(cli, ["model", "adapt", str(REFERENCE), *arguments, "--out", out])
    assert result.exit_code == 2
    assert message in result.output

"""The shipped emulator: its accuracy on spectra no fit has seen, and how it treats bad input and bad files."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from tests.pages import check_self_contained
from training.emulator.emulator import DEFAULT_PATH, LABELS, Emulator, EmulatorFileError
from training.emulator.evaluate_emulator import evaluate
from training.emulator.fit_emulator import training_rows
from training.emulator.grid import TrainingSpectra, read_validation


@pytest.fixture(scope="module")
def emulator():
    return Emulator.load()


@pytest.fixture(scope="module")
def quality(emulator):
    return evaluate(emulator)


@pytest.fixture
def star(emulator):
    centre = (emulator.lo + emulator.hi) / 2
    centre[[LABELS.index("C"), LABELS.index("O")]] = -0.2, 0.15
    return centre


def test_median_error_is_below_a_two_thousandth_of_the_continuum(quality):
    assert quality["box"]["median"] < 5e-4
    assert quality["survey"]["median"] < 3e-4
    assert quality["box"]["rms"] < 2e-3


@pytest.mark.parametrize("name", LABELS[2:])
def test_responses_follow_turbospectrum(quality, name):
    """The aim: a correlation of 0.95 and an amplitude within 10 %, over the points of tables 1 and 2."""
    response = quality["responses"][name]
    assert len(response["points"]) >= 19
    for correlation in (response["pooled"]["correlation"], np.median(response["correlation"])):
        assert correlation > 0.95
    for amplitude in ("slope", "ratio"):
        for value in (response["pooled"][amplitude], np.median(response[amplitude])):
            assert value == pytest.approx(1.0, abs=0.1)


def test_flux_is_single_precision_on_the_detector_pixels(emulator, star):
    flux = emulator(star[None])
    assert flux.dtype == np.float32
    assert flux.shape == (1, len(emulator.wavelength)) == (1, 7514)
    assert np.all(np.diff(emulator.wavelength) > 0)
    assert 0.3 < flux.min() < flux.max() < 1.01


def test_same_labels_give_the_same_flux_alone_and_in_a_batch(emulator, star):
    batch = np.repeat(star[None], 300, axis=0)
    np.testing.assert_allclose(emulator(batch), np.repeat(emulator(star[None]), 300, axis=0), atol=1e-6)


@pytest.mark.parametrize("name", LABELS)
def test_flux_is_smooth_along_every_label(emulator, star, name):
    column = LABELS.index(name)
    path = np.repeat(star[None], 81, axis=0)
    path[:, column] = np.linspace(emulator.lo[column], emulator.hi[column], 81)
    flux = emulator(path).astype(np.float64)
    assert np.abs(np.diff(flux, axis=0)).max() < 0.06
    assert np.abs(np.diff(flux, n=2, axis=0)).max() < 0.02


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("side", ["lo", "hi"])
def test_outside_the_box_is_refused_by_name_and_the_edge_is_not(emulator, star, name, side):
    column = LABELS.index(name)
    edge = getattr(emulator, side)[column]
    beyond = 1e-3 * (1 if side == "hi" else -1) * (emulator.hi - emulator.lo)[column]
    star[column] = edge
    assert np.isfinite(emulator(star[None])).all()
    star[column] = edge + beyond
    with pytest.raises(ValueError, match=rf"^{name} = "):
        emulator(star[None])


def test_nan_and_a_wrong_shape_are_refused(emulator, star):
    with pytest.raises(ValueError, match=r"shape \(N, 21\)"):
        emulator(star)
    star[LABELS.index("Rb")] = np.nan
    with pytest.raises(ValueError, match="Rb = nan"):
        emulator(star[None])


def test_carbon_stars_are_refused(emulator, star):
    star[[LABELS.index("C"), LABELS.index("O")]] = 0.2, -0.1
    assert not emulator.covers(star[None])[0]
    with pytest.raises(ValueError, match=r"C - O = 0\.3"):
        emulator(star[None])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        Emulator.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "header"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    content = DEFAULT_PATH.read_bytes()
    path = Path(tmp_path) / "damaged.safetensors"
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "text": b"not an emulator",
            "empty": b"",
            "header": content.replace(b"chemtwin-emulator", b"another-emulator_", 1),
        }[damage]
    )
    with pytest.raises(EmulatorFileError, match=r"damaged\.safetensors"):
        Emulator.load(path)


def test_a_fit_never_sees_the_validation_stars(emulator):
    """A grid made again may hold out others than the shipped validation file does."""
    validation = read_validation()
    labels = np.concatenate([validation.labels[:3], (emulator.lo + emulator.hi)[None] / 2, emulator.lo[None]])
    held_out = np.array([False] * 4 + [True])
    labels = np.concatenate([labels, validation.branch_labels[:1]])
    held_out = np.append(held_out, False)
    grid = TrainingSpectra(labels, np.ones((6, 2)), emulator.domain, held_out)
    assert training_rows(grid).tolist() == [False, False, False, True, False, False]


@pytest.mark.slow
def test_its_report_is_one_file_with_the_figure(tmp_path):
    result = CliRunner().invoke(
        cli, ["lab", "emulator", "evaluate", "--report", str(tmp_path)], catch_exceptions=False
    )
    page = (tmp_path / "emulator_quality.html").read_text()
    check_self_contained(page, pictures=1)
    held_out = next(line for line in result.output.splitlines() if "held-out" in line).split(" | ")[1]
    assert f">{held_out}</td>" in page

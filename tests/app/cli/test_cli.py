import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from model.bundle import SHIPPED


@pytest.mark.parametrize(
    "command", [[], *([name] for name in cli.list_commands(None)), ["emulator", "evaluate"]]
)
def test_every_command_has_help(command):
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_the_service_refuses_the_open_without_keys(monkeypatch):
    monkeypatch.setenv("CHEMTWIN_HOST", "0.0.0.0")
    result = CliRunner().invoke(cli, ["serve"])
    assert result.exit_code == 1
    assert "CHEMTWIN_API_KEYS" in result.output


def test_evaluation_refuses_the_training_survey(survey, tmp_path, monkeypatch, model):
    copy = tmp_path / "same-seed.h5"
    copy.write_bytes(survey.path.read_bytes())
    with h5py.File(copy, "a") as file:
        file.attrs["seed"] = model.card.training["survey_seed"]
    result = CliRunner().invoke(
        cli, ["evaluate", str(SHIPPED), "--survey", str(copy), "--report", str(tmp_path / "r")]
    )
    assert "seed of a survey that default was trained or selected on" in str(result.exception)


def test_a_file_that_is_no_survey_is_refused(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["flux"] = np.zeros((2, 3))
    result = CliRunner().invoke(cli, ["ingest", str(path), "--data-dir", str(tmp_path / "data")])
    assert "is not a survey: it lacks fe_h" in str(result.exception)

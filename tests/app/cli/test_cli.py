import json
import subprocess
import sys
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from model.bundle import REFERENCE, SHIPPED
from tests.conftest import ROOT
from tests.docs.blocks import check, commands


def commands_below(group: click.Group, name: str) -> dict[str, click.Command]:
    """All commands and groups of a group, by their full names."""
    found = {}
    for own in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), own)
        found[f"{name} {own}"] = command
        if isinstance(command, click.Group):
            found |= commands_below(command, f"{name} {own}")
    return found


def parse(words: list[str]) -> None:
    """Let the command parse its arguments, in a folder that has the files that they name; raises UsageError."""
    command, rest = cli, words[1:]
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), rest[0])
        assert command is not None, words
        rest = rest[1:]
    given, _, _ = command.make_parser(click.Context(command)).parse_args([*rest])
    for param in command.params:
        value = given.get(param.name)
        names = value if isinstance(value, (tuple, list)) else [value]
        for path in [Path(name) for name in names if isinstance(name, str)]:
            if isinstance(param.type, click.Path) and param.type.exists:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch() if param.type.file_okay else path.mkdir(parents=True, exist_ok=True)
    command.make_context(" ".join(words), [*rest])


COMMANDS = {"chemtwin": cli, **commands_below(cli, "chemtwin")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, [*name.split()[1:], "--help"], prog_name="chemtwin")
    assert result.exit_code == 0, result.output
    assert f"Usage: {name} " in result.output
    last = result.output.splitlines()[-1]
    assert last.startswith(f"  Example: {name} ") or last == f"  Example: {name}"
    (words,) = commands(last.partition(": ")[2])
    check(words)
    parse(words)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["catalogue"], ["model", "train"], ["lab"]])
def test_help_imports_nothing_heavy(arguments):
    """It took 6 s when it imported the emulator."""
    code = (
        "import sys; from app.cli.main import cli; cli([*sys.argv[1:], '--help'], standalone_mode=False); "
        "print([name for name in ('torch', 'numpy', 'astropy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


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
        cli, ["model", "evaluate", str(REFERENCE), "--survey", str(copy), "--report", str(tmp_path / "r")]
    )
    assert "seed of a survey that reference was trained or selected on" in str(result.exception)


def test_the_card_that_is_printed_is_the_one_that_the_service_gives(client):
    result = CliRunner().invoke(cli, ["model", "card", str(REFERENCE)], catch_exceptions=False)
    printed, given = json.loads(result.output), client.get("/model").json()
    assert given.keys() - printed.keys() == {"stars", "drift"}
    assert printed == {name: given[name] for name in printed}


def test_a_copy_of_a_model_needs_a_report(tmp_path):
    result = CliRunner().invoke(cli, ["model", "card", str(SHIPPED), "--out", str(tmp_path / "copy")])
    assert result.exit_code == 2
    assert "--report and --out go together" in result.output


def test_a_file_that_is_no_survey_is_refused(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["flux"] = np.zeros((2, 3))
    result = CliRunner().invoke(cli, ["catalogue", "ingest", str(path), "--data-dir", str(tmp_path / "data")])
    assert "is not a survey: it lacks fe_h" in str(result.exception)
    assert not (tmp_path / "data" / "stars.sqlite").exists()


def test_a_survey_is_checked(survey, tmp_path):
    result = CliRunner().invoke(cli, ["survey", "check", str(survey.path)], catch_exceptions=False)
    assert result.output == (
        f"{survey.path}: 1200 stars, with twins, 7514 pixels from 15152.2 to 16943.5 Angstrom\n"
    )
    copy = tmp_path / "copy.h5"
    copy.write_bytes(survey.path.read_bytes())
    with h5py.File(copy, "a") as file:
        file["teff"][3] = np.nan
    assert "1 star" in str(CliRunner().invoke(cli, ["survey", "check", str(copy)]).exception)


def test_what_does_not_parse_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ("chemtwin twins", "chemtwin twins a.fits --k many", "chemtwin twins a.fits --colour red"):
        with pytest.raises(click.UsageError):
            parse(words.split())

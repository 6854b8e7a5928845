"""The options that name a store win over the environment, in every command that has them."""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from app.settings import read_settings
from index.stores.sqlite import SqliteStore
from index.stores.star import Star
from model.bundle import REFERENCE
from model.errors import InputError
from tests.app.cli.test_cli import COMMANDS
from tests.conftest import APSTAR, GIANT


def commands_with(option: str) -> list[str]:
    """The names of all commands that have an option."""
    return [
        name.removeprefix("chemtwin ")
        for name, command in COMMANDS.items()
        if any(option in given.opts for given in command.params)
    ]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def arguments(tmp_path, model) -> dict[str, list[str]]:
    """What each command needs beside the store."""
    source = tmp_path / "stars.npz"
    labels = {name: [value] * 2 for name, value in GIANT.items()}
    np.savez(source, star_id=["NEW", "TWIN"], flux=[model.example().flux] * 2, **labels)
    return {
        "catalogue backup": [str(tmp_path / "b.sqlite")],
        "catalogue export": [str(tmp_path / "t.h5"), "--all-models"],
        "catalogue ingest": [str(source), "--workers", "1"],
        "catalogue reindex": ["--model", str(REFERENCE), "--drop-old"],
        "plot twins": ["NEW", "--out", str(tmp_path / "p.pdf")],
        "twins": [str(APSTAR), *(f"--{name.replace('_', '-')}={value}" for name, value in GIANT.items())],
    }


@pytest.fixture
def stores(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A store that CHEMTWIN_STORE names, with a star, and the store that an option is to name, with two."""
    both = tmp_path / "production" / "stars.sqlite", tmp_path / "staging" / "stars.sqlite"
    for count, path in enumerate(both, 1):
        store = SqliteStore(path)
        store.upsert([Star(f"S{row}", "m@1", np.zeros(4, "f4"), None, 4500, 2, 0) for row in range(count)])
        store.close()
    monkeypatch.setenv("CHEMTWIN_STORE", str(both[0]))
    return both


@pytest.mark.parametrize("option", ["--data-dir", "--store"])
def test_every_command_uses_the_store_that_its_option_names(option, arguments, stores):
    production, staging = stores
    assert sorted(commands_with(option)) == sorted(arguments), "a command's arguments are missing here"
    before = content(production.parent)
    for name, given in arguments.items():
        address = str(staging.parent if option == "--data-dir" else staging)
        done = CliRunner().invoke(cli, [*name.split(), *given, option, address])
        assert done.exit_code == 0, (name, done.output, done.exception)
        assert content(production.parent) == before, name
        if name in ("catalogue backup", "catalogue export"):
            assert done.output.startswith("2 rows"), done.output
    store = SqliteStore(staging)
    assert {star.star_id for star, _ in store.dump()} == {"NEW", "TWIN", "S0", "S1"}
    store.close()


def test_without_the_option_the_environment_counts(arguments, stores):
    done = CliRunner().invoke(cli, ["catalogue", "backup", *arguments["catalogue backup"]])
    assert done.output.startswith("1 rows"), done.output


def test_what_is_given_wins_over_every_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("CHEMTWIN_STORE", "elsewhere.sqlite")
    monkeypatch.setenv("CHEMTWIN_DATA_DIR", "elsewhere")
    assert read_settings().store_address == "elsewhere.sqlite"
    assert read_settings(data_dir=tmp_path).store_address == str(tmp_path / "stars.sqlite")
    assert read_settings(store="mine.sqlite").store_address == "mine.sqlite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data-dir", "a", "--store", "b"], "both name a store: give one"),
        (["--store", ""], "--store is empty"),
    ],
)
def test_options_that_name_no_one_store_are_an_error(options, message, tmp_path):
    done = CliRunner().invoke(cli, ["catalogue", "backup", str(tmp_path / "b.sqlite"), *options])
    assert (done.exit_code, message in done.output) == (2, True)


@pytest.mark.parametrize(
    "name", ["catalogue backup", "catalogue export", "catalogue reindex", "plot twins", "twins"]
)
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(name, arguments, tmp_path):
    done = CliRunner().invoke(cli, [*name.split(), *arguments[name], "--data-dir", str(tmp_path / "typo")])
    assert "there is no store" in str(done.exception)
    assert "chemtwin catalogue ingest" in str(done.exception)
    assert not (tmp_path / "typo").exists()
    assert not (tmp_path / "b.sqlite").exists()
    assert not (tmp_path / "p.pdf").exists()


def test_a_variable_with_an_impossible_value_is_named(monkeypatch):
    monkeypatch.setitem(os.environ, "CHEMTWIN_PORT", "eighty")
    with pytest.raises(
        InputError, match=r"CHEMTWIN_PORT: Input should be a valid integer.*docs/reference/settings\.md"
    ):
        read_settings()

"""What the command line prints of an error."""

import json
import pickle
import socket

import numpy as np
import pytest

from app.cli.errors import DEFECT, message_of, report
from index.errors import StoreError
from model.errors import FormatError, InputError
from tests.app.bulk.test_ingest import run
from training.config import read_config


def caught(act) -> Exception:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error: Exception) -> Exception:
    def act():
        raise error

    return caught(act)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("no such column", ["teff", "logg"]), "no such column\n  teff\n  logg"),
        (FormatError("no_fits", "not a FITS file"), "not a FITS file"),
        (StoreError("cannot open the store"), "cannot open the store"),
        (FileNotFoundError(2, "No such file", "a.h5"), "[Errno 2] No such file: 'a.h5'"),
        (
            ModuleNotFoundError("No module", name="pyarrow"),
            "pyarrow is not installed; pip install 'chemtwin[train,bulk]' brings it",
        ),
    ],
)
def test_what_the_user_can_mend_is_a_message(error, message):
    assert message_of(raising(error)) == message


def test_a_configuration_that_cannot_be_used_is_a_message(tmp_path):
    (tmp_path / "c.toml").write_text('method = "none"')
    error = caught(lambda: read_config(tmp_path / "c.toml"))
    assert message_of(error) == str(error)


def in_our_code(expression: str):
    """Evaluate as if a module of ours did."""
    return caught(lambda: eval(expression, {"__name__": "app.somewhere", "np": np, "json": json}))


@pytest.mark.parametrize(
    "expression",
    [
        "np.zeros(2) + np.zeros(3)",  # raised by C code: the last frame is of ours
        "int('x')",
        "json.loads('{')",
        "np.concatenate([])",
        "{}['star_id']",
        "None.latent",
    ],
)
def test_what_other_code_raises_is_a_defect(expression):
    assert message_of(in_our_code(expression)) is None


def test_a_module_of_ours_that_is_missing_is_a_defect():
    assert message_of(raising(ModuleNotFoundError("No module", name="app.nowhere"))) is None


def test_a_defect_has_its_traceback_and_a_message_has_none(capsys):
    report(in_our_code("np.zeros(2) + np.zeros(3)"), debug=False)
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "operands could not be broadcast" in said
    assert said.endswith(f"chemtwin: {DEFECT}\n")
    report(raising(InputError("no such column")), debug=False)
    assert capsys.readouterr().err == "chemtwin: no such column\n"


@pytest.mark.slow
def test_debug_shows_the_traceback_of_every_error(tmp_path):
    command = ("catalogue", "backup", tmp_path / "b.sqlite", "--data-dir", tmp_path / "typo")
    code, said = run(*command)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"chemtwin: there is no store {tmp_path}/typo/stars.sqlite: ")
    code, said = run("--debug", *command)
    assert (code, said.startswith("Traceback")) == (1, True)
    assert said.splitlines()[-1].startswith(f"chemtwin: there is no store {tmp_path}/typo/stars.sqlite: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CHEMTWIN_MODEL", "/etc/hostname", "cannot read the model file /etc/hostname"),
        ("CHEMTWIN_PORT", "{taken}", "(it is in use): set CHEMTWIN_PORT, or stop what runs there"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_line(variable, value, message, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        value = value.format(taken=taken.getsockname()[1])
        code, said = run("serve", CHEMTWIN_DATA_DIR=str(tmp_path), **{variable: value})
    assert (code, said.count("\n")) == (1, 1), said
    assert message in said


@pytest.mark.parametrize(
    "error", [InputError("m", ["a"]), FormatError("c", "m", ["a", "b"]), StoreError("m", "r")]
)
def test_an_error_of_a_worker_process_arrives_whole(error):
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))

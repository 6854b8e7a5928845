"""The rules of tests/budget.py, on a small suite of their own."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

CONFTEST = """
import math
import pytest
from tests import budget
from tests.budget import pytest_collection_modifyitems, pytest_runtest_makereport, pytest_runtest_protocol

budget.SECONDS, budget.BUSY = dict.fromkeys(budget.SECONDS, 0.6), math.inf
budget.os.getloadavg = lambda: (0.0, 0.0, 0.0)

@pytest.fixture
def service(): ...
"""

QUICK = "def test_quick(): ..."

SLOW = """
import time
import pytest

def test_too_long(): time.sleep(0.8)

@pytest.mark.long("it sleeps")
def test_long(): time.sleep(0.8)

def test_of_a_service(service): ...
"""


STARTS = """
import subprocess
import sys
import pytest
from tests import forked

def test_command(): forked.run("--help")

def test_interpreter(): subprocess.run([sys.executable, "-c", ""])

@pytest.mark.slow
def test_slow(): subprocess.run([sys.executable, "-c", ""])

def test_shell(): subprocess.run(["true"])
"""


def run(folder, *options):
    """What pytest says of the tests in a folder."""
    command = [sys.executable, "-m", "pytest", "-v", "-n0", "-c", ROOT / "pyproject.toml", *options, folder]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


def outcomes(said):
    return [line.split()[1] for line in said.splitlines() if "::" in line and "%]" in line]


@pytest.mark.slow
def test_a_test_that_starts_a_program_is_not_quick(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_a.py").write_text(STARTS)
    said = run(tmp_path)
    assert outcomes(said) == ["FAILED", "FAILED", "PASSED", "PASSED"]
    assert "test_command starts chemtwin, which no quick test does: mark it slow" in said


@pytest.mark.slow
def test_a_test_that_takes_too_long_fails_unless_a_reason_is_given(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_a.py").write_text(QUICK)
    (tmp_path / "test_b.py").write_text(SLOW)
    every = run(tmp_path)
    assert outcomes(every) == ["FAILED", "PASSED", "PASSED", "PASSED"], (
        "the module with the long test comes first"
    )
    assert "Make it faster, or give the reason" in every
    chosen = run(tmp_path, "-m", "not slow")
    assert "test_quick PASSED" in chosen
    assert "test_of_a_service" not in chosen
    assert "test_long" not in chosen

"""The rules of tests/budget.py, on a small suite of their own."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

CONFTEST = """
import math
import pytest
from tests import budget
from tests.budget import pytest_collection_modifyitems, pytest_runtest_makereport

budget.SECONDS, budget.BUSY = 0.1, math.inf
budget.os.getloadavg = lambda: (0.0, 0.0, 0.0)

@pytest.fixture
def service(): ...
"""

QUICK = "def test_quick(): ..."

SLOW = """
import time
import pytest

def test_too_long(): time.sleep(0.3)

@pytest.mark.long("it sleeps")
def test_long(): time.sleep(0.3)

def test_of_a_service(service): ...
"""


@pytest.mark.slow
def test_a_test_that_takes_too_long_fails_unless_a_reason_is_given(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_a.py").write_text(QUICK)
    (tmp_path / "test_b.py").write_text(SLOW)

    def run(*options):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-n0",
            "-c",
            ROOT / "pyproject.toml",
            *options,
            tmp_path,
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout

    every = run()
    outcomes = [line.split()[1] for line in every.splitlines() if "::" in line and "%]" in line]
    assert outcomes == ["FAILED", "PASSED", "PASSED", "PASSED"], "the module with the long test comes first"
    assert "Make it faster, or give the reason" in every
    chosen = run("-m", "not slow")
    assert "test_quick PASSED" in chosen
    assert "test_of_a_service" not in chosen
    assert "test_long" not in chosen

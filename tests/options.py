"""The suite's own options: `--thorough` tries more random cases, `--write-outputs` writes documents anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import forked

TIMES = 30
"""How many times as many cases `--thorough` tries."""

EXAMPLES, STEPS = 30, 30
"""Examples of a property in the suite, and the operations of each that is a sequence."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption(
        "--thorough", action="store_true", help=f"{TIMES} times as many random cases of each property"
    )
    parser.addoption(
        "--write-outputs",
        action="store_true",
        help="run only the tests that compare documents with what the code prints, and write the documents anew",
    )


REFERENCE = Path(__file__).parents[1] / "model" / "reference.safetensors"


def pytest_configure(config: pytest.Config) -> None:
    """Take the model of synthetic spectra, which most tests embed, and load the profile of hypothesis.

    Both before any test module reads them. Tests of observed stars take the default model, `DEFAULT_MODEL`.
    """
    os.environ["CHEMTWIN_MODEL"] = str(REFERENCE)
    if config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        forked.share()  # before the workers start
    always = {"stateful_step_count": STEPS, "deadline": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("suite", max_examples=EXAMPLES, **always)
    settings.register_profile("thorough", max_examples=EXAMPLES * TIMES, **always)
    settings.load_profile("thorough" if config.getoption("thorough") else "suite")


@pytest.fixture(scope="session")
def times(pytestconfig: pytest.Config) -> int:
    """What to multiply a number of random cases by: 1, or more with --thorough."""
    return TIMES if pytestconfig.getoption("thorough") else 1


@pytest.fixture
def write_outputs(pytestconfig: pytest.Config) -> bool:
    """Whether a test writes a document that it otherwise compares. Without this fixture it is not run then."""
    write: bool = pytestconfig.getoption("write_outputs")
    return write

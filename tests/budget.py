"""What a test may cost, which tests are quick, and which start first: hooks that conftest.py hands to pytest."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

SECONDS = {"setup": 60.0, "call": 20.0, "teardown": 20.0}
"""A test that takes longer fails: `long(reason)` marks the exceptions. What is set up may have to wait for another
worker, which makes a fixture that all share."""

BUSY = 2.5
"""Processes for each core at which the clock is not looked at: the suite alone makes one or two."""

SLOW_FIXTURES = {
    "start_server", "service", "served", "catalogue_of_make", "postgres", "browser", "site", "hostile", "busy",
    "keeping", "tiny", "survey", "xfe_survey", "surveys", "catalogue", "groups", "others", "giants",
}  # fmt: skip
"""A test that uses one of these needs a server, a database, a browser, a training or a survey of the emulator."""

PROGRAMS = ("chemtwin", "python", "postgres", "chrom", "unshare")
"""How the names of programs begin that only a slow test starts; a shell script is quick."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that are not quick, and put the modules that take long first: the quick ones fill the end.

    Workers take whole modules in this order (`--dist loadfile --no-loadscope-reorder`). With `--write-outputs`
    only the tests that write documents remain.
    """
    if config.getoption("write_outputs", False):
        items[:] = [item for item in items if "write_outputs" in _needs(item)]
    weight: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker("long") or not SLOW_FIXTURES.isdisjoint(_needs(item)):
            item.add_marker("slow")
        module = item.nodeid.partition("::")[0]
        own = 2 if item.get_closest_marker("long") else int(item.get_closest_marker("slow") is not None)
        weight[module] = max(weight.get(module, 0), own)
    items.sort(key=lambda item: -weight[item.nodeid.partition("::")[0]])


_running: list[pytest.Item] = []
"""The test that runs, with its fixtures."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Know which test runs, for `_no_start_in_a_quick_test`."""
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def _no_start_in_a_quick_test(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: it sees every process that this one starts."""
    if event == "subprocess.Popen" and _running and not _running[-1].get_closest_marker("slow"):
        program = Path(str(arguments[0])).name
        if program.startswith(PROGRAMS):
            raise AssertionError(
                f"{_running[-1].nodeid} starts {program}, which no quick test does: mark it slow, or add its "
                "fixture to SLOW_FIXTURES in tests/budget.py"
            )


sys.addaudithook(_no_start_in_a_quick_test)


def _needs(item: pytest.Item) -> set[str]:
    """Names of the fixtures that a test uses, those among its parameters that are text included."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {*getattr(item, "fixturenames", ()), *(value for value in parameters if isinstance(value, str))}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that took too long.

    Seconds on the wall, since waiting costs as much as computing. As many times more are allowed as the machine
    has processes to run for each core, and any number above `BUSY`, where they say nothing of the test.
    """
    report = yield
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    allowed = SECONDS[report.when] * max(1.0, load) if load < BUSY else math.inf
    free = item.get_closest_marker("long") or item.config.getoption("thorough", default=False)
    if report.passed and report.duration > allowed and not free:
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid}: its {report.when} took {report.duration:.0f} s; a test has {SECONDS[report.when]:.0f} s, "
            f"here {allowed:.0f} s. Make it faster, or give the reason: @pytest.mark.long('reason')"
        )
    return report

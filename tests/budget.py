"""What a test may cost, which tests are quick, and which start first: hooks that conftest.py hands to pytest."""

from __future__ import annotations

import math
import os
from collections.abc import Generator

import pytest

SECONDS = 20.0
"""A test, or what it waits for before it begins, that takes longer fails: `long(reason)` marks the exceptions."""

BUSY = 2.5
"""Processes for each core at which the clock is not looked at: the suite alone makes one or two."""

SLOW_FIXTURES = {
    "start_server", "service", "served", "catalogue_of_make", "postgres", "browser", "site",
    "tiny", "survey", "xfe_survey", "surveys", "catalogue", "groups", "others",
}  # fmt: skip
"""A test that uses one of these needs a server, a database, a browser, a training or a survey of the emulator."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that are not quick, and put the modules that take long first: the quick ones fill the end.

    Workers take whole modules in this order (`--dist loadfile --no-loadscope-reorder`).
    """
    weight: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker("long") or not SLOW_FIXTURES.isdisjoint(_needs(item)):
            item.add_marker("slow")
        module = item.nodeid.partition("::")[0]
        own = 2 if item.get_closest_marker("long") else int(item.get_closest_marker("slow") is not None)
        weight[module] = max(weight.get(module, 0), own)
    items.sort(key=lambda item: -weight[item.nodeid.partition("::")[0]])


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
    allowed = SECONDS * max(1.0, load) if load < BUSY else math.inf
    if report.passed and report.duration > allowed and not item.get_closest_marker("long"):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid}: its {report.when} took {report.duration:.0f} s; a test has {SECONDS:.0f} s, "
            f"here {allowed:.0f} s. Make it faster, or give the reason: @pytest.mark.long('reason')"
        )
    return report

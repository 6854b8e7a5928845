"""Files that every worker of a run needs and one of them makes."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of this run, filled by `make` in the first worker that asks; the others wait for it.

    Tests read what is in it and change nothing.
    """
    base = factory.getbasetemp()
    common = base.parent if base.name.startswith("popen-") else base
    folder = common / f"once-{name}"
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "made"
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder

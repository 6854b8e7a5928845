"""How many cores a container's quota leaves."""

import os
from pathlib import Path

import pytest

from app.operations import cores as module
from app.operations.cores import cores
from app.settings import Settings


@pytest.mark.parametrize(
    ("quota", "expected"),
    [(None, 8), ("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1600000 100000", 8)],
)
def test_no_more_than_the_quota(
    quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(module, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("CHEMTWIN_WORKERS", raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores() == expected
    assert Settings().processes == expected

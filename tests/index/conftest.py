"""Places of stores of either kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import Postgres

Places = Callable[[str], str]


@pytest.fixture
def sqlite_places(tmp_path: Path) -> Places:
    """By name, a file."""
    return lambda name: str(tmp_path / f"{name}.sqlite")


@pytest.fixture
def postgres_places(postgres: Postgres) -> Iterator[Places]:
    """By name, a database of its own."""
    urls: dict[str, str] = {}

    def place(name: str) -> str:
        if name not in urls:
            urls[name] = postgres.create()
        return urls[name]

    yield place
    for url in urls.values():
        postgres.drop(url)

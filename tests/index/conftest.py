"""Stores of either kind: a test that uses them runs over both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index.stores.open_store import open_store
from index.stores.sql_store import Store
from tests.postgres import Postgres

Opener = Callable[..., Store]


class Files:
    """Addresses of stores in SQLite files, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address(self, name: str) -> str:
        """A store's file."""
        return str(self._folder / f"{name}.sqlite")

    def copy(self, name: str, new: str) -> None:
        """Copy a store that nobody has open, over the one that has the new name."""
        for end in ("-wal", "-shm"):
            Path(self.address(new) + end).unlink(missing_ok=True)
        shutil.copy(self.address(name), self.address(new))

    def remove(self) -> None:
        """Nothing: the folder is the test's."""


class Databases:
    """Addresses of stores in PostgreSQL databases, by name."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._urls: dict[str, str] = {}

    def address(self, name: str) -> str:
        """A database's URL."""
        if name not in self._urls:
            self._urls[name] = self._server.create()
        return self._urls[name]

    def copy(self, name: str, new: str) -> None:
        """Copy a store that nobody has open, over the one that has the new name."""
        source, target = (self.address(one).rpartition("/")[2] for one in (name, new))
        self._server.drop(self._urls[new])
        self._server.execute(f"CREATE DATABASE {target} TEMPLATE {source}")

    def remove(self) -> None:
        """Drop them all."""
        for url in self._urls.values():
            self._server.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def addresses(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files | Databases]:
    """Addresses of stores of one kind."""
    made: Files | Databases = Files(tmp_path)
    if request.param == "postgres":
        made = Databases(request.getfixturevalue("postgres"))
    yield made
    made.remove()


@pytest.fixture
def open_stores(addresses: Files | Databases) -> Iterator[Opener]:
    """Opens stores; those of one name are the same."""
    stores: list[Store] = []

    def opened(name: str = "stars") -> Store:
        stores.append(open_store(addresses.address(name)))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_stores: Opener) -> Store:
    """One store."""
    return open_stores()

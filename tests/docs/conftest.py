"""The catalogue of `make serve`, and one service with it for the pages that only ask."""

import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import DEFAULT_MODEL, Server


@pytest.fixture(scope="session")
def served(catalogue_of_make, tmp_path_factory) -> Iterator[Server]:
    """A running service with the catalogue of `make serve`. Tests leave its SYN- stars as they are."""
    data_dir = tmp_path_factory.mktemp("served") / "data"
    shutil.copytree(catalogue_of_make, data_dir)
    server = Server(data_dir, DEFAULT_MODEL, [])
    server.wait()
    yield server
    server.stop()

"""What pages say of the code, against the code."""

import re

import numpy as np

from index.search.faiss_lists import COLUMNS
from index.search.nearest import Nearest
from index.stores import postgres, sqlite
from tests.docs.blocks import PAGE


def text(page: str) -> str:
    return " ".join(PAGE[page].read_text().split())


def test_the_store_s_version_is_the_code_s():
    found = re.search(r"`user_version`, and is (\d+)\.", text("design.md"))
    assert found is not None
    assert int(found[1]) == sqlite.SCHEMA_VERSION
    found = re.search(r"in table `chemtwin`, and is (\d+)\.", text("design.md"))
    assert found is not None
    assert int(found[1]) == postgres.SCHEMA_VERSION


def test_the_library_that_searches_is_the_one_that_the_page_names():
    search = Nearest(3)
    rows = np.random.default_rng(1).normal(size=(5000, 3)).astype(np.float32)
    search.update([f"S{row}" for row in range(5000)], rows, np.zeros((5000, len(COLUMNS))), [], 1)
    search.settle()
    (part,) = search._state.segments
    assert f"`{type(part.index).__name__}`" in text("nearest-neighbours.md")
    assert part.index.ntotal >= 5000

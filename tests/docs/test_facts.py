"""What pages say of the code, against the code."""

import re

from index import postgres, sqlite, tree
from tests.conftest import ROOT


def text(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text().split())


def test_the_store_s_version_is_the_code_s():
    found = re.search(r"`user_version`, and is (\d+)\.", text("file-formats.md"))
    assert found is not None
    assert int(found[1]) == sqlite.SCHEMA_VERSION
    found = re.search(r"in table `chemtwin`, and is (\d+)\.", text("file-formats.md"))
    assert found is not None
    assert int(found[1]) == postgres.SCHEMA_VERSION


def test_the_library_that_searches_is_the_one_that_the_code_calls():
    assert "FAISS' `fvec_L2sqr_by_idx`" in text("how-it-works.md")
    assert callable(tree.faiss.fvec_L2sqr_by_idx)
    assert "fvec_L2sqr_by_idx" in tree._squares.__code__.co_names

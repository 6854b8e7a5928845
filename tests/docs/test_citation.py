"""What is cited is the version that is installed, and the paper is the same everywhere."""

import re
import tomllib
from importlib.metadata import version

import pytest
import yaml

from model.bundle import load_model
from tests.conftest import DEFAULT_MODEL, ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PAGE = (ROOT / "docs" / "how-to" / "how-to-cite.md").read_text()


def test_the_citation_file_has_what_the_format_asks_for():
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert {"authors", "title", "type"} <= set(CITATION["preferred-citation"])


def test_every_place_names_the_same_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert {project, newest, CITATION["version"], version("chemtwin"), version("chemtwin-client")} == {project}
    assert f"version = {{{project}}}" in PAGE
    assert f"Chemtwin {project}" in PAGE


@pytest.mark.parametrize("field", ["title", "journal", "volume", "year", "doi"])
def test_the_page_cites_the_paper_of_the_citation_file(field):
    value = str(CITATION["preferred-citation"][field])
    assert re.search(rf"{field} += " + re.escape(f"{{{value}}}"), PAGE)


def test_the_page_names_the_default_model():
    card = load_model(DEFAULT_MODEL["CHEMTWIN_MODEL"]).card
    assert card.identity in PAGE

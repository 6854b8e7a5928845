"""The site is built without a warning, asks for nothing from elsewhere, and every link leads somewhere."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.conftest import ROOT
from tests.docs.blocks import PAGE, PAGES, tokens
from tests.pages import asked, look


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """`make docs` in another folder: -W makes a broken link, a wrong anchor or a page in no menu an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-d", folder / "doctrees"]
    places = ["-c", ROOT / "docs", ROOT, folder / "html"]
    done = subprocess.run([*command, *places], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def shown(page):
    """The file of the site that shows a page."""
    return str(page.relative_to(ROOT).with_suffix(".html"))


def test_every_page_is_there_and_asks_for_files_of_the_site_only(site):
    pages = sorted(site.rglob("*.html"))
    assert {shown(page) for page in PAGES[1:]} <= {str(page.relative_to(site)) for page in pages}
    for page in pages:
        text = page.read_text()
        for source in asked(text).loaded:
            assert (
                re.match(r"data:|#", source) or (page.parent / source.partition("?")[0]).resolve().exists()
            ), f"{page.name} loads {source}"
        assert "cdn." not in text
        assert "mathjax" not in text.lower()
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text()), style


def test_no_page_replaces_another(site):
    """Sphinx has pages of its own, search.html for one."""
    for page in PAGES[1:]:
        title = page.read_text().splitlines()[0].removeprefix("# ")
        assert f"<h1>{title}<" in (site / shown(page)).read_text(), page.name


def test_calls_with_curl_and_python_are_tabs(site):
    text = (site / shown(PAGE["api.md"])).read_text()
    assert text.count('class="sd-tab-set') == 3
    assert re.findall(r'class="sd-tab-label"[^>]*>\s*(\w+)', text) == ["curl", "Python"] * 3


def test_a_browser_shows_the_front_page(site):
    assert look(site / "docs" / "index.html").std() > 0.1


def slugs(path):
    """The anchors that GitHub gives the headings of a Markdown file."""
    parsed = tokens(path)
    headings = [inline.content for opened, inline in pairwise(parsed) if opened.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """As on GitHub, for README too, which is no page of the site."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target is None or "://" in target:
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in slugs(path), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_reference_of_commands_is_what_the_commands_say(write_outputs):
    done = subprocess.run(
        [sys.executable, "docs/commands.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    page = PAGE["commands.md"]
    if write_outputs:
        page.write_text(done.stdout)
    assert page.read_text() == done.stdout

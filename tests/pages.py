"""What a page of HTML asks for, and how it looks in a real browser."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

LOADED = {"src", "srcset", "poster", "data", "action"}
"""Attributes that name what a browser loads; `href` does so too, but for <a>."""


class _Asked(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if value and (name in LOADED or (name == "href" and tag != "a")):
                self.loaded.append(value)
            elif value and name == "href":
                self.linked.append(value)
            elif value and name == "id":
                self.ids.append(value)
            if value and name == "style":
                self.loaded += _styles(value)


def _styles(css: str) -> list[str]:
    return re.findall(r"url\(['\"]?([^'\")]+)", css) + re.findall(r"@import\s+['\"]([^'\"]+)", css)


def asked(page: str) -> _Asked:
    """What the page loads and links to, and its ids."""
    found = _Asked()
    found.feed(page)
    found.loaded += [
        url for style in re.findall(r"<style[^>]*>(.*?)</style>", page, re.DOTALL) for url in _styles(style)
    ]
    return found


def check_self_contained(page: str, pictures: int) -> None:
    """One file is all there is: no script, `pictures` PNGs inside, links to the page's own sections only."""
    found = asked(page)
    assert "<script" not in page
    assert len(found.loaded) == pictures
    for source in found.loaded:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        assert imread(BytesIO(base64.b64decode(content, validate=True))).std() > 0.03
    assert found.linked
    assert {link.partition("#")[2] for link in found.linked} <= set(found.ids)
    assert all(link.startswith("#") for link in found.linked)


def look(page: Path, *options: str) -> np.ndarray:
    """A screenshot (1600, 1200, C) by Chromium, which finds no host."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    picture = page.with_suffix(".screenshot.png")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--window-size=1200,1600", *options,
        f"--screenshot={picture}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return imread(picture)


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have reports save empty pictures, where no test looks at them: drawing takes a second each."""
    empty = np.ones((8, 8, 3))
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: imsave(path, empty, format="png"))

"""What tests of the explorer's page read from it and wait for."""

import shutil
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: make tools installs it")


def settled(page):
    """Until the plot shows what was asked for."""
    expect(page.locator("#plot:not([aria-busy])")).to_be_visible()


def ready(page, twins=3):
    """Until the twins are drawn."""
    settled(page)
    expect(page.locator("#legend li", has_text="rms")).to_have_count(twins)


def drawn(page, name, axis="y"):
    """What the plot shows of a line: its wavelengths and values."""
    code = """([name, axis]) => {
        const trace = document.getElementById("plot").data.find((one) => one.yaxis === axis && one.name.startsWith(name));
        return [trace.x, trace.y];
    }"""
    x, y = page.evaluate(code, [name, axis])
    return np.array(x, dtype=float), np.array(y, dtype=float)


def column(page, number):
    cells = page.locator(f"#twins-body td:nth-child({number})").all_text_contents()
    return [cell.replace("\u2212", "-").strip() for cell in cells]


def downloaded(page, selector):
    with page.expect_download() as download:
        page.click(selector)
    return download.value.suggested_filename, download.value.path().read_bytes()


def query(page):
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}

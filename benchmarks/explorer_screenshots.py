"""The pictures of docs/how-to/explorer.md, of the service that `make serve` starts.

    make serve
    python -m benchmarks.explorer_screenshots http://localhost:8000 docs

Needs Playwright and Chromium (`make tools`). Writes explorer.png and explorer_phone.png.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

STAR = "2M08512618%2B1153520"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        shoot(page, f"{given.url}/?star={STAR}&colour=cluster", given.folder / "explorer.png")
        phone = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, color_scheme="dark")
        page = phone.new_page()
        shoot(page, f"{given.url}/?star={STAR}&to_teff=4800", given.folder / "explorer_phone.png", "#spectra")
        browser.close()


def shoot(page: Page, url: str, path: Path, part: str = "body") -> None:
    """A picture of a part of the page, once it is drawn."""
    page.goto(url)
    expect(page.locator("#legend li", has_text="rms")).to_have_count(3)
    expect(page.locator("#map-plot .legend")).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.locator(part).screenshot(path=path)


if __name__ == "__main__":
    main()

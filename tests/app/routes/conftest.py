"""A stored star; and a real browser: Chromium, driven by Playwright. Nothing may leave the service's origin."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.app.routes.explorer_page import CHROMIUM

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture
def posted(client, star):
    """The test star, stored for one test."""
    response = client.post("/embed", json=star)
    yield response
    client.delete(f"/stars/{star['star_id']}")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, start_server):
    """Opens pages; at the end nothing may have gone wrong, and nothing been asked of another place.

    They are closed before the servers that `start_server` has started.
    """
    contexts, complaints, origins = [], [], set()

    def opened(url, *, faults=(), **context):
        contexts.append(browser.new_context(accept_downloads=True, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        allowed = re.compile("|".join(f"status of {status}" for status in faults) or "(?!)")
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type in ("error", "warning") and not allowed.search(message.text)
                else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        contexts[-1].on(
            "request", lambda asked: origins.add(asked.url.split(":")[0] + urlsplit(asked.url).netloc)
        )
        page.goto(url)
        expect(page.locator("#catalogue")).not_to_be_empty() if not faults else None
        opened.origin = f"http{urlsplit(url).netloc}"
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert origins <= {opened.origin, "data", "blob"}, origins

"""The explorer in a real browser, with the catalogue of observed giants that `make serve` fills."""

import httpx
import numpy as np
from playwright.sync_api import expect

from tests.app.routes.explorer_page import NEEDS_CHROMIUM, column, drawn, query, ready, settled

pytestmark = NEEDS_CHROMIUM


def test_clusters_and_residuals_of_real_stars(visit, giants):
    """The table shows clusters, and may be of one; lines may carry each star's own residual."""
    page = visit(f"{giants.url}/?star=2M23572242%2B5641459")
    ready(page)
    expect(page.locator("#star-facts")).to_contain_text("NGC 7789")
    expect(page.locator("#twins-head")).to_contain_text("Cluster")
    assert len(set(column(page, 11))) > 1
    table = page.locator("#twins .scroll")
    assert table.evaluate("element => element.scrollWidth - element.clientWidth") == 0
    page.click("#filters summary")
    page.fill("#cluster", "M67")
    page.click("#filter-form button[type=submit]")
    expect(page.locator("#twins-body td:nth-child(11)", has_not_text="M67")).to_have_count(0)
    ready(page)
    _, plain = drawn(page, "2M23572242")
    page.check("#residual")
    settled(page)
    _, own = drawn(page, "2M23572242")
    _, observed = drawn(page, "observed")
    known = np.isfinite(observed)
    assert np.abs(own - observed)[known].max() < 1e-4 < np.abs(plain - observed)[known].max()
    assert query(page) == {"star": "2M23572242+5641459", "cluster": "M67", "residual": "true"}


def test_a_real_star_with_siblings_is_shown_at_first(visit, giants):
    """And its table fits at 1,280 px, with the verdict as words beside p (same)."""
    page = visit(giants.url, viewport={"width": 1280, "height": 800})
    ready(page)
    expect(page.locator("#hint")).to_contain_text("to begin with")
    star = query(page)["star"]
    expect(page.locator("#star-name")).to_have_text(star)
    expect(page.locator("#star-facts")).to_contain_text("M67")
    assert column(page, 5)[:3] == ["same within noise"] * 3
    assert column(page, 11)[:3] == ["M67"] * 3
    titles = [title.strip() for title in page.locator("#twins-head th").all_text_contents()]
    assert titles[3:5] == ["p (same)", "Verdict"]
    assert "Teff (K)" in titles
    assert not any("rate" in title for title in titles), "82 stars have no rate"
    page.click("#filters summary")
    page.select_option("#rank", "likelihood")
    page.click("#filter-form button[type=submit]")
    expect(page.locator("#twins-head")).to_contain_text("ln LR")
    ready(page)
    table = page.locator("#twins .scroll")
    assert table.evaluate("element => element.scrollWidth - element.clientWidth") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_the_reader_may_be_faster_than_the_first_star(visit, giants):
    page = visit(f"{giants.url}/?star=2M23572242%2B5641459")
    ready(page)
    page.route("**/stars?limit=50", lambda route: (page.wait_for_timeout(600), route.continue_()))
    page.goto(giants.url)
    expect(page.locator("#catalogue")).not_to_be_empty()
    page.fill("#star", "2M23573184+5641221")
    page.keyboard.press("Enter")
    expect(page.locator("#star-name")).to_have_text("2M23573184+5641221")
    page.wait_for_timeout(900)
    expect(page.locator("#star-name")).to_have_text("2M23573184+5641221")
    assert query(page)["star"] == "2M23573184+5641221"


def test_the_map_is_coloured_by_cluster(visit, giants):
    page = visit(f"{giants.url}/?star=2M08512618%2B1153520")
    ready(page)
    expect(page.locator("#colour")).to_have_value("cluster")
    shown = page.evaluate(
        """document.getElementById("map-plot").data.map((one) => [one.name, one.text, one.marker.color, one.marker.symbol])"""
    )
    *clusters, twins, _ = shown
    points = httpx.get(f"{giants.url}/map").json()["points"]
    members = {name or "others": set() for name in points["cluster"]}
    for star_id, name in zip(points["star_id"], points["cluster"], strict=True):
        members[name or "others"].add(star_id)
    assert {name: set(ids) for name, ids, *_ in clusters} == members
    assert len(members["M67"]) == 15
    assert len({(colour, symbol) for *_, colour, symbol in clusters}) == len(clusters) == 9
    page.select_option("#colour", "fe_h")
    assert query(page)["colour"] == "fe_h"


def test_a_star_that_the_model_does_not_know_is_said_why_in_a_sentence(visit, giants):
    page = visit(f"{giants.url}/?star=2M00283971%2B8530377")
    ready(page)
    expect(page.locator("#star-warnings li")).to_have_text(
        "The model does not know this star, because its log g of 3.09 is not between 1.50 and 3.00. "
        "Its distances may be wrong, so no twin has a verdict."
    )
    assert set(column(page, 5)) == {"cannot tell"}

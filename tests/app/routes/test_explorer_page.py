"""The explorer in a real browser: Chromium, driven by Playwright. Nothing may leave the service's origin."""

import io
import re
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table
from playwright.sync_api import expect

from tests.app.routes.explorer_page import NEEDS_CHROMIUM, column, downloaded, drawn, query, ready, settled
from tests.conftest import APSTAR, ASPCAP, GIANT

STAR, TWIN = "SYN-202-000000A", "SYN-202-000000B"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def star_page(visit, service):
    page = visit(f"{service.url}/?star={STAR}")
    ready(page)
    return page


def test_a_star_is_found_by_the_beginning_of_its_id_and_its_twins_shown(visit, service, client):
    page = visit(service.url)
    page.fill("#star", "SYN-202-00000")
    expect(page.locator("#suggestions li")).to_have_count(8)
    page.locator("#suggestions li", has_text=STAR).click()
    ready(page)
    assert query(page) == {"star": STAR}
    twins = client.get(f"/twins/{STAR}").json()["twins"]
    assert column(page, 2) == [twin["star_id"] for twin in twins]
    assert column(page, 3) == [f"{twin['distance']:.2f}" for twin in twins]
    expect(page.locator("#kind")).to_contain_text("no observed spectrum")


def test_what_is_drawn_is_what_the_service_recasts_and_recasting_makes_twins_alike(star_page, client):
    star = client.get(f"/stars/{STAR}").json()
    to = {name: star[name] for name in ("teff", "logg")}
    expect(star_page.locator("#spectra-title")).to_contain_text("each at its own [Fe/H]")
    for shown in (TWIN, column(star_page, 2)[1]):
        recast = client.post("/recast", json={"star_id": shown, "to": to}).json()
        x, y = drawn(star_page, shown)
        assert (there := np.isfinite(x)).sum() > 300
        assert y[there] == pytest.approx(np.interp(x[there], recast["wavelength"], recast["flux"]), abs=2e-5)
    assert recast["to"]["fe_h"] != star["fe_h"], "a stranger's own [Fe/H], not the star's"
    _, alike = drawn(star_page, TWIN, "y2")
    star_page.get_by_role("button", name="as they are").click()
    expect(star_page.locator("#spectra-title")).to_contain_text("each at its own parameters")
    settled(star_page)
    _, apart = drawn(star_page, TWIN, "y2")
    assert np.nanstd(apart) > 3 * np.nanstd(alike)
    assert query(star_page)["mode"] == "own"


def test_nothing_is_drawn_across_the_gaps_between_detectors(star_page):
    star_page.get_by_role("button", name="all", exact=True).click()
    expect(star_page.get_by_role("button", name="all", exact=True)).to_have_attribute("aria-pressed", "true")
    x, y = drawn(star_page, TWIN)
    pixels = np.isfinite(x)
    assert pixels.sum() == 7514
    steps = np.diff(x)
    assert np.nanmax(steps) < 0.3, "detectors are 60 Angstrom apart"
    assert not np.isfinite(y[~pixels]).any()


def test_the_table_sorts_by_any_column(star_page):
    for name, number in (("Teff (K)", 8), ("Star", 2), ("Distance", 3)):
        header = star_page.locator("#twins-head th", has=star_page.get_by_role("button", name=name, exact=True))
        for direction in ("ascending", "descending"):
            header.get_by_role("button").click()
            expect(header).to_have_attribute("aria-sort", direction)
            shown = column(star_page, number)
            values = shown if name == "Star" else list(map(float, shown))
            assert values == sorted(values, reverse=direction == "descending")
    assert query(star_page)["sort"] == "-distance"


def test_sliders_recast_the_star_and_its_twins_live(star_page, client):
    _, before = drawn(star_page, STAR)
    slider = star_page.get_by_role("slider", name="Teff")
    slider.focus()
    with star_page.expect_response("**/recast"):
        for _ in range(25):
            slider.press("ArrowRight")
    expect(star_page.locator("#legend")).to_contain_text("its own parameters")
    settled(star_page)
    teff = float(slider.input_value())
    assert query(star_page)["to_teff"] == f"{teff:.0f}"
    recast = client.post("/recast", json={"star_id": STAR, "to": {"teff": teff}}).json()
    x, after = drawn(star_page, STAR)
    there = np.isfinite(x)
    assert after[there] == pytest.approx(np.interp(x[there], recast["wavelength"], recast["flux"]), abs=2e-5)
    assert np.nanmax(np.abs(after - before)) > 0.02
    star_page.get_by_role("spinbutton", name="Teff").fill("5600")
    expect(star_page.locator("#recast-warnings li")).to_contain_text(
        ["outside the model's training range", "the flux is computed at teff = 5200 K"]
    )
    star_page.get_by_role("button", name="The star's own").click()
    expect(star_page.locator("#recast-warnings li")).to_have_count(0)
    assert "to_teff" not in query(star_page)


def test_a_file_is_looked_at_then_stored(visit, start_server, tmp_path):
    server = start_server(CHEMTWIN_STORE_SPECTRA="1")
    page = visit(server.url, faults=(422,))
    expect(page.locator("#hint")).to_contain_text("empty")
    page.click("#upload summary")
    page.set_input_files("#file", str(APSTAR))
    expect(page.locator("#upload-error")).to_contain_text("must be given here")
    for name, value in GIANT.items():
        page.fill(f"#label-{name}", str(value))
    page.click("#upload-form button[type=submit]")
    expect(page.locator("#star-name")).to_have_text("2M00004994+1621552")
    expect(page.locator("#twins-body")).to_contain_text("No star of the catalogue")
    expect(page.locator("#store")).to_contain_text("not stored")
    assert query(page) == {}
    x, observed = drawn(page, "observed")
    _, star = drawn(page, "2M0000")
    assert np.nanstd(observed - star) < 0.05
    name, content = downloaded(page, "[data-recast=fits]")
    assert fits.open(io.BytesIO(content))["SPECTRUM"].header["TUCD1"] == "em.wl"
    page.click("#store-button")
    expect(page.locator("#status")).to_contain_text("is stored")
    expect(page.locator("#catalogue")).to_contain_text("1 star ")
    assert page.evaluate("document.getElementById('map-plot').data[0].text") == ["2M00004994+1621552"]
    assert query(page) == {"star": "2M00004994+1621552"}
    page.reload()
    expect(page.locator("#kind")).to_contain_text("observed, normalised")
    page.click("#upload summary")
    page.set_input_files("#file", str(ASPCAP))
    expect(page.locator("#star-name")).to_have_text("2M17334253-1654573")
    expect(page.locator("#label-teff")).to_have_attribute("placeholder", re.compile("from the file"))
    for star_id, message in (("no id", "no spaces"), ("no/id", "star_id")):
        page.fill("#store-id", star_id)
        page.click("#store-button")
        expect(page.locator("#store-error")).to_contain_text(message)


def test_a_star_that_is_stored_again_without_its_spectrum(visit, start_server):
    """The page shows what the response says of what was replaced."""
    server = start_server(CHEMTWIN_STORE_SPECTRA="1")
    headers = {"Content-Type": "application/fits"}
    httpx.post(f"{server.url}/embed", params=GIANT, content=APSTAR.read_bytes(), headers=headers)
    server.stop()
    page = visit(start_server().url, faults=(422,))
    page.click("#upload summary")
    page.set_input_files("#file", str(APSTAR))
    for name, value in GIANT.items():
        page.fill(f"#label-{name}", str(value))
    page.click("#upload-form button")
    page.click("#store-button")
    expect(page.locator("#status")).to_contain_text("it replaced the one of that id; the spectrum stored with")


def test_a_star_too_far_outside_shows_where_it_is_computed(visit, service, client, star):
    client.post("/embed", json=star | {"star_id": "FAR-OUT", "logg": 4.4}).raise_for_status()
    page = visit(f"{service.url}/?star=FAR-OUT")
    settled(page)
    expect(page.locator("#recast-warnings li")).to_contain_text(
        ["outside", "the flux is computed at logg = 3.3 "]
    )
    client.delete("/stars/FAR-OUT")


def test_downloads_open(star_page):
    name, content = downloaded(star_page, "[data-twins=csv]")
    assert name == f"twins-{STAR}.csv"
    assert [line.split(",")[0] for line in content.decode().splitlines()[1:]] == column(star_page, 2)
    _, content = downloaded(star_page, "[data-twins=votable]")
    assert len(parse_single_table(io.BytesIO(content)).array) == 10
    star_page.get_by_role("spinbutton", name="log g").fill("2.4")
    name, content = downloaded(star_page, "[data-recast=csv]")
    assert "logg2.4" in name
    assert content.decode().startswith("wavelength,flux")
    _, content = downloaded(star_page, "[data-recast=votable]")
    assert len(parse_single_table(io.BytesIO(content)).array) == 7514
    _, content = downloaded(star_page, "[data-recast=fits]")
    with fits.open(io.BytesIO(content)) as file:
        assert file[0].header["TO_LOGG"] == 2.4
    for button in ("#plot-png", "#map-png"):
        name, content = downloaded(star_page, button)
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(content) > 20_000, "an empty picture is smaller"
        assert STAR in name


def test_a_link_restores_the_view_and_back_goes_back(visit, service):
    view = f"star={STAR}&k=5&rank=likelihood&mode=own&colour=Mg&sort=-teff&fe_h_within=any&to_teff=4300&show={TWIN}&view=16100.0-16200.0"
    page = visit(f"{service.url}/?{view}")
    ready(page, 1)
    assert query(page) == {name: values[0] for name, values in parse_qs(view).items()}
    assert len(column(page, 2)) == 5
    expect(page.locator("#twins-head")).to_contain_text("ln LR")
    expect(page.locator("#colour")).to_have_value("Mg")
    expect(page.get_by_role("slider", name="Teff")).to_have_value("4300")
    assert page.evaluate("document.getElementById('plot').layout.xaxis.range") == [16100, 16200]
    assert page.locator("#twins-body input:checked").count() == 1
    page.get_by_role("link", name=column(page, 2)[-1]).click()
    expect(page.locator("#star-name")).not_to_have_text(STAR)
    assert "to_teff" not in query(page)
    page.go_back()
    expect(page.locator("#star-name")).to_have_text(STAR)
    ready(page, 1)
    expect(page.get_by_role("slider", name="Teff")).to_have_value("4300")
    page.go_forward()
    expect(page.locator("#star-name")).not_to_have_text(STAR)


def test_a_plus_may_be_typed_into_a_link_as_it_is(visit, service, client, star):
    client.post("/embed", json={**star, "star_id": "2M00+15"}).raise_for_status()
    page = visit(f"{service.url}/?star=2M00+15&k=1")
    ready(page, 1)
    expect(page.locator("#star-name")).to_have_text("2M00+15")
    client.delete("/stars/2M00+15")


def test_the_map_lights_up_and_opens_stars(star_page, client):
    star_page.select_option("#colour", "Mg")
    response = client.get("/map").json()
    star = client.get(f"/stars/{STAR}").json()
    there = np.array(response["axes"]) @ (np.array(star["latent"]) - response["mean"])
    shown, twins, own = star_page.evaluate(
        """document.getElementById("map-plot").data.map((one) => [one.x, one.y, one.marker.color])"""
    )
    assert shown[2] == response["abundances"]["Mg"]
    assert [own[0][0], own[1][0]] == pytest.approx(there, abs=1e-3)
    assert len(twins[0]) == 10
    assert query(star_page)["colour"] == "Mg"
    other = response["points"]["star_id"][7]
    star_page.evaluate(
        """(text) => document.getElementById("map-plot").emit("plotly_click", { points: [{ text }] })""", other
    )
    expect(star_page.locator("#star-name")).to_have_text(other)


def test_a_list_that_comes_late_does_not_drop_the_choice(visit, service):
    page, late = visit(service.url), []
    page.route(re.compile(r"/stars\?prefix=SYN-202-00000&"), lambda route: late.append(route))
    page.locator("#star").fill("SYN-202-0000")
    expect(page.locator("#star")).to_have_attribute("aria-expanded", "true")
    with page.expect_request(re.compile(r"/stars\?prefix=SYN-202-00000&")):
        page.keyboard.type("0")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#suggestions [aria-selected=true]")).to_have_count(1)
    late[0].continue_()
    page.wait_for_timeout(500)
    expect(page.locator("#suggestions [aria-selected=true]")).to_have_count(1)


def test_it_works_from_the_keyboard_alone(visit, service):
    page = visit(service.url)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "star":
            break
    expect(page.locator("#star")).to_be_focused()
    page.keyboard.type("SYN-202-00000")
    expect(page.locator("#star")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    chosen = page.locator("#suggestions [aria-selected=true]")
    expect(page.locator("#star")).to_have_attribute("aria-activedescendant", chosen.get_attribute("id"))
    page.keyboard.press("Enter")
    expect(page.locator("#star-name")).to_have_text(TWIN)
    ready(page)
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        where = page.evaluate(
            """() => {
            const one = document.activeElement, style = getComputedStyle(one);
            return [one.id || one.dataset.column || one.dataset.twin || one.dataset.recast || one.textContent, style.outlineStyle, one === document.body];
        }"""
        )
        if where[2]:
            break
        assert where[1] != "none", f"no focus to see on {where[0]}"
        reached.add(where[0])
    assert {"line", "closer", "mode-own", "to-teff", "distance", "colour", "plot-png", "fits"} <= reached


def test_a_phone_shows_all_of_it_without_sideways_scrolling(visit, service):
    page = visit(f"{service.url}/?star={STAR}", **PHONE)
    ready(page)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    plot = page.locator("#plot .main-svg").first.bounding_box()
    assert plot["width"] <= 360
    page.evaluate("location.search = ''")
    expect(page.locator("#map-plot .main-svg").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_light_and_dark(visit, service):
    page = visit(f"{service.url}/?star={STAR}", color_scheme="dark", reduced_motion="reduce")
    ready(page)
    ground = """() => [getComputedStyle(document.body), getComputedStyle(document.querySelector("#spectra"))]
        .map((style) => style.backgroundColor.match(/\\d+/g).map(Number))"""
    assert np.max(page.evaluate(ground)) < 60
    assert page.evaluate("document.getElementById('plot').layout.paper_bgcolor") == "#191e25"
    page.emulate_media(color_scheme="light")
    assert np.min(page.evaluate(ground)) > 200
    page.wait_for_function("document.getElementById('plot').layout.paper_bgcolor === '#ffffff'")


def test_an_error_is_shown_where_it_arose(visit, service):
    page = visit(f"{service.url}/?star=NOBODY", faults=(404, 422))
    expect(page.locator("#find-error")).to_contain_text("there is no star NOBODY")
    page.fill("#star", "zzz")
    expect(page.locator("#find-error")).to_contain_text("no id begins with zzz", ignore_case=True)
    page.fill("#star", STAR)
    page.keyboard.press("Enter")
    ready(page)
    page.click("#filters summary")
    page.fill("#teff_min", "hot")
    page.click("#filter-form button[type=submit]")
    expect(page.locator("#filter-error")).to_contain_text("teff_min")
    page.fill("#teff_min", "4300")
    page.fill("#teff_max", "4400")
    page.click("#filter-form button[type=submit]")
    ready(page)
    assert all(4300 <= float(teff) <= 4400 for teff in column(page, 8))


def test_stars_outside_the_domain_are_marked_and_can_be_left_out(visit, service, client, star):
    client.post("/embed", json=star | {"star_id": "OUTSIDE", "logg": 4.4}).raise_for_status()
    page = visit(f"{service.url}/?star={STAR}&logg_min=4.4&fe_h_within=any")
    ready(page, 1)
    assert [column(page, number)[0] for number in (2, 5, 12)] == ["OUTSIDE", "cannot tell", "outside"]
    expect(page.locator("#twins-note")).to_contain_text("1 outside the model's domain")
    page.click("#filters summary")
    page.select_option("#in_domain", "true")
    page.click("#filter-form button[type=submit]")
    expect(page.locator("#twins-body")).to_contain_text("No star of the catalogue passes")
    assert parse_qs(urlsplit(page.url).query)["in_domain"] == ["true"]
    client.delete("/stars/OUTSIDE")


def test_a_star_without_errors_has_no_p_and_the_page_says_so(visit, start_server, star):
    server = start_server()
    bare = {name: value for name, value in star.items() if name != "ivar"}
    for star_id in ("A", "B"):
        httpx.post(f"{server.url}/embed", json=bare | {"star_id": star_id}).raise_for_status()
    page = visit(f"{server.url}/?star=A")
    ready(page, 1)
    expect(page.locator("#star-warnings")).to_contain_text("without errors")
    assert column(page, 4) == ["\u2013"]


def test_a_key_is_asked_for_and_stored_in_this_tab_only(visit, start_server):
    server = start_server(CHEMTWIN_API_KEYS="write", CHEMTWIN_READ_KEYS="read")
    page = visit(server.url, faults=(401, 403))
    expect(page.locator("#key-dialog")).to_be_visible()
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-note")).to_contain_text("does not take this key")
    page.fill("#key", "read")
    page.keyboard.press("Enter")
    expect(page.locator("#catalogue")).to_contain_text("empty catalogue")
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    api = page.locator("nav a")  # a page of others' scripts gets a session of its own
    expect(api).to_have_attribute("rel", "noopener")
    expect(api).to_have_attribute("target", "_blank")
    page.click("#upload summary")
    page.set_input_files("#file", str(ASPCAP))
    page.click("#store-button")
    expect(page.locator("#key-dialog")).to_be_visible()
    expect(page.locator("#key-note")).to_contain_text("one that may write")


def test_the_api_s_own_page_is_drawn_from_here_too(visit, service):
    page = visit(service.url)
    page.goto(f"{service.url}/docs")
    expect(page.locator("#operations-twins-twins")).to_be_visible()

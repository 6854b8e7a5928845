"""`chemtwin plot twins`: a figure of observed giants, compared with what a real service says of them."""

import re
import shutil
from dataclasses import replace

import httpx
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from app.formats.bodies import fits_job
from app.formats.twins_figure import COLOURS, WINDOWS, caption, draw_twins
from app.inference.service import Service
from app.inference.twin_comparison import compare_twins
from app.schemas.queries import FitsQuery
from app.settings import read_settings
from tests.conftest import ASPCAP, DEFAULT_MODEL
from tests.forked import run

STAR = "2M08512618+1153520"
"""A giant of M67."""


@pytest.fixture(scope="module")
def compared(giants):
    """The star and its three nearest twins, from the store of a running service."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHEMTWIN_MODEL", DEFAULT_MODEL["CHEMTWIN_MODEL"])
        service = Service(read_settings(giants.data_dir, None), wait=True)
    yield compare_twins(service, STAR, 3)
    service.close()


def test_what_is_drawn_is_what_the_service_recasts(giants, compared):
    with httpx.Client(base_url=giants.url, timeout=60) as client:
        twins = client.get(f"/twins/{STAR}?k=3").json()["twins"]
        assert [one.twin for one in compared.twins] == twins
        own = client.get(f"/stars/{STAR}/spectrum").json()
        assert compared.flux == pytest.approx(np.array(own["flux"], dtype=float), abs=2e-5, nan_ok=True)
        to = {"teff": own["teff"], "logg": own["logg"]}
        for one in compared.twins:
            body = {"star_id": one.twin["star_id"], "to": to, "residual": True}
            recast = client.post("/recast", json=body).json()
            assert recast["to"]["fe_h"] == one.twin["fe_h"], "each twin keeps its own [Fe/H]"
            known = np.isfinite(one.flux)
            assert 0.8 < known.mean() < 1
            assert one.flux[known] == pytest.approx(np.array(recast["flux"])[known], abs=2e-5)
            assert one.sd[known] == pytest.approx(np.array(recast["flux_sd"])[known], abs=2e-5)


def test_the_figure_names_stars_elements_units_and_verdicts(compared, tmp_path):
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_twins(compared, tmp_path / "figure.svg", 2)
    written = (tmp_path / "figure.svg").read_text()
    texts = re.sub(r"<[^>]+>|\s", "", written)  # a formula is a tag for each letter
    for one in compared.twins:
        assert f"{one.twin['star_id']}(M67),{one.twin['teff']:.0f}K" in texts
    assert texts.count("samewithinnoise") == 3
    for text in ("Mg", "Ca", "Al", "wavelengthintherestframe(\N{ANGSTROM SIGN})", "Observedflux/continuum"):
        assert text in texts
    assert all(colour.lower() in written for colour in COLOURS[:3])


def test_a_pdf_with_its_fonts_and_a_caption(giants, tmp_path):
    out = tmp_path / "twins.pdf"
    code, printed = run("plot", "twins", STAR, "--out", out, "--data-dir", giants.data_dir, **DEFAULT_MODEL)
    assert code == 0, printed
    content = out.read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/FontFile2") >= 1
    assert b"/Type3" not in content
    assert b"/Subtype /Image" not in content, "lines are vectors"
    name, caption = printed.splitlines()
    assert name == str(out)
    assert caption.startswith(
        f"The observed spectrum of {STAR} (M67) and of its 3 nearest twins among 82 stars"
    )
    assert caption.endswith("the light one includes what the model misses.")


def test_the_caption_says_what_gaps_are(compared):
    blue = compared.wavelength < WINDOWS[0][0] - 1
    assert "masked" not in caption(replace(compared, flux=np.where(blue, np.nan, compared.flux)))
    assert "masked" in caption(replace(compared, flux=np.where(blue, compared.flux, np.nan)))


def test_the_caption_says_where_fluxes_are_computed(compared, catalogue_of_make, tmp_path, monkeypatch):
    """The real M giant has log g 1.08, and the model goes as far as 1.2."""
    assert (compared.teff, compared.logg) == (compared.star.teff, compared.star.logg)
    assert "farther outside" not in caption(compared)
    shutil.copytree(catalogue_of_make, tmp_path / "data")
    monkeypatch.setenv("CHEMTWIN_MODEL", DEFAULT_MODEL["CHEMTWIN_MODEL"])
    service = Service(read_settings(tmp_path / "data", None), wait=True)
    query = FitsQuery(teff=3788, logg=1.08, fe_h=0.0)
    job = fits_job(ASPCAP.read_bytes(), query, service.settings)
    (embedded,) = service.embed([job])
    service.write([(job, embedded)])
    text = caption(compare_twins(service, "2M17334253-1654573", 1))
    service.close()
    assert "moved to Teff 3800 K and log g 1.20; each keeps its own [Fe/H]." in text
    assert (
        "The star's own are 3788 K and 1.08, farther outside the training range than the model can go." in text
    )


@pytest.fixture(scope="module")
def figures(compared, tmp_path_factory):
    """The PNG of the comparison by its width in columns."""
    folder = tmp_path_factory.mktemp("figures")
    for columns in (1, 2):
        draw_twins(compared, folder / f"{columns}.png", columns)
    return {columns: folder / f"{columns}.png" for columns in (1, 2)}


@pytest.mark.parametrize(("columns", "inches"), [(1, 3.46), (2, 7.09)])
def test_a_png_as_wide_as_the_columns_of_a_journal(figures, columns, inches):
    with Image.open(figures[columns]) as picture:
        assert picture.width == pytest.approx(300 * inches, abs=1)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in COLOURS[:3]} <= colours


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("long", [False, True])
def test_the_legend_fits(compared, figures, tmp_path, columns, long):
    path = figures[columns]
    if long:
        path = tmp_path / "figure.png"
        draw_twins(replace(compared, star=replace(compared.star, star_id="W" * 64)), path, columns)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels[:, [0, 1, 2, -3, -2, -1]] == 255).all(), "nothing is cut off at the sides"
    assert (pixels[[0, 1, 2, -3, -2, -1]] == 255).all()


def test_pixels_elsewhere_and_any_name_of_a_cluster_can_be_drawn(compared, tmp_path):
    elsewhere = replace(
        compared,
        star=replace(compared.star, cluster="50 $x^ of $"),
        wavelength=compared.wavelength / 3,
        twins=tuple(replace(one, flux=np.full_like(one.flux, np.nan)) for one in compared.twins),
    )
    draw_twins(elsewhere, tmp_path / "figure.png", 2)
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_without_stored_spectra_the_model_draws_all(catalogue_data, tmp_path):
    out = tmp_path / "twins.png"
    code, printed = run("plot", "twins", "SYN-202-000000A", "-k", 6, "--out", out, "--data-dir", catalogue_data)
    assert code == 0, printed
    assert "The spectrum as the model draws it" in printed
    assert out.stat().st_size > 20_000


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("NOBODY",), 1, "NOBODY is no star of"),
        ((STAR, "--out", "twins.svg"), 2, "the suffix must be .pdf or .png"),
        ((STAR, "-k", "7"), 2, "7 is not in the range"),
    ],
)
def test_what_cannot_be_drawn_is_a_message(giants, arguments, status, message):
    code, printed = run("plot", "twins", *arguments, "--data-dir", giants.data_dir, **DEFAULT_MODEL)
    assert code == status, printed
    assert message in printed
    assert "Traceback" not in printed

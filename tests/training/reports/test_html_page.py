"""Reports as one HTML file: nothing outside of it is needed, and a browser shows it."""

import pytest
from matplotlib.image import imsave

from tests.pages import check_self_contained, look
from training.reports.html_page import page, publish

TEXT = """# A title & more

Text with <b>no HTML</b> and `code`.

## Figures

| star | S/N |
| --- | ---: |
| a | 10 |

![A figure < that](a.png)
"""


@pytest.fixture
def folder(tmp_path):
    imsave(tmp_path / "a.png", [[0, 1], [1, 0]])
    return tmp_path


def test_a_page_holds_its_pictures(folder):
    text = page(TEXT, lambda name: (folder / name).read_bytes())
    check_self_contained(text, pictures=1)
    assert "<title>A title &amp; more</title>" in text
    assert "&lt;b&gt;no HTML" in text
    assert 'alt="A figure &lt; that"' in text
    assert '<td style="text-align:right">10</td>' in text


def test_a_report_is_markdown_and_a_page_with_its_provenance(folder):
    publish(folder, "report", TEXT)
    assert (folder / "report.md").read_text() == TEXT + "\n"
    html = (folder / "report.html").read_text()
    for name in ("written", "command", "Python", "chemtwin", "numpy", "torch"):
        assert f"<td>{name}</td>" in html.partition("Provenance</h2>")[2]


def test_a_page_does_not_tell_where_its_maker_keeps_files(folder, monkeypatch):
    given = [
        "/opt/bin/chemtwin",
        "model",
        "evaluate",
        "a.safetensors",
        "--survey",
        "/home/me/test.h5",
        "--report",
        "research/report",
    ]
    monkeypatch.setattr("sys.argv", given)
    publish(folder, "report", TEXT)
    html = (folder / "report.html").read_text()
    assert "chemtwin model evaluate a.safetensors --survey test.h5 --report research/report" in html
    assert "/home" not in html
    assert "/opt" not in html


def test_a_picture_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        publish(tmp_path, "report", TEXT)


@pytest.mark.slow
def test_a_browser_shows_it_light_and_dark(folder):
    publish(folder, "report", TEXT)
    light = look(folder / "report.html")
    dark = look(folder / "report.html", "--blink-settings=preferredColorScheme=0")
    assert light[..., :3].mean() > 0.8
    assert dark[..., :3].mean() < 0.3
    assert light.std() > 0.03

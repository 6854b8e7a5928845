"""The notebooks of docs/, executed as a reader would, with the service of `make serve` running beside."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests import forked
from tests.app.cli.test_readme import CLIENT
from tests.conftest import ROOT
from tests.docs.outputs import VERSION, compare, difference

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LONG = {
    "figure-3-of-the-paper": "its numbers are compared, and they are of 3,000 spectra drawn and a model fitted to 2,000",
    "groups-in-a-catalogue": "its numbers are compared, and they are of 2,400 spectra sent to a service of its own",
}
"""By notebook: why it may take longer than tests/budget.py allows."""


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    """All that the cells print and show as text, cell by cell, without models' versions."""
    texts = []
    for cell in code_cells(notebook):
        streams = [output.text for output in cell.outputs if output.output_type == "stream"]
        shown = [output.data.get("text/plain", "") for output in cell.outputs if "data" in output]
        whole = "".join(streams) + "".join(text for text in shown if "<Figure" not in text)
        texts.append(VERSION.sub("", whole))
    return texts


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed(path):
    notebook = read(path)
    assert path.stat().st_size < 1_000_000
    headings = [
        line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.split("\n")
    ]
    assert sum(line.startswith("# ") for line in headings) == 1
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result")
            assert output.get("name") != "stderr"
    text = "".join(printed(notebook))
    assert not re.search(r"/(tmp|home|root|work|Users)\b|localhost|127\.0\.0\.1", text)
    for target in re.findall(r"\]\(([^)#]+)\)", "".join(headings)):
        assert target.startswith("http") or (path.parent / target).exists(), target


def marks(path):
    return [pytest.mark.long(LONG[path.stem])] if path.stem in LONG else []


@pytest.mark.parametrize("path", [pytest.param(path, marks=marks(path), id=path.stem) for path in NOTEBOOKS])
def test_it_runs_and_says_the_same(path, served, tmp_path, write_outputs):
    folder = tmp_path / "docs"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "examples").symlink_to(ROOT / "docs" / "examples")
    (tmp_path / "research").symlink_to(ROOT / "research")
    copy = folder / "notebooks" / path.name
    committed = read(path)
    nbformat.write(committed, copy)
    here, programs = Path(sys.executable).parent, tmp_path / "programs"
    programs.mkdir()
    forked.program(programs)
    environment = {
        "PATH": f"{programs}:{here}:{os.environ['PATH']}",
        "CHEMTWIN_URL": served.url,
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(tmp_path),
    }
    command = [here / "jupyter-execute", "--inplace", "--timeout=600", copy]
    done = subprocess.run(command, env=CLIENT | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    executed = read(copy)
    outputs = [output for cell in code_cells(executed) for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    texts = [*zip(printed(executed), printed(committed), strict=True)]
    if write_outputs:
        if any(difference(now, then) for now, then in texts):  # pictures differ from machine to machine
            for ran, cell in zip(code_cells(executed), code_cells(committed), strict=True):
                cell.outputs = ran.outputs
            nbformat.write(committed, path)
        return
    for now, then in texts:
        compare(now, then)

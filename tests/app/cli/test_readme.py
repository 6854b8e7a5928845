"""The README's session, run as printed, against a service with the catalogue that `make serve` makes."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEFAULT_MODEL, ROOT, Server
from tests.docs.blocks import PAGES, Block, blocks
from tests.docs.outputs import compare_or_write

CLIENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
"""The environment of a reader who has installed the client."""

README = ROOT / "README.md"


def block(language: str) -> Block:
    (found,) = (one for one in blocks(README) if one.language == language)
    return found


@pytest.fixture(scope="module")
def served(catalogue_of_make, tmp_path_factory):
    """A service with the catalogue of `make serve`, on another port."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(catalogue_of_make, folder / "data")
    server = Server(folder / "data", DEFAULT_MODEL, [])
    server.wait()
    yield server
    server.stop()


def test_the_curl_session(served):
    script = block("bash").text.replace("localhost:8000", f"127.0.0.1:{served.port}")
    script = script.replace(".venv/bin", str(Path(sys.executable).parent))
    parts = re.sub(r"^(curl|\S+chemtwin) ", r"echo @@; \1 ", script, flags=re.MULTILINE)
    environment = os.environ | DEFAULT_MODEL | {"CHEMTWIN_DATA_DIR": str(served.data_dir)}
    done = subprocess.run(
        ["bash", "-ec", parts], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    _, printed, cluster, table, others, *responses = done.stdout.split("@@\n")
    embedded, twins, recast = map(json.loads, responses)
    assert printed.count("M67") == printed.count("same within noise  ") == 6
    assert cluster.count("M67") == 14, "all of M67 but the star"
    assert [row["cluster"] for row in csv.DictReader(table.splitlines())] == ["M67"] * 6
    assert {row["cluster"] for row in csv.DictReader(others.splitlines())} == {"NGC 2420"}
    assert embedded["star_id"] == twins["star_id"] == recast["star_id"] == "2M00004994+1621552"
    assert len(twins["twins"]) == 3
    assert recast["to"] == {"teff": 4300, "logg": 1.9, "fe_h": 0.05}


def test_the_python_session_prints_what_the_readme_says(served, write_outputs):
    session = block("python")
    script = session.text.replace("localhost:8000", f"127.0.0.1:{served.port}")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=CLIENT, capture_output=True, text=True, check=True
    )
    compare_or_write(README, session, done.stdout, write_outputs)


def test_every_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"

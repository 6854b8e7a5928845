"""`python -m benchmarks.gpu` made small, without the packages that a machine with a GPU need not have."""

import json
import math
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

ABSENT = ("astropy", "click", "faiss", "fastapi", "matplotlib", "optuna", "pydantic")
LEVELS, SURVEYS, METRICS = 4, 2, 3


def gpu(folder, *names):
    """Run the command for some networks. No process of it can import what is in ABSENT."""
    blocked = folder / "blocked"
    blocked.mkdir(exist_ok=True)
    text = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n"
    (blocked / "sitecustomize.py").write_text(text)
    command = [sys.executable, "-m", "benchmarks.gpu", folder / "out", "--small", "--seconds", "2"]
    environment = {**os.environ, "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--only", *names], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out" / "figures.json").read_text())


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder and the figures of a first call."""
    folder = tmp_path_factory.mktemp("gpu")
    return folder, gpu(folder, "faderdis-3")


def test_figures_and_page_are_whole(first):
    folder, figures = first
    (network,) = figures["networks"]
    assert network["name"] == "faderdis-3"
    assert len(network["history"]) == 4
    assert network["history"][-1]["step"] == network["steps"]
    assert len(network["searches"]) == SURVEYS * METRICS * LEVELS
    assert all(0 <= search["recovered"] <= search["within_ten"] <= 1 for search in network["searches"])
    assert all(0 <= search["auc"] <= 1 for search in network["searches"])
    rates = [network[key] for key in ("spectra_per_s", "tflop_per_s", "share_of_peak", "share_of_bandwidth")]
    assert all(value > 0 and math.isfinite(value) for value in (*rates, *network["recast"].values()))
    lines = [*(folder / "out" / "gpu.md").read_text().splitlines(), ""]
    assert lines[0].startswith("a processor (")
    heads = [i for i, line in enumerate(lines) if line.startswith("|---")]
    ends = [lines.index("", start) for start in heads]
    assert [end - start - 1 for start, end in zip(heads, ends, strict=True)] == [7, 1, 1, 4]


def test_a_second_call_trains_only_what_is_missing(first):
    folder, figures = first
    model = folder / "out" / "work" / "faderdis-3" / "model.safetensors"
    before = model.read_bytes()
    again = gpu(folder, "faderdis-3", "factordis-3")["networks"]
    assert [network["name"] for network in again] == ["faderdis-3", "factordis-3"]
    for key in ("seconds", "history", "searches", "recast"):
        assert again[0][key] == figures["networks"][0][key], "the same seconds, so the same training"
    assert model.read_bytes() == before
    assert again[1]["steps"] == again[1]["history"][-1]["step"]

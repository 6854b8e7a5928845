"""Every block of code in the documentation is run as it stands, or is in a list here that says why not."""

import shutil
import socket
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import forked
from tests.conftest import APSTAR, ASPCAP, DEFAULT_MODEL, EXAMPLES, ROOT
from tests.docs.blocks import PAGE, PAGES, RUNNABLE, blocks, check, commands, run, tokens
from tests.docs.outputs import compare_or_write

HOURS = "hours, on surveys of 50,000 stars; the same commands run small in train-your-own.md"
INSTALL = "installs into the machine"
CONTAINERS = "needs docker"
BENCHMARK = "a benchmark, minutes on a machine of its own"
CLUSTER = "needs several machines"

RUN_ELSEWHERE = {"README.md": "tests/app/cli/test_readme.py", "client.md": "tests/docs/test_client_page.py"}
"""Pages with tests of their own."""

NOT_RUN = {
    "benchmark.md": {
        "chemtwin survey synthesize train.h5": HOURS,
        "chemtwin lab evaluate-latents": "tests/training/evaluation/test_latent_file.py runs it on its own survey",
        "python docs/examples/conditional_vae.py": "minutes, on surveys of 50,000 stars",
    },
    "your-own-survey.md": {"chemtwin model adapt": "a minute"},
    "speed.md": {"python -m benchmarks.service fill": HOURS},
    "train-your-own.md": {
        "chemtwin survey synthesize observed.h5": "four minutes",
        "export CHEMTWIN_MODEL=mine.safetensors": "the model of the block above",
    },
    "fill-a-catalogue.md": {
        "dask scheduler": CLUSTER,
    },
    "emulator.md": {
        "chemtwin lab emulator fit": "a quarter of an hour on spectra that are not in the repository"
    },
    "giant-branch.md": {
        "chemtwin survey synthesize train.h5": "half an hour",
        "chemtwin survey synthesize pairs.h5": "six minutes, and the model of the first block",
        "python -m training.observed.dr10 open.h5": "four minutes, and the model of the first block",
        "python -m training.observed.dr10 giants.h5": "a download of 200 MB",
    },
    "observed-survey.md": {
        "chemtwin survey synthesize observed.h5": "ten minutes",
        "chemtwin model train observed.h5": "a quarter of an hour, with the survey above",
        "chemtwin survey synthesize paper.h5": "ten minutes, and a model that is not in the repository",
        "chemtwin survey synthesize realistic.h5": "half an hour",
    },
    "gpu.md": {
        "python -m benchmarks.gpu": "nine minutes on a large GPU; tests/benchmarks runs it small",
        "python benchmarks/network_twins.py": HOURS,
        "chemtwin lab search-weights": HOURS,
    },
    "limit.md": {"chemtwin lab limit": HOURS},
    "siblings.md": {"chemtwin model siblings": "a minute", "python benchmarks/noisier.py": "two minutes"},
    "operate.md": {
        "python3 -m venv /opt/chemtwin": INSTALL,
        "export CHEMTWIN_API_KEYS=": CONTAINERS,
    },
    "postgresql.md": {
        "pip install": INSTALL,
        "export CHEMTWIN_API_KEYS=": CONTAINERS,
    },
    "adapt-a-model.md": {"chemtwin model adapt": "a minute"},
    "quality.md": {
        "chemtwin survey synthesize train.h5": HOURS,
        "chemtwin survey synthesize realistic_train.h5": HOURS,
    },
    "nearest-neighbours.md": {"chemtwin survey synthesize reference.h5": BENCHMARK},
    "training.md": {
        "chemtwin survey synthesize known.h5": HOURS,
        "chemtwin survey synthesize train.h5": HOURS,
    },
}
"""By page: how a block begins, and why it is not run."""

NO_OUTPUTS = {
    "api.md": "the form of an error, with dots for its text",
    "limit.md": "equations",
    "method.md": "equations",
}
"""By page: what its blocks of text are, where no code prints them."""

SMALLER = {
    "train-your-own.md": {
        "--set steps=600": "--set steps=20 --set batch=64 --set encoder=[64] --set decoder=[64] --set adversary=[32]",
        "--pairs 1500": "--pairs 150", "[:600]": "[:60]", "--pairs 500": "--pairs 60",
        "faderdis.safetensors free.safetensors mine.safetensors": "mine.safetensors",
    },
}  # fmt: skip
"""By page: what is made smaller in a test."""

SURVEYS = {"upgrade-a-model.md": 51, "run-for-a-survey.md": 52, "fill-a-catalogue.md": 53}
"""Pages that find a small survey.h5 in their folder, and its seed."""

SYNTHETIC = {"upgrade-a-model.md", "run-for-a-survey.md", "train-your-own.md"}
"""Pages whose stars are synthetic here, so that the model of these is the one that their reader has."""

CHECKOUT = {"your-own-survey.md", "groups-from-a-cluster.md"}
"""Pages whose reader stands in a checkout of the repository."""

STARTS_ITS_OWN = {
    "train-your-own.md", "upgrade-a-model.md", "run-for-a-survey.md", "first-twins.md", "fill-a-catalogue.md",
    "operate.md", "your-own-survey.md", "keys.md", "groups-from-a-cluster.md",
}  # fmt: skip
"""Pages without the service on port 8000 that the others find."""

STARTS_ANEW = {"first-twins.md"}
"""Pages whose commands are new interpreters, as a reader's; those of the others are forks of a launcher."""

LONG = {
    "train-your-own.md": "a training, a calibration and an evaluation",
    "first-twins.md": "each of its commands starts anew, a service among them",
}
"""By page: why it may take longer than tests/budget.py allows."""


def chosen(page):
    if page.name in RUN_ELSEWHERE:
        return []
    reasons = NOT_RUN.get(page.name, {})
    return [b for b in blocks(page) if b.language in RUNNABLE and not b.text.startswith(tuple(reasons))]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def chemtwin(*arguments):
    status, said = forked.run(*arguments)
    assert status == 0, said


@pytest.fixture
def folder(tmp_path, request, monkeypatch):
    """Where a page's reader stands: docs/, the catalogue, and what the page says the reader has."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "examples").symlink_to(EXAMPLES)
    name = request.getfixturevalue("page").name
    if name not in SYNTHETIC:
        monkeypatch.setenv("CHEMTWIN_MODEL", DEFAULT_MODEL["CHEMTWIN_MODEL"])
    if name in CHECKOUT:
        for part in ("model", "training"):
            (tmp_path / part).symlink_to(ROOT / part)
        (tmp_path / "adapted.safetensors").symlink_to(DEFAULT_MODEL["CHEMTWIN_MODEL"])
    if name not in STARTS_ITS_OWN or name == "first-twins.md":
        shutil.copytree(request.getfixturevalue("catalogue_of_make"), tmp_path / "data")
    if name in SURVEYS:
        chemtwin("survey", "synthesize", tmp_path / "survey.h5", "--pairs", "100", "--seed", str(SURVEYS[name]))
    if name == "fill-a-catalogue.md":
        with h5py.File(tmp_path / "survey.h5") as survey:
            stars = {key: survey[key][:50] for key in ("flux", "teff", "logg", "fe_h")}
            np.savez(tmp_path / "spectra.npz", star_id=[f"npz-{i}" for i in range(50)], **stars)
        labels = [f"{APSTAR.name},4705,2.58,0.05,A", f"{ASPCAP.name},3788,1.08,0.1,"]
        (tmp_path / "labels.csv").write_text("\n".join(["file,teff,logg,fe_h,cluster", *labels]))
    if name == "upgrade-a-model.md":
        new = tmp_path / "new.safetensors"
        chemtwin(
            "model",
            "train",
            tmp_path / "survey.h5",
            "--method",
            "polydis",
            "--set",
            "components=10",
            "--out",
            new,
        )
    return tmp_path


def run_pages():
    """The pages whose blocks are run, marked by what they need and why they may take long."""
    for page in PAGES:
        if chosen(page):
            long = [pytest.mark.long(LONG[page.name])] if page.name in LONG else []
            yield pytest.param(page, marks=[pytest.mark.slow, *long], id=page.name)


@pytest.mark.parametrize("page", [*run_pages()])
def test_the_blocks_of_a_page_run_as_they_stand(page, folder, write_outputs, tmp_path_factory):
    own = page.name in STARTS_ITS_OWN
    first = [] if own else [blocks(PAGE["first-twins.md"])[0]]
    assert own or first[0].text == "make serve\n"
    ports = {"8000": free_port(), "8001": free_port()}
    programs = Path(sys.executable).parent
    if page.name not in STARTS_ANEW:
        programs = tmp_path_factory.mktemp("programs")
        forked.program(programs)
    smaller = SMALLER.get(page.name, {})
    for block, printed in run([*first, *chosen(page)], folder, ports, smaller, programs):
        compare_or_write(page, block, printed, write_outputs)


def test_the_lists_name_blocks_that_are_there():
    for name, reasons in NOT_RUN.items():
        texts = [block.text for block in blocks(PAGE[name])]
        for start in reasons:
            assert any(text.startswith(start) for text in texts), f"{name} has no block that begins {start!r}"
    for name, changes in SMALLER.items():
        texts = "".join(block.text for block in blocks(PAGE[name]))
        assert all(old in texts for old in changes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_output_is_of_a_block_that_is_run_as_it_stands(page):
    if page.name in RUN_ELSEWHERE:
        compared = [block for block in blocks(page) if block.language == "python"]
    else:
        compared = [] if page.name in SMALLER else chosen(page)
    shown = [block for block in blocks(page) if block.language == "text" and page.name not in NO_OUTPUTS]
    assert len(shown) == sum(block.output is not None for block in compared)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in RUN_ELSEWHERE], ids=lambda page: page.name)
def test_code_is_fenced_in_a_language_that_is_looked_at(page):
    for token in tokens(page):
        assert token.type != "code_block", f"indented code in line {token.map[0] + 1}"
    assert {block.language for block in blocks(page)} <= {*RUNNABLE, "text", "bibtex"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    """In the blocks, run or not, and in the prose."""
    texts = [block.text for block in blocks(page) if block.language == "bash"]
    for token in tokens(page):
        texts += [
            c.content for c in token.children or () if c.type == "code_inline" and "chemtwin " in c.content
        ]
    for text in texts:
        for words in commands(text):
            check(words)


@pytest.mark.parametrize(
    "text",
    [
        "chemtwin catalogue ingst a.h5",
        "A=1 chemtwin catalogue ingest a.h5 --worker 2",
        "x && chemtwin model train --oot m",
        "sh -c 'chemtwin ingst a'",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(text):
    with pytest.raises(AssertionError):
        check(commands(text)[0])

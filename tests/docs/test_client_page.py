"""The examples of docs/reference/client.md, run as printed."""

import subprocess
import sys

import pytest

from tests.app.cli.test_readme import CLIENT
from tests.conftest import ROOT
from tests.docs.blocks import blocks
from tests.docs.outputs import compare_or_write

PAGE = ROOT / "docs" / "reference" / "client.md"
EXAMPLES = [block for block in blocks(PAGE) if block.language == "python"]


def test_there_are_examples():
    assert len(EXAMPLES) == 6
    assert sum(bool(block.output) for block in EXAMPLES) >= 4


@pytest.fixture(scope="module")
def printed(served):
    """What each example prints, in one session."""
    marked = "print('~' * 9)\n".join(block.text for block in EXAMPLES)
    script = marked.replace("localhost:8000", f"127.0.0.1:{served.port}")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=CLIENT, capture_output=True, text=True, check=True
    )
    return done.stdout.split("~" * 9 + "\n")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_the_page_says(number, printed, write_outputs):
    if EXAMPLES[number].output is None:
        assert printed[number] == ""
    else:
        compare_or_write(PAGE, EXAMPLES[number], printed[number], write_outputs)

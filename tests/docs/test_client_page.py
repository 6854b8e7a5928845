"""The examples of docs/client.md, run as printed."""

import re
import subprocess
import sys

import pytest

from tests.app.test_readme import CLIENT
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) == 6
    assert sum(bool(printed) for _, printed in EXAMPLES) >= 4


@pytest.fixture(scope="module")
def printed(served):
    """What each example prints, in one session."""
    marked = "print('~' * 9)\n".join(script for script, _ in EXAMPLES)
    script = marked.replace("localhost:8000", f"127.0.0.1:{served.port}")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=CLIENT, capture_output=True, text=True, check=True
    )
    return done.stdout.split("~" * 9 + "\n")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_the_page_says(number, printed):
    assert printed[number] == EXAMPLES[number][1]

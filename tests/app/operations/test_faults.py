"""Six short rounds of benchmarks/hostile/faults.py: processes are killed at random, every star is checked."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ROUNDS = ("--rounds", "6", "--longest", "1", "--pairs", "150", "--workers", "1")


@pytest.mark.long("six rounds in which services start, are killed and start again")
def test_no_confirmed_write_is_lost_in_six_kills(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "hostile" / "faults.py"), *ROUNDS, "--seed", "7"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = re.search(r"6 rounds, (\d+) confirmed writes, none lost", done.stdout.splitlines()[-1])
    assert summary
    assert int(summary[1]) >= 6 * 3, "each client had a response in each round"
    assert {"nothing", "ingest", "reindex"} == set(re.findall(r"beside (\w+)", done.stdout))

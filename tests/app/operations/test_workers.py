"""Several workers and a bulk ingest on one store: what any has confirmed, every next response shows.

And what becomes of them when one of them, or the process that started them, ends.
"""

import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from tests.app.bulk.test_ingest import start
from tests.app.operations.test_operations import numbers
from tests.conftest import ROOT


def fresh(method: str, url: str, **given) -> dict:
    """A response over a connection of its own, so that any worker may give it."""
    response = httpx.request(method, url, timeout=60, **given)
    assert response.status_code in (200, 201), response.text
    return response.json()


@pytest.mark.long("a service of two workers, each a fresh interpreter")
def test_every_worker_sees_what_any_has_confirmed(start_server, star, catalogue, tmp_path):
    own = tmp_path / "temporary"
    own.mkdir()
    server = start_server(prefix=["env"], CHEMTWIN_WORKERS="2", TMPDIR=str(own))
    search = server.url + "/twins/S-0?k=1000&fe_h_within=any"
    for i in range(12):
        fresh("POST", server.url + "/embed", json={**star, "star_id": f"S-{i}"})
        for _ in range(4):
            found = fresh("GET", search)
            assert found["searched"] == i + 1
            assert [twin["star_id"] for twin in found["twins"]] == sorted(f"S-{j}" for j in range(1, i + 1))
    for _ in range(6):
        counted = numbers(server.url)
        assert counted["chemtwin_requests_total POST /embed 201"] == 12
        assert counted["chemtwin_batch_spectra_sum"] == 12
        assert counted["chemtwin_index_stars"] == 12
    fresh("DELETE", server.url + "/stars/S-5")
    for _ in range(6):
        assert "S-5" not in [twin["star_id"] for twin in fresh("GET", search)["twins"]]
    ingest = start("catalogue", "ingest", catalogue, "--data-dir", server.data_dir, "--workers", 2)
    known = 11
    while ingest.poll() is None:
        searched = fresh("GET", search)["searched"]
        assert searched >= known, "a worker forgot, or had not yet heard"
        known = searched
    assert ingest.communicate() == ("1200 stars stored, 0 already stored, 0 refused\n", "")
    for _ in range(6):
        assert fresh("GET", search)["searched"] == 11 + 1200
    assert [folder.name[:17] for folder in own.iterdir()] == ["chemtwin-metrics-"]
    server.stop()
    assert list(own.iterdir()) == []


def until(condition, seconds=30):
    """Wait for it, and return what it was."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def workers(server) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


@pytest.mark.long("services of two workers, each in a fresh interpreter")
def test_another_worker_takes_the_place_of_one_that_was_killed_and_all_end_with_their_parent(start_server):
    server = start_server(prefix=["env"], CHEMTWIN_WORKERS="2")
    killed, other = workers(server)
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in (now := workers(server)) and len(now) == 2 and other in now)
    server.wait()
    assert "ended with status -9" in server.log.read_text()
    left = [psutil.Process(pid) for pid in workers(server)]
    server.process.kill()
    until(lambda: not any(process.is_running() for process in left))


@pytest.mark.long("services of two workers, each in a fresh interpreter")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_end_in_good_order(start_server, number):
    server = start_server(prefix=["env"], CHEMTWIN_WORKERS="2")
    ended = [psutil.Process(pid) for pid in workers(server)]
    server.process.send_signal(number)
    assert server.process.wait(30) == 0
    assert not any(process.is_running() for process in ended)
    assert server.log.read_text().count("Application shutdown complete") == 2


@pytest.mark.long("services of two workers, each in a fresh interpreter")
def test_a_worker_killed_just_before_a_stop_is_no_obstacle(start_server):
    server = start_server(prefix=["env"], CHEMTWIN_WORKERS="3")
    first, second, third = map(psutil.Process, workers(server))
    first.kill()
    time.sleep(0.2)
    second.kill()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert not third.is_running()


@pytest.mark.long("interpreters that import the service's processes")
def test_where_one_of_the_first_workers_cannot_start_all_end():
    program = """
import sys
from app.operations.workers import run_workers
sys.exit(run_workers(2, lambda: sys.exit(3), 3))
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 3


@pytest.mark.long("an interpreter that imports the service's processes")
def test_a_replacement_that_cannot_start_is_tried_again(tmp_path):
    program = f"""
import os, sys, time
from pathlib import Path
from app.operations import workers
workers.PAUSE_S = 0.1
folder = Path({str(tmp_path)!r})
def serve():
    (folder / str(os.getpid())).touch()
    if len(list(folder.iterdir())) == 3:
        sys.exit(3)
    time.sleep(60)
sys.exit(workers.run_workers(2, serve, 3))
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as process:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        os.kill(int(next(tmp_path.iterdir()).name), signal.SIGKILL)
        until(lambda: len(list(tmp_path.iterdir())) == 4)
        assert len(psutil.Process(process.pid).children()) == 2
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 0

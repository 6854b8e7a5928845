"""A star that was answered for is on disk, whatever happens next."""

import os
import random
import re
import shutil
import signal
import threading
import time

import httpx
import pytest


def test_kill_nine_loses_no_answered_star(start_server, star, tmp_path):
    """Ten times: clients embed new stars, the server is killed at a random moment, and comes back."""
    answered: dict[str, list[float]] = {}
    generator = random.Random(1)
    server = start_server()
    for life in range(10):
        stop = threading.Event()

        def client(name: str, url: str = server.url, stop: threading.Event = stop) -> None:
            with httpx.Client(base_url=url, timeout=30) as http:
                for i in range(10_000):
                    if stop.is_set():
                        return
                    star_id = f"{name}-{i}"
                    body = {**star, "star_id": star_id, "teff": 4000 + generator.random() * 1000}
                    try:
                        answer = http.post("/embed", json=body)
                    except httpx.TransportError:
                        return
                    if answer.status_code in (200, 201):
                        answered[star_id] = answer.json()["latent"]

        clients = [threading.Thread(target=client, args=(f"L{life}-{i}",)) for i in range(3)]
        for thread in clients:
            thread.start()
        before, deadline = len(answered), time.monotonic() + 60
        while len(answered) < before + 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.random())
        os.kill(server.process.pid, signal.SIGKILL)
        stop.set()
        server.process.wait()
        for thread in clients:
            thread.join()
        server = start_server()
        assert httpx.get(server.url + "/readyz").json()["stars"] >= len(answered)
    assert len(answered) >= 40
    with httpx.Client(base_url=server.url) as http:
        for star_id, latent in answered.items():
            assert http.get(f"/stars/{star_id}").json()["latent"] == latent


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which could not be installed")
def test_the_commit_is_synced_before_the_answer(start_server, star, tmp_path):
    """SIGKILL forgives a missing fsync, a power cut does not: the order of the system calls shows it."""
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,sendto,sendmsg,write,writev"
    server = start_server(prefix=["strace", "-f", "-y", "-s", "40", "-e", calls, "-o", str(trace)])
    for i in range(5):
        assert (
            httpx.post(server.url + "/embed", json={**star, "star_id": f"S-{i}"}, timeout=60).status_code == 201
        )
    assert httpx.delete(server.url + "/stars/S-0", timeout=60).status_code == 200
    lines = trace.read_text().splitlines()
    synced = [
        n for n, line in enumerate(lines) if re.search(r"f(data)?sync\(\d+<[^>]*stars\.sqlite-wal>", line)
    ]
    answers = [n for n, line in enumerate(lines) if "HTTP/1.1 201" in line]
    deleted = [n for n, line in enumerate(lines) if "HTTP/1.1 200" in line][-1]
    assert len(answers) == 5
    begin = 0
    for end in [*answers, deleted]:
        assert any(begin < n < end for n in synced), f"no sync of the log between lines {begin} and {end}"
        begin = end

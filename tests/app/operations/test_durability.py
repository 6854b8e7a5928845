"""A star that was confirmed is on disk, whatever happens next."""

import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest


def test_kill_nine_loses_no_confirmed_star(start_server, star, tmp_path):
    """Ten times: clients embed new stars, the server is killed at a random moment, and comes back."""
    confirmed: dict[str, list[float]] = {}
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
                        response = http.post("/embed", json=body)
                    except httpx.TransportError:
                        return
                    if response.status_code in (200, 201):
                        confirmed[star_id] = response.json()["latent"]

        clients = [threading.Thread(target=client, args=(f"L{life}-{i}",)) for i in range(3)]
        for thread in clients:
            thread.start()
        before, deadline = len(confirmed), time.monotonic() + 60
        while len(confirmed) < before + 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.random() / 4)
        os.kill(server.process.pid, signal.SIGKILL)
        stop.set()
        server.process.wait()
        for thread in clients:
            thread.join()
        server = start_server()
        assert httpx.get(server.url + "/readyz").json()["stars"] >= len(confirmed)
    assert len(confirmed) >= 40
    with httpx.Client(base_url=server.url) as http:
        for star_id, latent in confirmed.items():
            assert http.get(f"/stars/{star_id}").json()["latent"] == latent


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which could not be installed")
def test_the_commit_is_synced_before_the_response(start_server, star, tmp_path):
    """SIGKILL forgives a missing fsync, a power cut does not: the order of the system calls shows it."""
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,recvfrom,recvmsg,read,sendto,sendmsg,write,writev"
    server = start_server(prefix=["strace", "-f", "-y", "-s", "60", "-e", calls, "-o", str(trace)])
    for i in range(5):
        assert (
            httpx.post(server.url + "/embed", json={**star, "star_id": f"S-{i}"}, timeout=60).status_code == 201
        )
    assert httpx.delete(server.url + "/stars/S-0", timeout=60).status_code == 200
    events = list(_events(trace.read_text().splitlines()))
    assert events.count("request") == 6
    for request in (n for n, event in enumerate(events) if event == "request"):
        response = events.index("response", request)
        assert "synced" in events[request:response], "the response was sent before the log was synced"


def _events(lines: list[str]) -> Iterator[str]:
    """What the trace tells, in order: a writing request came in, the log was synced, a response went out."""
    syncing = set()
    for line in lines:
        process = line.split(maxsplit=1)[0]
        if re.search(r"(read|recv\w*)\(.*\"(POST /embed|DELETE /stars/S-0) HTTP", line):
            yield "request"
        elif re.search(r"f(data)?sync\(\d+<[^>]*stars\.sqlite-wal>", line):
            if "unfinished" in line:
                syncing.add(process)
            elif line.endswith("= 0"):
                yield "synced"
        elif re.search(r"f(data)?sync resumed", line) and process in syncing:
            syncing.remove(process)
            if line.endswith("= 0"):
                yield "synced"
        elif re.search(r"HTTP/1\.1 20[01]", line):
            yield "response"

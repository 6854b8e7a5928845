"""Clients that are slow, go away, send rubbish or come all at once, and the keys that nobody may see."""

import asyncio
import gzip
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest

from tests.app.routes.test_errors import JSON, check
from tests.conftest import Server


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A server that waits a second and a half for a body, holds 8 MB of them and queues two spectra."""
    settings = {
        "CHEMTWIN_BODY_TIMEOUT_S": "1.5",
        "CHEMTWIN_MAX_BODY_MB": "2",
        "CHEMTWIN_MAX_TOTAL_BODY_MB": "8",
        "CHEMTWIN_QUEUE_SIZE": "2",
        "CHEMTWIN_BATCH_SIZE": "1",
    }
    server = Server(tmp_path_factory.mktemp("busy") / "data", settings, [])
    server.wait()
    with httpx.Client(base_url=server.url, timeout=60) as server.client:
        yield server
    server.stop()


def connected(server, *parts):
    """A connection on which these bytes were sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    for part in parts:
        connection.sendall(part)
    return connection


def head(length, *lines, path="/embed"):
    text = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {JSON}", f"Content-Length: {length}", *lines]
    return "\r\n".join([*text, "", ""]).encode()


def received(connection):
    """All that comes until the server closes the connection."""
    parts = []
    with connection, suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def error_of(response):
    start, _, content = response.partition(b"\r\n\r\n")
    return int(start.split()[1]), start.lower(), json.loads(content)["error"]["code"]


def alive(server, star):
    """It serves, takes no notice of what was, and its log has no traceback."""
    assert server.client.post("/embed", json={**star, "star_id": "AFTER"}).status_code in (200, 201)
    assert "Traceback" not in server.log.read_text()


def test_a_slow_body_is_refused_and_cut_off(busy, star):
    """After the timeout of 1.5 s, though bytes still come: in the round of this client that it falls in, or the next."""
    began = time.monotonic()
    connection = connected(busy, head(1000))
    status, rounds = b"", [began]
    while not status and len(rounds) < 100:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b" ")
        alive(busy, star)
        connection.settimeout(0.3)
        with suppress(TimeoutError):
            status = connection.recv(65536)
        rounds.append(time.monotonic())
    assert 1.4 < rounds[-1] - began < 1.5 + 2 * max(np.diff(rounds))
    connection.settimeout(20)
    status, start, code = error_of(status + received(connection))
    assert (status, code) == (408, "body_too_slow")
    assert b"connection: close" in start


def test_many_slow_bodies_hold_nobody_up(busy, star):
    def seconds():
        began = time.monotonic()
        alive(busy, star)
        return time.monotonic() - began

    alone = seconds()
    connections = [connected(busy, head(1000), b"{") for _ in range(50)]
    assert seconds() < max(1.4, 3 * alone), "it waited for their timeout"
    assert {error_of(received(connection))[0] for connection in connections} == {408}


@pytest.mark.parametrize("sent", [b"", b'{"star_id": '])
def test_a_client_that_goes_away_amid_its_body(busy, star, sent):
    for _ in range(5):
        connected(busy, head(1000), sent).close()
    time.sleep(0.2)
    alive(busy, star)


def test_clients_that_go_away_while_their_stars_are_queued(busy, star):
    for number in range(20):
        body = json.dumps({**star, "star_id": f"GONE-{number}"}).encode()
        connected(busy, head(len(body)), body).close()
    time.sleep(0.5)
    alive(busy, star)
    for number in range(20):
        assert busy.client.get(f"/stars/GONE-{number}").status_code in (200, 404)


def test_a_full_queue_is_said_and_the_others_are_served(busy, star):
    async def all_at_once():
        async with httpx.AsyncClient(base_url=busy.url, timeout=60) as client:
            bodies = [{**star, "flux": star["flux"], "star_id": f"MANY-{number}"} for number in range(8)]
            return await asyncio.gather(
                *(client.post("/embed", json=body) for body in bodies for _ in range(5))
            )

    responses = asyncio.run(all_at_once())
    refused = [response for response in responses if response.status_code == 503]
    assert {response.status_code for response in responses} <= {200, 201, 503}
    assert 0 < len(refused) < len(responses)
    for response in refused:
        check(response, 503, "busy")
        assert response.headers["retry-after"] == "1"
    alive(busy, star)


def test_bodies_in_memory_at_once_are_bounded(busy, star):
    """7.6 MB wait for their last bytes, of 8 MB at most: for another megabyte there is no room, until they end."""
    waiting = [connected(busy, head(2_000_000), b" " * 1_900_000) for _ in range(4)]
    time.sleep(0.5)
    check(busy.client.post("/embed", content=b" " * 900_000, headers={"Content-Type": JSON}), 503, "busy")
    assert {error_of(received(connection))[0] for connection in waiting} == {408}
    alive(busy, star)
    check(busy.client.post("/embed", content=b" " * 900_000, headers={"Content-Type": JSON}), 422, "bad_json")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (["Content-Encoding: gzip"], 415, "unsupported_encoding"),
        (["Content-Encoding: br, gzip"], 415, "unsupported_encoding"),
        (["Content-Length: 3000000"], None, None),
        (["Expect: 100-continue", "Content-Encoding: zstd"], 415, "unsupported_encoding"),
    ],
)
def test_an_error_without_reading_the_body_ends_the_connection(busy, star, headers, status, code):
    response = received(connected(busy, head(1_000_000, *headers)))
    if status is None:  # two lengths: refused by the HTTP parser
        assert response.startswith(b"HTTP/1.1 400")
    else:
        assert (error_of(response)[0], error_of(response)[2]) == (status, code)
    alive(busy, star)


def test_packed_bodies_are_refused_and_said(busy, star):
    packed = gzip.compress(json.dumps(star).encode())
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    check(busy.client.post("/embed", content=packed, headers=headers), 415, "unsupported_encoding")
    check(busy.client.post("/embed", content=packed, headers={"Content-Type": JSON}), 422, "bad_json")


def test_a_whole_response_reaches_a_client_that_sends_too_much(busy):
    """A connection cut off at once would reset the response as well."""
    for _ in range(5):
        response = busy.client.post("/embed", content=b" " * 30_000_000, headers={"Content-Type": JSON})
        check(response, 413, "body_too_large")


RUBBISH = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00" + bytes(500),
    "a method of rubbish": b"\xff\xfe /embed HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a negative length": b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "a length and chunks": b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    "a bad chunk": b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    "a header bomb": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100_000,
    "a long header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000,
    "a long path": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "rubbish after a request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + b"\0" * 1000,
    "an upgrade": b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("sent", RUBBISH.values(), ids=RUBBISH.keys())
def test_rubbish_gets_a_short_error_and_the_connection_ends(busy, star, sent):
    connection = socket.create_connection(("127.0.0.1", busy.port), timeout=10)
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(sent)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    assert len(received(connection)) < 2000
    alive(busy, star)


PATHS = {
    "parents": ("/stars/..%2f..%2fetc%2fpasswd", 404, "not_found"),
    "encoded twice": ("/stars/%252e%252e%252f", 422, "invalid_request"),
    "dots": ("/stars/%2e%2e", 422, "invalid_request"),
    "overlong": ("/stars/%c0%af", 422, "invalid_request"),
    "bad UTF-8": ("/stars/%ff%fe", 422, "invalid_request"),
    "half an escape": ("/stars/%2", 422, "invalid_request"),
    "bidirectional": ("/stars/%E2%80%AEabc", 422, "invalid_request"),
    "full width": ("/stars/%EF%BC%A1", 422, "invalid_request"),
    "NUL in the middle": ("/stars/A%00B", 422, "invalid_request"),
    "quotes": ("/stars/A'%22;--", 422, "invalid_request"),
    "10,000 characters": ("/stars/" + "A" * 10_000, 422, "invalid_request"),
    "k twice": ("/twins/A?k=1&k=2", 422, "invalid_request"),
    "k twice, once in code": ("/twins/A?k=1&%6b=2", 422, "invalid_request"),
    "a misspelt parameter of 5,000 characters": ("/twins/A?" + "x" * 5000 + "=1", 422, "invalid_request"),
    "5,000 parameters": ("/twins/A?" + "&".join(f"x{i}=1" for i in range(1000)), 422, "invalid_request"),
    "k of Arabic digits": ("/twins/A?k=%D9%A3", 422, "invalid_request"),
    "k with an underscore": ("/twins/A?k=1_0", 422, "invalid_request"),
    "k of 5,000 digits": ("/twins/A?k=" + "9" * 5000, 422, "invalid_request"),
    "k empty": ("/twins/A?k=", 422, "invalid_request"),
    "k NUL": ("/twins/A?k=1%00", 422, "invalid_request"),
    "k a list": ("/twins/A?k[]=1", 422, "invalid_request"),
    "after a NUL": ("/stars?after=%00", 422, "invalid_request"),
    "after a surrogate": ("/stars?after=%ed%a0%80", 422, "invalid_request"),
}


@pytest.mark.parametrize(("path", "status", "code"), PATHS.values(), ids=PATHS.keys())
def test_paths_and_parameters(busy, path, status, code):
    check(busy.client.get(path), status, code)


def test_no_key_is_ever_logged(star, tmp_path):
    """At the most that uvicorn, asyncio and Python can be made to say."""
    keys = {"CHEMTWIN_API_KEYS": "s3cret-wr1te", "CHEMTWIN_READ_KEYS": "s3cret-r3ad,schlüssel"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-X",
        "dev",
        "-m",
        "uvicorn",
        "app.application:create_app",
        "--factory",
        "--log-level",
        "trace",
    ]
    path = tmp_path / "trace.log"
    verbose = {"CHEMTWIN_DATA_DIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONASYNCIODEBUG": "1"}
    with path.open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)], env=os.environ | keys | verbose, stdout=log, stderr=log
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        for _ in range(600):
            with suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    break
            time.sleep(0.1)
        for key, status in (
            ("s3cret-wr1te", 201),
            ("s3cret-r3ad", 401),
            ("s3cret-wr1te-no", 401),
            ("s3cret-wr1t", 401),
        ):
            headers = {"Authorization": f"Bearer {key}"}
            response = client.post("/embed", json=star, headers=headers)
            assert response.status_code == status
            assert "s3cret" not in response.text
        for value in ("Basic czNjcmV0LXdyMXRl", "s3cret-wr1te", "Bearer", "", "Bearer s3cret-r3ad s3cret-r3ad"):
            check(client.get("/stars", headers={"Authorization": value}), 401, "unauthorized")
        for value in ("Bearer schlüssel".encode(), b"Bearer \xff\xfe"):
            status = 200 if value.endswith(b"ssel") else 401
            assert client.get("/stars", headers={b"Authorization": value}).status_code == status
        assert "s3cret" not in client.get("/openapi.json").text
        client.post(
            "/embed", content=b"{", headers={"Authorization": "Bearer s3cret-wr1te", "Content-Type": JSON}
        )
    finally:
        client.close()
        server.terminate()
        server.wait(30)
    log = path.read_text()
    assert "ASGI" in log
    assert "s3cret" not in log
    assert "schl" not in log

"""What an operator sees: logs, metrics, readiness, a stop, and the doctor."""

import dataclasses
import json
import shutil
import signal
import socket
import sqlite3
import threading
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from model.bundle import REFERENCE, load_model, save_model
from tests.app.bulk.test_ingest import start
from tests.conftest import DEFAULT_MODEL, Server


def numbers(url: str) -> dict[str, float]:
    """The samples of /metrics by name and labels."""
    text = httpx.get(url + "/metrics").raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        f"{s.name}{''.join(f' {value}' for _, value in sorted(s.labels.items()))}": s.value for s in samples
    }


def doctor(**environment: str) -> tuple[int, dict[str, list[str]]]:
    """What the doctor finds: its exit status, and the lines by level and subject."""
    command = start("doctor", **environment)
    out, error = command.communicate()
    assert error == ""
    lines: dict[str, list[str]] = {}
    for line in out.splitlines():
        level, subject, message = line.split(maxsplit=2)
        lines.setdefault(f"{level} {subject}", []).append(message)
    return command.wait(), lines


@pytest.fixture
def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_metrics_count_what_happens(start_server, star):
    server = start_server()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.post("/embed", json=star).status_code == 201
        bad = star | {"star_id": "BAD-1", "teff": 10.0}
        responses = client.post("/embed", json={"stars": [star | {"star_id": "TEST-2"}, bad]}).json()["results"]
        assert [response["status"] for response in responses] == [201, 422]
        assert client.get("/twins/none").status_code == 404
        assert client.get("/somewhere/else").status_code == 404
    found = numbers(server.url)
    assert found["chemtwin_requests_total POST /embed 201"] == 1
    assert found["chemtwin_requests_total POST /embed 200"] == 1
    assert found["chemtwin_requests_total GET /twins/{star_id} 404"] == 1
    assert found["chemtwin_requests_total GET unmatched 404"] == 1
    assert found["chemtwin_errors_total bad_parameters"] == 1
    assert found["chemtwin_errors_total star_not_found"] == 1
    assert found["chemtwin_request_seconds_count POST /embed"] == 2
    assert found["chemtwin_batch_spectra_sum"] == 2
    assert found["chemtwin_queue_spectra"] == 0
    assert found["chemtwin_queue_capacity_spectra"] == Settings().queue_size
    assert found["chemtwin_index_stars"] == 2
    assert found["process_resident_memory_bytes"] > 1e7
    version = httpx.get(server.url + "/model").json()["model"]["version"]
    assert any(version in name and value == 1 for name, value in found.items() if "model_info" in name)


def test_metrics_ask_for_a_key_where_keys_are_asked(start_server):
    server = start_server(CHEMTWIN_READ_KEYS="a-key-to-read")
    assert httpx.get(server.url + "/metrics").status_code == 401
    known = {"Authorization": "Bearer a-key-to-read"}
    assert httpx.get(server.url + "/metrics", headers=known).status_code == 200


def test_each_request_is_one_line_with_its_id(start_server, star):
    server = start_server(CHEMTWIN_LOG_FORMAT="json", CHEMTWIN_LOG_LEVEL="info")
    given = httpx.get(server.url + "/stars/none", headers={"X-Request-ID": "night-17"})
    made = httpx.post(
        server.url + "/embed", json=star, headers={"X-Request-ID": "x" * 65 + "\tfoo"}, timeout=60
    )
    assert given.headers["x-request-id"] == "night-17"
    assert len(made.headers["x-request-id"]) == 16
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    logged = {line["request_id"]: line for line in lines if line.get("status", 503) != 503}  # not ready yet
    assert list(logged) == ["night-17", made.headers["x-request-id"]], "and none of /readyz"
    assert logged["night-17"]["status"] == 404
    assert logged["night-17"]["bytes"] == len(given.content)
    posted = logged[made.headers["x-request-id"]]
    assert (posted["method"], posted["route"], posted["status"]) == ("POST", "/embed", 201)
    assert posted["ms"] > 1
    assert any("ready: " in line["message"] for line in lines)


def test_it_lives_before_it_is_ready(service, tmp_path):
    """A large store whose search has to be built from its rows: alive at once, ready when all stars are in."""
    data = tmp_path / "data"
    shutil.copytree(service.data_dir, data)
    for cache in data.glob("*.cache"):
        cache.unlink()
    stars = 80_000
    with sqlite3.connect(data / "stars.sqlite") as store:
        (last,) = store.execute("SELECT max(seq) FROM stars").fetchone()
        columns = "latent, covariance, teff, logg, fe_h, snr, chi2, masked_fraction, in_domain, warnings, ra, dec, meta, extra"
        store.execute(
            f"INSERT INTO stars (star_id, model, seq, {columns}) "
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {stars}) "
            f"SELECT 'COPY-' || i, model, {last} + i, {columns} FROM n, "
            "(SELECT * FROM stars WHERE deleted = 0 LIMIT 1)"
        )
    store.close()
    server = Server(data, {}, [])
    try:
        early = []
        while True:
            with suppress(httpx.TransportError):
                alive, ready = (httpx.get(server.url + path) for path in ("/healthz", "/readyz"))
                assert alive.status_code == 200
                if ready.status_code == 200:
                    break
                early.append(ready)
                twins = httpx.get(server.url + "/twins/COPY-1")
                assert twins.status_code == 200 or twins.json()["error"]["code"] == "starting"
            time.sleep(0.01)
        assert early, "was ready at once"
        assert early[0].status_code == 503
        assert early[0].json()["error"]["code"] == "starting"
        assert "retry-after" in early[0].headers
        assert ready.json()["stars"] > stars
    finally:
        server.stop()


def test_a_stop_finishes_what_was_accepted(start_server, star, tmp_path):
    """Every spectrum that was sent before SIGTERM is confirmed, and is there at the next start."""
    server = start_server(CHEMTWIN_BATCH_SIZE="2")
    responses: dict[str, int] = {}

    def post(number: int) -> None:
        stars = [star | {"star_id": f"TEST-{number}-{row}"} for row in range(40)]
        with suppress(httpx.TransportError):
            response = httpx.post(server.url + "/embed", json={"stars": stars}, timeout=60)
            assert response.status_code == 200
            responses.update({result["star_id"]: result["status"] for result in response.json()["results"]})

    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while numbers(server.url)["chemtwin_queue_spectra"] < 4:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    server.process.wait(60)
    assert len(responses) >= 4
    assert set(responses.values()) == {201}
    again = start_server()
    there = {one["star_id"] for one in httpx.get(again.url + "/stars?limit=1000").json()["stars"]}
    assert set(responses) <= there


def test_the_doctor_finds_a_sound_service_sound(service, free_port):
    status, lines = doctor(CHEMTWIN_DATA_DIR=str(service.data_dir), CHEMTWIN_PORT=free_port)
    assert status == 0
    assert not any(key.startswith(("FAIL", "warn")) for key in lines)
    assert "is intact" in lines["ok store"][0]
    stars = httpx.get(f"{service.url}/readyz").json()["stars"]  # other tests store some beside the SYN- ones
    assert lines["ok search"][0].startswith(f"{stars} stars")
    assert "lie outside the model's domain" in lines["ok domain"][0]
    assert "is free" in lines["ok access"][0]
    status, lines = doctor(
        CHEMTWIN_DATA_DIR=str(service.data_dir), CHEMTWIN_PORT=service.url.rpartition(":")[2]
    )
    assert status == 0
    assert "a service runs" in lines["ok access"][0]


@pytest.mark.slow
def test_the_doctor_says_when_the_stars_are_not_what_the_model_expects(giants, free_port):
    status, lines = doctor(CHEMTWIN_DATA_DIR=str(giants.data_dir), CHEMTWIN_PORT=free_port, **DEFAULT_MODEL)
    assert status == 0
    assert lines["warn domain"] == [httpx.get(f"{giants.url}/model").json()["drift"]["message"]]


@pytest.mark.slow
def test_the_doctor_makes_no_store(tmp_path, free_port):
    status, lines = doctor(CHEMTWIN_DATA_DIR=str(tmp_path / "a" / "b"), CHEMTWIN_PORT=free_port)
    assert status == 0
    assert "does not exist yet" in lines["ok store"][0]
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "subject", "message"),
    [
        ({"CHEMTWIN_WORKES": "2"}, "settings", "did you mean CHEMTWIN_WORKERS?"),
        ({"CHEMTWIN_PORT": "http"}, "settings", "CHEMTWIN_PORT: "),
        ({"CHEMTWIN_HOST": "0.0.0.0"}, "access", "set CHEMTWIN_API_KEYS"),
        ({"CHEMTWIN_HOST": "192.0.2.1", "CHEMTWIN_API_KEYS": "k" * 24}, "access", "set CHEMTWIN_HOST"),
        ({"CHEMTWIN_MODEL": "/etc/hostname"}, "model", "cannot read the model file"),
        ({"CHEMTWIN_DATA_DIR": "/proc/data"}, "data", "set CHEMTWIN_DATA_DIR"),
    ],
    ids=["misspelt", "no number", "open", "elsewhere", "no model", "no folder"],
)  # fmt: skip
def test_the_doctor_says_what_is_wrong(environment, subject, message, tmp_path, free_port):
    usual = {"CHEMTWIN_DATA_DIR": str(tmp_path), "CHEMTWIN_PORT": free_port}
    status, lines = doctor(**usual | environment)
    assert status == 1
    assert any(message in line for line in lines[f"FAIL {subject}"])


def test_a_defect_is_a_500_with_its_id_in_the_log(start_server, tmp_path):
    """A model that lies about its readout: the abundances of every star fail."""
    model = load_model(REFERENCE)
    assert model.readout is not None
    model.readout = dataclasses.replace(model.readout, slope=model.readout.slope[:-1])
    save_model(model, tmp_path / "lies.safetensors")
    server = start_server(CHEMTWIN_MODEL=str(tmp_path / "lies.safetensors"), CHEMTWIN_LOG_FORMAT="json")
    body = {"star_id": "A", "flux": [1.0] * len(model.grid), "teff": 4500.0, "logg": 2.0, "fe_h": 0.0}
    assert httpx.post(server.url + "/embed", json=body, timeout=60).status_code == 201
    response = httpx.get(server.url + "/stars/A/abundances", headers={"X-Request-ID": "defect-1"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert response.headers["x-request-id"] == "defect-1"
    found = numbers(server.url)
    assert found["chemtwin_requests_total GET /stars/{star_id}/abundances 500"] == 1
    assert found["chemtwin_errors_total internal_error"] == 1
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (logged,) = [line for line in lines if "exc_info" in line]
    assert logged["request_id"] == "defect-1"
    assert "Traceback" in logged["exc_info"]


def test_the_doctor_finds_a_damaged_store(service, tmp_path, free_port):
    path = tmp_path / "stars.sqlite"
    with sqlite3.connect(service.data_dir / "stars.sqlite") as store:
        store.execute("VACUUM INTO ?", (str(path),))
    store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = np.random.default_rng(1).bytes(20_000)
    path.write_bytes(content)
    status, lines = doctor(CHEMTWIN_DATA_DIR=str(tmp_path), CHEMTWIN_PORT=free_port)
    assert status == 1
    assert "chemtwin catalogue restore" in lines["FAIL store"][0]

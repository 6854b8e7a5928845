"""What goes wrong comes as an exception with the service's words, and no key is ever shown."""

import logging
import pickle
import socket
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from chemtwin_client import Busy, Chemtwin, ChemtwinError, InvalidRequest, NotFound, Unauthorized, Unreachable
from chemtwin_client.transport import pause

from model.spectra.grid import APOGEE_PIXELS
from tests.conftest import APSTAR, Server

FLAT = np.ones(APOGEE_PIXELS)
KNOWN = {"star_id": "nothing", "teff": 4500, "logg": 2.0, "fe_h": 0.0}


@pytest.mark.parametrize(
    ("call", "kind", "status", "code", "says"),
    [
        (lambda c: c.star("none"), NotFound, 404, "star_not_found", "there is no star none"),
        (lambda c: c.twins("none"), NotFound, 404, "star_not_found", "POST /embed stores one"),
        (lambda c: c.delete("none"), NotFound, 404, "star_not_found", "none"),
        (lambda c: c.abundances("none"), NotFound, 404, "star_not_found", "none"),
        (lambda c: c.recast("none", {}), NotFound, 404, "star_not_found", "none"),
        (lambda c: c.twins("none", k=0), InvalidRequest, 422, "invalid_request", "k: must be greater"),
        (lambda c: c.embed(APSTAR), InvalidRequest, 422, "missing_labels", "teff and logg and fe_h must be"),
        (lambda c: c.embed(FLAT[:9], **KNOWN), InvalidRequest, 422, "wrong_length", "9"),
        (lambda c: c.embed(5 * FLAT, **KNOWN), InvalidRequest, 422, "not_normalized", "median flux is 5"),
        (lambda c: c.embed(FLAT * np.nan, **KNOWN), InvalidRequest, 422, "flux_not_finite", "finite"),
        (lambda c: c.embed(FLAT, **{**KNOWN, "teff": 43}), InvalidRequest, 422, "bad_parameters", "teff"),
        (lambda c: c.embed(np.full(9_000_000, 0.1234567), **KNOWN), InvalidRequest, 413, "body_too_large", "64 MB"),
    ],
)  # fmt: skip
def test_an_error_has_the_service_s_words(service, call, kind, status, code, says):
    with Chemtwin(service.url) as chem, pytest.raises(kind, match=says) as caught:
        call(chem)
    error = caught.value
    assert isinstance(error, ChemtwinError)
    assert (error.status, error.code) == (status, code)
    assert str(error) == error.message
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (kind, vars(error))


def test_several_problems_are_notes(service):
    with Chemtwin(service.url) as chem, pytest.raises(InvalidRequest) as caught:
        chem.embed(FLAT, star_id="a b", teff=4500, fe_h=0)
    assert len(caught.value.detail) == 2
    shown = "".join(traceback.format_exception(caught.value))
    assert "- logg: is required" in shown
    assert "- star_id: " in shown


def test_nobody_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with Chemtwin(address) as chem, pytest.raises(Unreachable, match=address) as caught:
        chem.model()
    assert "chemtwin serve" in str(caught.value)
    assert caught.value.status is None


def test_no_response_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Chemtwin(address, timeout=0.2) as chem,
            pytest.raises(Unreachable, match=r"within 0\.2 s") as caught,
        ):
            chem.model()
    assert caught.value.code == "timeout"


class Another(BaseHTTPRequestHandler):
    """A server that is no Chemtwin: each path answers with its own status, in HTML."""

    def do_GET(self):
        self.send_response({"/model": 502, "/stars/moved": 301, "/stars/json": 404}.get(self.path, 200))
        self.send_header("Location", "https://elsewhere.example/")
        self.end_headers()
        self.wfile.write(b'{"detail": "other"}' if self.path == "/stars/json" else b"<html>hello</html>")

    def log_message(self, *_):
        pass


@pytest.fixture
def another():
    with HTTPServer(("127.0.0.1", 0), Another) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_that_is_another_s(another):
    with Chemtwin(another) as chem:
        for call, status in (
            (chem.model, 502),
            (lambda: chem.star("moved"), 301),
            (lambda: chem.star("fine"), 200),
            (lambda: chem.star("json"), 404),
        ):
            with pytest.raises(ChemtwinError, match="not as Chemtwin does") as caught:
                call()
            assert (caught.value.status, caught.value.code) == (status, "not_chemtwin")
        with pytest.raises(ChemtwinError, match=r"leads to https://elsewhere\.example"):
            chem.star("moved")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "", "http://"])
def test_what_is_no_address(url, monkeypatch):
    if not url:
        monkeypatch.setenv("CHEMTWIN_URL", "nothing")
    with pytest.raises(ValueError, match="is not an address"):
        Chemtwin(url)


def test_keys(start_server, star, monkeypatch, caplog):
    server = start_server(CHEMTWIN_API_KEYS="key-to-write", CHEMTWIN_READ_KEYS="key-to-read")
    caplog.set_level(logging.DEBUG)
    flux, known = np.array(star["flux"]), {name: star[name] for name in ("star_id", "teff", "logg", "fe_h")}
    shown = []
    with Chemtwin(server.url) as none, Chemtwin(server.url, key="key-to-read") as reader:
        for chem in (none, reader):
            with pytest.raises(Unauthorized, match="send a key that may do this") as caught:
                chem.embed(flux, **known)
            shown += [repr(chem), str(caught.value), repr(caught.value)]
            assert (caught.value.status, caught.value.code) == (401, "unauthorized")
        with pytest.raises(Unauthorized):
            none.model()
        assert reader.model()["stars"] == 0
    monkeypatch.setenv("CHEMTWIN_URL", server.url)
    monkeypatch.setenv("CHEMTWIN_KEY", "key-to-write\n")
    with Chemtwin() as writer:
        assert writer.embed(flux, **known).star_id == "TEST-1"
        writer.delete("TEST-1")
        shown.append(repr(writer))
    with pytest.raises(ValueError, match="cannot carry") as caught:
        Chemtwin(key="key-to-\nbreak")
    shown += [str(caught.value)]
    with pytest.raises(ValueError, match="holds a user or password") as caught:
        Chemtwin("http://user:key-to-enter@localhost")
    shown += [str(caught.value)]
    assert server.url in shown[0]
    assert "/embed" in caplog.text
    assert not [line for line in (*shown, caplog.text) if "key-to-" in line]


def test_a_busy_service_is_asked_again(start_server, star):
    server = start_server(CHEMTWIN_QUEUE_SIZE="1", CHEMTWIN_BATCH_SIZE="1")
    flux, ivar = np.array(star["flux"]), np.array(star["ivar"])
    known = {name: star[name] for name in ("teff", "logg", "fe_h")}

    def outcomes(retries):
        with Chemtwin(server.url, retries=retries) as chem, ThreadPoolExecutor(8) as threads:
            tasks = [threads.submit(chem.embed, flux, ivar=ivar, star_id=f"S{n}", **known) for n in range(24)]
        return [task.exception() for task in tasks]

    refused = [error for error in outcomes(0) if error is not None]
    assert refused
    assert {type(error) for error in refused} == {Busy}
    assert {error.code for error in refused} == {"busy"}
    assert outcomes(30) == [None] * 24


def test_how_long_a_pause_is():
    assert [pause(text) for text in ("3", "0", "", "Wed, 21 Oct 2026 07:28:00 GMT", "86400")] == [
        3,
        0,
        1,
        1,
        30,
    ]


@pytest.mark.slow
def test_a_service_that_is_starting_is_waited_for(tmp_path):
    server = Server(tmp_path / "data", {}, [])
    try:
        with Chemtwin(server.url) as chem:
            with pytest.raises(Unreachable):
                chem.wait_until_ready(0.0)
            chem.wait_until_ready(120)
            assert chem.model()["stars"] == 0
    finally:
        server.stop()


def test_an_interrupted_service(start_server, star):
    """Killed between two calls: the first call after it says so, the next one after a new start works."""
    server = start_server()
    with Chemtwin(server.url) as chem:
        assert chem.model()["stars"] == 0
        server.stop()
        with warnings.catch_warnings(), pytest.raises(Unreachable, match="is the service running"):
            chem.model()

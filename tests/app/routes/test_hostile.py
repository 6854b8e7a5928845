"""Bodies made to hurt: each is refused in seconds, in little memory, and the next request is served."""

import gzip
import io
import json
import random
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from astropy.io import fits

from tests.app.routes.test_errors import FITS, JSON, LABELS, NPZ, check, npy_header, npz, npz_member
from tests.conftest import APSTAR, ASPCAP, Server

EMBED = f"/embed?star_id=REFUSED&{LABELS}"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A server of these tests alone: its memory is measured."""
    server = Server(tmp_path_factory.mktemp("hostile") / "data", {}, [])
    server.wait()
    with httpx.Client(base_url=server.url, timeout=60) as server.client:
        yield server
    server.stop()


class Peak:
    """The most memory that a server has used since, in MB, beyond what it had."""

    def __init__(self, server):
        self._process = Path("/proc") / str(server.process.pid)
        (self._process / "clear_refs").write_text("5")
        self._before = self._memory()

    def _memory(self):
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))

    def grown(self):
        return self._memory() - self._before


def written(*hdus):
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(out, output_verify="ignore")
    return out.getvalue()


def changed(content, *cards):
    """With these cards in the place of the first of the same keyword."""
    for card in cards:
        offset = content.index(card[:10].encode())
        content = content[:offset] + card.ljust(80).encode() + content[offset + 80 :]
    return content


def card(key, value):
    return f"{key:<8}= {value:>20}"


def variable_lengths():
    """A table whose heap is said to hold gigabytes."""
    arrays = np.array([np.ones(3), np.ones(2)], dtype=object)
    table = fits.BinTableHDU.from_columns([fits.Column("PARAM", "PE()", array=arrays)])
    image = fits.ImageHDU(np.ones((1, 100), np.float32))
    return written(image, image, image, table)


def tiles():
    """14 million pixels that are all alike, in compressed tiles."""
    image = fits.CompImageHDU(
        np.zeros((1200, 12_000), np.int16), compression_type="GZIP_1", tile_shape=(600, 12_000)
    )
    return written(image, image, image)


APOGEE = APSTAR.read_bytes()
FITS_BODIES = {
    "an image of 2^31 pixels": lambda: changed(APOGEE, card("NAXIS1", 2**31)),
    "an image of 2^62 pixels": lambda: changed(APOGEE, card("NAXIS1", 2**31), card("NAXIS2", 999)),
    "2^32 axes": lambda: changed(APOGEE, card("NAXIS", 2**32)),
    "two numbers of axes": lambda: changed(APOGEE, card("EXTEND", "T")).replace(
        card("EXTEND", "T").ljust(80).encode(), card("NAXIS", 2**32).ljust(80).encode(), 1
    ),
    "axes by hierarchy": lambda: changed(APOGEE, card("EXTEND", "T")).replace(
        card("EXTEND", "T").ljust(80).encode(), b"HIERARCH NAXIS = 4294967296".ljust(80), 1
    ),
    "a negative axis": lambda: changed(APOGEE, card("NAXIS1", -8575)),
    "10^9 columns": lambda: changed(ASPCAP.read_bytes(), card("TFIELDS", 10**9)),
    "a heap of 2^31 bytes": lambda: changed(ASPCAP.read_bytes(), card("PCOUNT", 2**31)),
    "arrays of variable length": variable_lengths,
    "gzip of gzip": lambda: gzip.compress(gzip.compress(APOGEE, 1), 1),
    "gzip of 200 MB": lambda: gzip.compress(APOGEE + bytes(200_000_000), 1),
    "gzip of a million parts": lambda: gzip.compress(APOGEE, 1) + 1_000_000 * gzip.compress(b""),
    "gzip cut short": lambda: gzip.compress(APOGEE, 1)[:-9],
    "compressed tiles": tiles,
    "20,000 HDUs": lambda: written() + 20_000 * written(fits.ImageHDU())[2880:],
    "a header without an end": lambda: APOGEE[:80] + 700_000 * b"COMMENT".ljust(80),
    "60 MB of END": lambda: APOGEE[:80] + 750_000 * b"END     x".ljust(80),
    "random groups": lambda: changed(APOGEE, card("EXTEND", "T")).replace(b"EXTEND  ", b"GROUPS  ", 1),
}  # fmt: skip


def many_members(count):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            archive.writestr(f"a{number}", b"")
    return out.getvalue()


def twice():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("flux.npy", "flux"):
            archive.writestr(name, npy_header("(1,)") + bytes(8))
    return out.getvalue()


def bomb_that_lies():
    """60 MB in 60 kB, of which the list of members says 100 bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flux.npy", npy_header("(1, 7500000)") + bytes(60_000_000))
    content = out.getvalue()
    offset = content.rindex(b"PK\x01\x02") + 24
    return content[:offset] + (100).to_bytes(4, "little") + content[offset + 4 :]


def overlapping():
    """A list of members that all stand for the same 8 MB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flux.npy", npy_header("(1, 1000000)") + bytes(8_000_000))
    content = out.getvalue()
    start = content.rindex(b"PK\x01\x02")
    entry, end = content[start:-22], content[-22:]
    names = ("flux", "ivar", "teff", "logg", "fe_h")
    directory = b"".join(entry.replace(b"flux", name.encode()) for name in names)
    end = end[:8] + 2 * len(names).to_bytes(2, "little") + len(directory).to_bytes(4, "little") + end[16:]
    return content[:start] + directory + end


def long_header(version, length):
    return (
        b"\x93NUMPY" + bytes([version, 0]) + length.to_bytes(2 if version == 1 else 4, "little") + b" " * 60_000
    )


def zip64(content):
    return content[:-22] + b"PK\x06\x07" + bytes(16) + content[-22:]


NPZ_BODIES = {
    "a zip in a zip": lambda star: npz_member(npz()(star))(star),
    "20,000 members": lambda star: many_members(20_000),
    "an array twice": lambda star: twice(),
    "a bomb that lies": lambda star: bomb_that_lies(),
    "overlapping members": lambda star: overlapping(),
    "a comment": lambda star: npz()(star)[:-2] + b"\5\0hello",
    "a ZIP64 end": lambda star: zip64(npz()(star)),
    "a pickle for a flux": npz(flux=np.array([[object]])),
    "a structure for a flux": npz(flux=np.zeros((1, 5), dtype=[("a", "f8")])),
    "complex flux": npz(flux=np.ones((1, 7514), complex)),
    "ids of no characters": npz_member(npy_header("(1,)", "<U0")),
    "an id of a million characters": npz(star_id=np.array(["A" * 1_000_000])),
    "a header of 4 GB": npz_member(long_header(2, 2**32 - 1)),
    "a header of 60 kB": npz_member(long_header(1, 60_000)),
    "deep signs in a header": npz_member(npy_header("(" + "-" * 9000 + "1,)")),
    "a spectrum of a million pixels": npz(flux=np.ones((1, 1_000_000), np.uint8)),
    "names that are long": npz(**{"x" * 4000: np.ones(1), "y" * 4000: np.ones(1)}),
    "a hundred dimensions": npz_member(npy_header("(1," * 1 + "1," * 99 + ")") + bytes(8)),
    "NaN for a label": npz(teff=np.array([np.nan])),
}


def filled(part, size=63_000_000):
    """Makes a star's body whose flux is the same part again and again."""
    return lambda: b'{"star_id":"REFUSED","teff":1,"flux":[' + part * (size // len(part)) + b"1]}"


JSON_BODIES = {
    "63 MB of objects": (filled(b"{},"), "too_many_parts"),
    "6 MB of lists": (filled(b"[],", 6_000_000), "too_many_parts"),
    "6 MB of strings": (filled(b'"ab",', 6_000_000), "too_many_parts"),
    "63 MB of numbers": (filled(b"1.25,"), "invalid_request"),
    "6 MB of brackets": (lambda: b"[" * 6_000_000, "too_many_parts"),
    "63 MB of one integer": (lambda: b"1" * 63_000_000, None),
    "6 MB of one string": (lambda: b'"' + b"a" * 6_000_000 + b'"', "invalid_request"),
    "6 MB of spaces": (lambda: b" " * 6_000_000, "bad_json"),
    "6 MB of zeros": (lambda: bytes(6_000_000), "bad_json"),
    "99,000 brackets": (lambda: b"[" * 99_000, "bad_json"),
    "UTF-16": (lambda: '{"star_id": "A"}'.encode("utf-16"), "bad_json"),
    "a lone surrogate": (lambda: b'{"star_id": "\\ud800"}', "bad_json"),
    "a surrogate in UTF-8": (lambda: b'{"star_id": "\xed\xa0\x80"}', "bad_json"),
    "an overlong slash": (lambda: b'{"star_id": "\xc0\xaf"}', "bad_json"),
    "a field of 60,000 characters": (lambda: b'{"' + b"x" * 60_000 + b'": 1}', "invalid_request"),
    "20,000 fields": (lambda: json.dumps({f"x{i}": i for i in range(20_000)}).encode(), "invalid_request"),
}


PARSED = filled(b"1.25,", 1_000_000)()
TIMES = 200
"""A body is refused within this many times what Python takes to parse 1 MB of numbers; the slowest one takes 45."""


def parsing():
    """Seconds that this machine takes, as busy as it is, to parse 1 MB of numbers."""
    began = time.monotonic()
    json.loads(PARSED)
    return time.monotonic() - began


def refused(server, kind, body, code=None, megabytes=250.0, path="/embed"):
    before = parsing()
    peak, began = Peak(server), time.monotonic()
    response = server.client.post(path, content=body, headers={"Content-Type": kind})
    seconds = time.monotonic() - began
    if response.status_code == 200:  # of several
        (result,) = response.json()["results"]
        assert result["status"] == 422
        assert len(response.content) < 2500
    else:
        check(response, 422, code)
    assert seconds < TIMES * max(before, parsing())
    assert peak.grown() < megabytes
    assert server.client.get("/stars/REFUSED").status_code == 404


@pytest.mark.parametrize("body", FITS_BODIES.values(), ids=FITS_BODIES.keys())
def test_fits_bodies_made_to_hurt(hostile, body):
    refused(hostile, FITS, body(), path=EMBED)


def test_files_cut_short_anywhere(hostile):
    rng, real = random.Random(5), ASPCAP.read_bytes()
    whole = {120_960}  # where the last table begins
    for _ in range(20):
        cut = rng.randrange(len(real) - 2880)
        if cut not in whole:
            refused(hostile, FITS, real[:cut], path=EMBED, megabytes=30)


def test_a_thousand_visits_are_not_all_unpacked(hostile):
    """Only the combined spectrum is read; the others would be 70 MB each as doubles."""
    image = fits.ImageHDU(np.ones((900, 8575), np.uint8))
    image.header.update(CRVAL1=4.179, CDELT1=6e-6, BSCALE=0.5)
    peak = Peak(hostile)
    headers = {"Content-Type": FITS}
    response = hostile.client.post(
        EMBED.replace("REFUSED", "VISITS"), content=written(image, image, image), headers=headers
    )
    assert response.status_code == 201, response.text
    assert peak.grown() < 130


@pytest.mark.parametrize("body", NPZ_BODIES.values(), ids=NPZ_BODIES.keys())
def test_npz_bodies_made_to_hurt(hostile, star, body):
    refused(hostile, NPZ, body(star))


@pytest.mark.parametrize(("body", "code"), JSON_BODIES.values(), ids=JSON_BODIES.keys())
def test_json_bodies_made_to_hurt(hostile, body, code):
    refused(hostile, JSON, body(), code, megabytes=900)


def test_the_last_of_two_equal_keys_counts_and_any_text_may_be_stored(hostile, star):
    meta = {"NUL": "\0", "astral": "\U0001f52d", "</script>": "'; DROP TABLE stars;--", "big": 2**63}
    body = json.dumps({**star, "star_id": "KEPT", "meta": meta}).replace('"teff":', '"teff": 1, "teff":')
    client = hostile.client
    response = client.post("/embed", content=body, headers={"Content-Type": JSON})
    assert response.status_code == 201, response.text
    stored = client.get("/stars/KEPT").json()
    assert stored["teff"] == star["teff"]
    assert stored["meta"] == meta
    assert client.delete("/stars/KEPT").status_code == 200

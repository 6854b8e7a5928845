"""Everything that the contract refuses: the status, the code, the one shape, and nothing stored."""

import io
import json
import zipfile

import httpx
import numpy as np
import pytest

from tests.conftest import APSTAR

JSON, FITS, NPZ = "application/json", "application/fits", "application/x-npz"
LABELS = "teff=4705&logg=2.58&fe_h=0.05"


def changed(**fields):
    """A body like the good star's but for these fields; a field that is ... is left out."""

    def make(star):
        full = {**star, "star_id": "REFUSED", **fields}
        return json.dumps({name: value for name, value in full.items() if value is not ...}).encode()

    return make


def flux(edit):
    def make(star):
        values = np.array(star["flux"], dtype=object)
        return changed(flux=edit(values))(star)

    return make


def with_first(value):
    return flux(lambda values: [value, *values[1:]])


def npz(drop=(), **arrays):
    def make(star):
        full = {"star_id": np.array(["REFUSED"]), "flux": np.array([star["flux"]])}
        full |= {name: np.array([star[name]]) for name in ("teff", "logg", "fe_h")} | arrays
        out = io.BytesIO()
        np.savez_compressed(out, **{name: array for name, array in full.items() if name not in drop})
        return out.getvalue()

    return make


def npz_member(content: bytes):
    def make(star):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("flux.npy", content)
        return out.getvalue()

    return make


def npy_header(shape: str, descr: str = "<f8") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def repacked(content: bytes, method: int) -> bytes:
    """The same members, compressed by another method."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


def spoiled(content: bytes) -> bytes:
    """With a hundred bytes a third of the way in, among the fluxes, overwritten."""
    start = len(content) // 3
    return content[:start] + b"\xff" * 100 + content[start + 100 :]


PIXELS = 7514
EMBED = {
    "not JSON": (JSON, b"{", 422, "bad_json"),
    "empty": (JSON, b"", 422, "bad_json"),
    "a number": (JSON, b"17", 422, "invalid_request"),
    "deep JSON": (JSON, b"[" * 100_000 + b"]" * 100_000, 422, "bad_json"),
    "NUL bytes": (JSON, b"\0" * 100, 422, "bad_json"),
    "no labels": (JSON, changed(teff=..., logg=...), 422, "invalid_request"),
    "unknown label": (JSON, changed(vmic=1.2), 422, "invalid_request"),
    "label as string": (JSON, changed(teff="4500"), 422, "invalid_request"),
    "label null": (JSON, changed(teff=None), 422, "invalid_request"),
    "label NaN": (JSON, lambda star: changed()(star).replace(b'"logg":', b'"logg": NaN, "x":'), 422, "bad_json"),
    "label Infinity": (JSON, lambda star: changed()(star).replace(b'"logg":', b'"logg": Infinity, "x":'), 422, "bad_json"),
    "label 1e999": (JSON, lambda star: changed()(star).replace(b'"logg":', b'"logg": 1e999, "x":'), 422, "bad_json"),
    "label 'nan'": (JSON, changed(logg="nan"), 422, "invalid_request"),
    "label sentinel": (JSON, changed(teff=-9999), 422, "bad_parameters"),
    "error sentinel": (JSON, changed(fe_h_err=-9999), 422, "invalid_request"),
    "error NaN": (JSON, lambda star: changed()(star).replace(b'"logg":', b'"logg_err": NaN, "logg":'), 422, "bad_json"),
    "label true": (JSON, changed(logg=True), 422, "invalid_request"),
    "negative error": (JSON, changed(teff_err=-5), 422, "invalid_request"),
    "no flux": (JSON, changed(flux=...), 422, "invalid_request"),
    "flux empty": (JSON, changed(flux=[]), 422, "invalid_request"),
    "flux a string": (JSON, changed(flux="1,2,3"), 422, "invalid_request"),
    "flux with NaN": (JSON, with_first(float("nan")), 422, "bad_json"),
    "flux with 'NaN'": (JSON, with_first("NaN"), 422, "invalid_request"),
    "flux with '1.0'": (JSON, with_first("1.0"), 422, "invalid_request"),
    "flux with null": (JSON, with_first(None), 422, "flux_not_finite"),
    "flux with true": (JSON, with_first(True), 422, "invalid_request"),
    "flux with a huge integer": (JSON, with_first(10**400), 422, "bad_json"),
    "flux nested": (JSON, flux(lambda values: [list(values)]), 422, "invalid_request"),
    "flux too short": (JSON, changed(flux=[1.0] * 100, ivar=...), 422, "wrong_length"),
    "flux dark": (JSON, changed(flux=[0.0] * PIXELS), 422, "too_many_masked"),
    "flux in counts": (JSON, flux(lambda values: [1000 * v for v in values]), 422, "not_normalized"),
    "flux astronomical": (JSON, changed(flux=[1e308] * PIXELS, normalized=False), 422, None),
    "lengths disagree": (JSON, changed(ivar=[1.0] * 10), 422, "lengths_disagree"),
    "ivar negative": (JSON, changed(ivar=[-1.0] * PIXELS), 422, "negative_ivar"),
    "ivar and error": (JSON, changed(error=[1.0] * PIXELS), 422, "invalid_request"),
    "bitmask of fractions": (JSON, changed(bitmask=[0.5] * PIXELS), 422, "bad_bitmask"),
    "bitmask of sentinels": (JSON, changed(bitmask=[-9999.0] * PIXELS), 422, "bad_bitmask"),
    "bitmask of text": (JSON, changed(bitmask=["1"] * PIXELS), 422, "invalid_request"),
    "bitmask of this and that": (JSON, changed(bitmask=[True, 1] * (PIXELS // 2)), 422, "invalid_request"),
    "bitmask too large": (JSON, changed(bitmask=[2**63] * PIXELS), 422, "invalid_request"),
    "wavelength in nm": (JSON, changed(wavelength=np.linspace(1510, 1700, PIXELS).tolist()), 422, "wavelength_out_of_range"),
    "wavelength optical": (JSON, changed(wavelength=np.linspace(4000, 7000, PIXELS).tolist()), 422, "wavelength_out_of_range"),
    "wavelength falling": (JSON, changed(wavelength=np.linspace(17000, 15000, PIXELS).tolist()), 422, "bad_wavelength"),
    "half masked": (JSON, changed(bitmask=[1] * 3800 + [0] * (PIXELS - 3800)), 422, "too_many_masked"),
    "all masked": (JSON, changed(ivar=[0] * PIXELS), 422, "too_many_masked"),
    "no id": (JSON, changed(star_id=...), 422, "invalid_request"),
    "id a number": (JSON, changed(star_id=17), 422, "invalid_request"),
    "id a Gaia number": (JSON, changed(star_id=2772104109112208256), 422, "invalid_request"),
    "id a floating-point number": (JSON, changed(star_id=1.2e5), 422, "invalid_request"),
    "id empty": (JSON, changed(star_id=""), 422, "invalid_request"),
    "id with a space": (JSON, changed(star_id="2M 17"), 422, "invalid_request"),
    "id with a newline": (JSON, changed(star_id="2M17\n"), 422, "invalid_request"),
    "id with NUL": (JSON, changed(star_id="2M\0"), 422, "invalid_request"),
    "id Unicode": (JSON, changed(star_id="É1"), 422, "invalid_request"),
    "id too long": (JSON, changed(star_id="A" * 65), 422, "invalid_request"),
    "ra of 400": (JSON, changed(ra=400.0), 422, "invalid_request"),
    "meta too large": (JSON, changed(meta={"a": "x" * 5000}), 422, "invalid_request"),
    "no stars": (JSON, b'{"stars": []}', 422, "too_many_stars"),
    "too many stars": (JSON, b'{"stars": [' + b"1," * 1000 + b"1]}", 422, "too_many_stars"),
    "pickle": ("application/octet-stream", b"\x80\x04\x95", 415, "unsupported_media_type"),
    "HDF5": ("application/x-hdf5", b"\x89HDF\r\n\x1a\n", 415, "unsupported_media_type"),
    "VOTable with entities": ("application/x-votable+xml", b'<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><VOTABLE>&x;</VOTABLE>', 415, "unsupported_media_type"),
    "a form": ("application/x-www-form-urlencoded", b"a=1", 415, "unsupported_media_type"),
    "no type": ("", b"{}", 415, "unsupported_media_type"),
    "FITS that is HDF5": (FITS, b"\x89HDF\r\n\x1a\n" + bytes(1000), 422, "not_fits"),
    "FITS that is a pickle": (FITS, b"\x80\x04\x95" + bytes(1000), 422, "not_fits"),
    "FITS empty": (FITS, b"", 422, "not_fits"),
    "FITS cut short": (FITS, APSTAR.read_bytes()[:300_000], 422, None),
    "npz that is HDF5": (NPZ, b"\x89HDF\r\n\x1a\n" + bytes(1000), 422, "not_npz"),
    "npz that is a pickle": (NPZ, b"\x80\x04\x95" + bytes(1000), 422, "not_npz"),
    "npz that is none": (NPZ, b"PK\x03\x04nonsense", 422, "not_npz"),
    "npz with a pickle": (NPZ, npz(star_id=np.array([{"a": 1}], dtype=object)), 422, "bad_npz"),
    "npz with numbers for ids": (NPZ, npz(star_id=np.array([2772104109112208256])), 422, "bad_npz"),
    "npz with text for a label": (NPZ, npz(teff=np.array(["4500"])), 422, "bad_npz"),
    "npz without labels": (NPZ, npz(drop=["teff"]), 422, "missing_arrays"),
    "npz with unknown arrays": (NPZ, npz(secret=np.zeros(3)), 422, "unknown_arrays"),
    "npz of one dimension": (NPZ, npz(flux=np.ones(PIXELS)), 422, "bad_shape"),
    "npz lengths disagree": (NPZ, npz(teff=np.ones(3)), 422, "lengths_disagree"),
    "npz that unpacks to 80 MB": (NPZ, npz(ivar=np.zeros((1, 10_000_000))), 422, "unpacked_too_large"),
    "npz that claims terabytes": (NPZ, npz_member(npy_header("(1000000000000, 8575)")), 422, "bad_npz"),
    "npz of negative shape": (NPZ, npz_member(npy_header("(-1, -8)") + bytes(64)), 422, "bad_npz"),
    "npz with a bad header": (NPZ, npz_member(b"\x93NUMPY\x09\x00zzzz"), 422, "bad_npz"),
    "npz packed by bzip2": (NPZ, lambda star: repacked(npz()(star), zipfile.ZIP_BZIP2), 422, "bad_npz"),
    "npz of damaged deflate": (NPZ, lambda star: spoiled(npz()(star)), 422, None),
    "npz of impossible shape": (NPZ, npz_member(npy_header(f"(0, {10**30})")), 422, "bad_npz"),
    "npz of boolean shape": (NPZ, npz_member(npy_header("(True,)") + bytes(8)), 422, "bad_npz"),
    "npz with an unclosed header": (NPZ, npz_member(npy_header("((((1")), 422, "bad_npz"),
    "npz without pixels": (NPZ, npz(flux=np.ones((1, 0))), 422, "bad_npz"),
    "meta deeply nested": (JSON, lambda star: changed()(star).replace(b'"logg":', b'"meta": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b', "logg":'), 422, "invalid_request"),
    "npz with impossible characters": (NPZ, npz(star_id=np.array([0x7FFFFFFF], dtype="<u4").view("<U1")), 422, "bad_star_id"),
    "npz with bytes for an id": (NPZ, npz(star_id=np.array([b"\xff\xfe"])), 422, "bad_star_id"),
    "npz with code in the header": (NPZ, npz_member(npy_header("__import__('os')")), 422, "bad_npz"),
}  # fmt: skip


def check(response, status, code):
    """The one shape, short, with nothing of the request's arrays in it."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == JSON
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message", "detail"}
    assert len(response.content) < 2500
    assert len(error["detail"]) <= 10
    assert error["message"]
    if code is not None:
        assert error["code"] == code


@pytest.mark.parametrize(("kind", "body", "status", "code"), EMBED.values(), ids=EMBED.keys())
def test_embed_refuses(client, star, kind, body, status, code):
    before = client.get("/readyz").json()["stars"]
    content = body if isinstance(body, bytes) else body(star)
    path = f"/embed?star_id=REFUSED&{LABELS}" if kind == FITS else "/embed"
    response = client.post(path, content=content, headers={"Content-Type": kind} if kind else {})
    if kind == NPZ and response.status_code == 200:
        pytest.fail("accepted")
    check(response, status, code)
    assert client.get("/readyz").json()["stars"] == before
    assert client.get("/stars/REFUSED").status_code == 404


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "missing_labels"),
        ("teff=4705&logg=2.58", "missing_labels"),
        ("teff=4705&logg=2.58&fe_h=nan", "invalid_request"),
        ("teff=4705&logg=2.58&fe_h=inf", "invalid_request"),
        ("teff=hot&logg=2.58&fe_h=0", "invalid_request"),
        ("teff=1e400&logg=2.58&fe_h=0", "invalid_request"),
        ("teff=4,705&logg=2.58&fe_h=0", "invalid_request"),
        ("teff=4_705&logg=2.58&fe_h=0", "invalid_request"),
        ("teff=4705%20K&logg=2.58&fe_h=0", "invalid_request"),
        ("teff=0x1261&logg=2.58&fe_h=0", "invalid_request"),
        ("teff=&logg=2.58&fe_h=0", "invalid_request"),
        (LABELS + "&teff_err=-9999", "invalid_request"),
        (LABELS + "&fe_h_err=nan", "invalid_request"),
        (LABELS + "&vmic=1", "invalid_request"),
        (LABELS + "&star_id=a%2Fb", "invalid_request"),
        ("teff=-9999&logg=2.58&fe_h=0", "bad_parameters"),
    ],
)
def test_an_apstar_needs_good_labels(client, query, code):
    response = client.post(f"/embed?{query}", content=APSTAR.read_bytes(), headers={"Content-Type": FITS})
    check(response, 422, code)
    assert client.get("/stars/2M00004994+1621552").status_code == 404


def test_the_message_says_what_to_send(client, star):
    labels = client.post(
        "/embed?teff=4,705&logg=2.58&fe_h=0", content=APSTAR.read_bytes(), headers={"Content-Type": FITS}
    )
    assert "plain number such as 4705" in labels.json()["error"]["message"]
    named = client.post("/embed", json=star | {"star_id": 2772104109112208256})
    assert "an id is text" in named.json()["error"]["message"]
    asked = client.post("/twins", json={"star_ids": ["SYN-202-000000A", 17]})
    assert "an id is text" in asked.json()["error"]["message"]
    unknown = client.post("/embed", json=star | {"teff": -9999})
    assert "teff = -9999 is not between 1000 and 100000 K" in unknown.json()["error"]["message"]
    content = npz(star_id=np.array([17]))(star)
    ids = client.post("/embed", content=content, headers={"Content-Type": NPZ})
    assert "star_id holds int64, not text" in ids.json()["error"]["message"]
    empty = client.post("/embed?teff=4705&logg=2.58&fe_h=0", content=b"", headers={"Content-Type": FITS})
    assert "is empty: is its path right?" in empty.json()["error"]["message"]
    near = client.post(
        "/embed?teff=4705&logg=2.58&feh=0", content=APSTAR.read_bytes(), headers={"Content-Type": FITS}
    )
    assert "did you mean fe_h?" in near.json()["error"]["message"]
    misspelt = client.get("/twins/SYN-202-000000A?tef_min=4000")
    assert misspelt.json()["error"]["message"] == "tef_min: is not a parameter of this call"
    assert client.post("/recast", json={"star_id": "A"}).json()["error"]["message"] == "to: is required"
    assert "GET /docs lists the calls" in client.get("/nothing").json()["error"]["message"]


TWINS = "/twins/SYN-202-000000A"
REQUESTS = {
    "unknown star": ("GET", "/twins/nobody", None, 404, "star_not_found"),
    "k of 0": ("GET", TWINS + "?k=0", None, 422, "invalid_request"),
    "k of -1": ("GET", TWINS + "?k=-1", None, 422, "invalid_request"),
    "k of 1001": ("GET", TWINS + "?k=1001", None, 422, "invalid_request"),
    "k of 1e22": ("GET", TWINS + "?k=1e22", None, 422, "invalid_request"),
    "k of 10^22": ("GET", TWINS + f"?k={10**22}", None, 422, "invalid_request"),
    "k not a number": ("GET", TWINS + "?k=ten", None, 422, "invalid_request"),
    "filter NaN": ("GET", TWINS + "?teff_min=nan", None, 422, "invalid_request"),
    "filter Infinity": ("GET", TWINS + "?max_distance=inf", None, 422, "invalid_request"),
    "filter with a comma": ("GET", TWINS + "?teff_min=4,000", None, 422, "invalid_request"),
    "in_domain a number": ("GET", TWINS + "?in_domain=1", None, 422, "invalid_request"),
    "in_domain in capitals": ("POST", "/twins?in_domain=True", {"star_ids": ["SYN-202-000000A"]}, 422, "invalid_request"),
    "filter misspelt": ("GET", TWINS + "?tef_min=4000", None, 422, "invalid_request"),
    "fe_h_within negative": ("GET", TWINS + "?fe_h_within=-1", None, 422, "invalid_request"),
    "fe_h_within a word": ("GET", TWINS + "?fe_h_within=all", None, 422, "invalid_request"),
    "bad id": ("GET", "/twins/a%20b", None, 422, "invalid_request"),
    "id with NUL": ("GET", "/twins/a%00", None, 422, "invalid_request"),
    "id with newline": ("GET", "/twins/SYN%0A", None, 422, "invalid_request"),
    "unknown path": ("GET", "/nothing", None, 404, "not_found"),
    "wrong method": ("PUT", "/embed", None, 405, "method_not_allowed"),
    "delete of nobody": ("DELETE", "/stars/nobody", None, 404, "star_not_found"),
    "star of nobody": ("GET", "/stars/nobody", None, 404, "star_not_found"),
    "limit of 0": ("GET", "/stars?limit=0", None, 422, "invalid_request"),
    "recast nobody": ("POST", "/recast", {"star_id": "nobody", "to": {}}, 404, "star_not_found"),
    "recast nothing": ("POST", "/recast", {"to": {}}, 422, "invalid_request"),
    "recast nowhere": ("POST", "/recast", {"star_id": "SYN-202-000000A"}, 422, "invalid_request"),
    "recast to a word": ("POST", "/recast", {"star_id": "SYN-202-000000A", "to": {"teff": "hot"}}, 422, "invalid_request"),
    "recast to a sentinel": ("POST", "/recast", {"star_id": "SYN-202-000000A", "to": {"teff": -9999}}, 422, "bad_parameters"),
    "recast unknown": ("POST", "/recast", {"star_id": "SYN-202-000000A", "to": {"vmic": 1}}, 422, "invalid_request"),
    "recast a list": ("POST", "/recast", [1], 422, "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), REQUESTS.values(), ids=REQUESTS.keys())
def test_other_routes_refuse(client, method, path, body, status, code):
    check(client.request(method, path, json=body), status, code)


def test_a_body_over_the_limit_is_counted_while_it_is_read(start_server):
    server = start_server(CHEMTWIN_MAX_BODY_MB="1")

    def endless():
        for _ in range(400):
            yield b" " * 10_000

    for content in (b" " * 2_000_000, endless()):
        response = httpx.post(
            server.url + "/embed", content=content, headers={"Content-Type": JSON}, timeout=60
        )
        check(response, 413, "body_too_large")
    assert httpx.get(server.url + "/readyz").status_code == 200

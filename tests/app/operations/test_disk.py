"""A full disk and a read-only one: clear errors, nothing lost, and work goes on once there is room again."""

import shutil
import subprocess
import sys
import time

import httpx
import pytest

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
SMALL_DISK = """
mount -t tmpfs -o size=6m none {disk} && head -c 3M /dev/zero > {disk}/filler || exit 1
(until test -e {flags}/room; do sleep 0.1; done; rm {disk}/filler) &
exec "$@"
"""
"""A disk of 6 MB that only the server sees, half full; room is made when a file appears."""

pytestmark = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True).returncode != 0,
    reason="needs a kernel that lets a test mount a disk of its own",
)


@pytest.fixture
def small_disk(start_server, tmp_path):
    """A server whose data lie on a small disk, and the folder of its flag."""
    disk, flags = tmp_path / "disk", tmp_path / "flags"
    disk.mkdir()
    flags.mkdir()
    script = SMALL_DISK.format(disk=disk, flags=flags)
    return start_server(disk / "data", [*NAMESPACE, script, "sh"]), flags


def fill(http: httpx.Client, star: dict, prefix: str) -> tuple[dict[str, list[float]], httpx.Response]:
    """Embed stars until one is refused; those confirmed, and the error."""
    confirmed: dict[str, list[float]] = {}
    meta = {"note": "x" * 4000}
    for i in range(3000):
        response = http.post("/embed", json={**star, "star_id": f"{prefix}-{i}", "meta": meta})
        if response.status_code >= 400:
            return confirmed, response
        confirmed[f"{prefix}-{i}"] = response.json()["latent"]
    raise AssertionError("the disk never filled up")


def all_there(http: httpx.Client, confirmed: dict[str, list[float]]) -> bool:
    return all(http.get(f"/stars/{name}").json()["latent"] == latent for name, latent in confirmed.items())


def test_a_full_disk_refuses_loses_nothing_and_goes_on_when_there_is_room(small_disk, star):
    server, flags = small_disk
    with httpx.Client(base_url=server.url, timeout=60) as http:
        confirmed, error = fill(http, star, "A")
        assert len(confirmed) > 20
        assert error.status_code == 503
        assert error.json()["error"]["code"] == "store_unavailable"
        assert "disk is full" in error.json()["error"]["message"]
        assert http.get(f"/stars/A-{len(confirmed)}").status_code == 404
        assert all_there(http, confirmed)
        assert len(http.get("/twins/A-0?k=5&fe_h_within=any").json()["twins"]) == 5
        (flags / "room").touch()
        deadline = time.monotonic() + 20
        while http.post("/embed", json={**star, "star_id": "B"}).status_code != 201:
            assert time.monotonic() < deadline, "the store did not come back"
            time.sleep(0.2)
        assert all_there(http, confirmed)


@pytest.mark.slow
def test_a_read_only_disk_is_refused_at_the_start(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs none {disk} && mount -o remount,ro {disk} && exec "$@"'
    serve = [sys.executable, "-c", "from app.cli.main import main; main()", "serve"]
    command = ["env", f"CHEMTWIN_DATA_DIR={disk}/data", *serve]
    done = subprocess.run([*NAMESPACE, script, "sh", *command], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert str(disk) in done.stderr
    assert "Read-only" in done.stderr
    assert "Traceback" not in done.stderr

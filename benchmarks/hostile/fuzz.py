"""The readers of FITS and npz bodies on sound files that were damaged: an error or a spectrum, nothing else.

OMP_NUM_THREADS=1 python -m benchmarks.hostile.fuzz --minutes 60

With atheris installed (`pip install atheris`) damage is guided by the coverage of the readers, zipfile and
numpy's format; without it, it is random. Each case goes the whole way of a request's body: reader, schema,
observation, spectrum on the model's grid. A case that raises any other exception, takes over two seconds
or 200 MB, or yields a spectrum that is not finite, is written to --findings, and the end is an exit with 1.
"""

import argparse
import hashlib
import io
import os
import random
import resource
import struct
import sys
import threading
import time
import traceback
import warnings
import zipfile
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from platform import machine, python_version

import numpy as np
from astropy.io import fits
from pydantic import ValidationError

from app.errors import ServiceError
from app.formats.bodies import fits_job
from app.formats.npz import npz_stars
from app.schemas.bodies import StarIn
from app.schemas.queries import FitsQuery
from app.settings import Settings
from model.bundle import REFERENCE, load_model
from model.errors import ChemtwinError
from model.methods.base import Model
from model.spectra.spectrum import BAD_BITS, Observation, prepare
from tests.model.spectra.mwm_files import from_apstar

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SETTINGS = Settings()
QUERY = FitsQuery(star_id="FUZZ", teff=4500, logg=2.0, fe_h=0.0)
BODY_LIMIT, MAX_STARS = 64_000_000, 1000
SECONDS, MEGABYTES, ENDLESS = 2.0, 200, 20
LONGEST = 400_000
"""Bytes of a case."""

VALUES = b"0 1 -1 2 3 8 16 32 64 -32 -64 255 8575 85751 999 1000 65535 2147483647 2147483648 4294967296".split()
VALUES += b"-2147483648 9223372036854775807 99999999999999999999 1E30 NaN T F '' 'IMAGE' 'BINTABLE'".split()
VALUES += b"'1PE(2147483647)' '8575D' '999999999A' '1QD' '0E' 'X' '(2147483647,2)' 1.5 -9999 'ZIMAGE'".split()
KEYS = (
    b"NAXIS NAXIS1 NAXIS2 NAXIS3 BITPIX PCOUNT GCOUNT EXTEND GROUPS TFIELDS TFORM1 TFORM2 TDIM1 THEAP".split()
)
KEYS += b"BSCALE BZERO BLANK CRVAL1 CDELT1 CRPIX1 XTENSION SIMPLE END ZIMAGE TSCAL1 TZERO1 TNULL1 OBJID".split()
HEADERS = (
    b"'<f8' '>f4' '<f2' '<i8' '|u1' '<U9999999' '|O' '|S0' '<U0' '<f16' '<c8' '<M8[s]' [('a','<f8')]".split()
)
SHAPES = b"(1,) (2,7514) (0,) (-1,) (True,) (1e9,) () (99999999999,99999999999) (1,)*99 ((((".split()


def sound_files() -> list[bytes]:
    """Bodies that the service takes: real files, cut to size, and npz files of two stars."""
    aspcap = next(EXAMPLES.glob("aspcapStar*")).read_bytes()
    small = io.BytesIO()
    with fits.open(next(EXAMPLES.glob("apStar*")), memmap=False) as hdus:
        cut = [
            fits.ImageHDU(hdu.data[:3, :300], hdu.header) if isinstance(hdu.data, np.ndarray) and i < 8 else hdu
            for i, hdu in enumerate(hdus)
        ]
        fits.HDUList(cut).writeto(small, output_verify="silentfix")
    rng = np.random.default_rng(0)
    files = [aspcap, small.getvalue(), from_apstar(next(EXAMPLES.glob("apStar*")))]
    for save, pixels, extra in (
        (np.savez, 60, ("error", "wavelength")),
        (np.savez_compressed, 7514, ("ivar",)),
    ):
        arrays: dict[str, np.ndarray] = {
            "star_id": np.array(["A", "B"]),
            "flux": rng.normal(0.95, 0.02, (2, pixels)).astype(np.float16),
            "bitmask": np.zeros((2, pixels), np.int16),
        }
        arrays |= {
            name: np.array([4500.0, 2.0, 0.0][i] + np.zeros(2))
            for i, name in enumerate(("teff", "logg", "fe_h"))
        }
        shapes = {"error": (2, pixels), "ivar": (2, pixels), "wavelength": (pixels,)}
        arrays |= {name: np.linspace(15100, 17000, pixels) + np.zeros(shapes[name]) for name in extra}
        out = io.BytesIO()
        save(out, **arrays)
        files.append(out.getvalue())
    return files


def damage(content: bytes, rng: random.Random) -> bytes:
    """The file with one thing wrong: in its structure where it has any left, or in its bytes."""
    if content[:2] == b"PK" and rng.random() < 0.6:
        with suppress(Exception):  # too damaged for that
            return _repacked(content, rng)
    if content[:6] == b"SIMPLE" and rng.random() < 0.6:
        return _recarded(content, rng)
    return _bytes(content, rng)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    b = min(b, a + 1 + int(rng.paretovariate(0.5)))
    filler = rng.choice([b"", rng.randbytes(min(b - a, 4096)), b"\xff" * min(b - a, 4096), content[a:b] * 2])
    if rng.random() < 0.2:
        number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63])
        filler = struct.pack(rng.choice(["<Q", ">Q"]), number)[rng.choice([0, 4]) :]
        b = a + len(filler)
    if rng.random() < 0.1:
        return content[:a]
    return content[:a] + filler + content[b:]


def _recarded(content: bytes, rng: random.Random) -> bytes:
    blocks = [i for i in range(0, len(content) - 2879, 2880) if content[i : i + 2880].isascii()]
    if not blocks:
        return _bytes(content, rng)
    block = rng.choice(blocks)
    if rng.random() < 0.15:
        other = rng.choice(blocks)
        return content[:block] + content[other : other + 2880] * rng.choice([0, 1, 2, 50]) + content[block:]
    lines = [i for i in range(block, block + 2880, 80) if content[i : i + 8].rstrip() in KEYS] or [block]
    card = rng.choice(lines) if rng.random() < 0.7 else block + 80 * rng.randrange(36)
    key = content[card : card + 8] if rng.random() < 0.6 else rng.choice(KEYS).ljust(8)
    return content[:card] + (key + b"= " + rng.choice(VALUES).rjust(20)).ljust(80)[:80] + content[card + 80 :]


def _repacked(content: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    index = rng.randrange(len(members))
    name, packed = members[index]
    what = rng.randrange(6)
    if what == 0:
        members[index] = (rng.choice([members[0][0], "../x.npy", "é\0.npy", "flux", name * 200]), packed)
    elif what == 1:
        del members[index]
    elif what == 2:
        members += [members[index]] * rng.choice([1, 300])
    elif what == 3:
        header = b"{'descr': %b, 'fortran_order': %b, 'shape': %b, }\n" % (
            rng.choice(HEADERS), rng.choice([b"True", b"False", b"1"]), rng.choice(SHAPES)
        )  # fmt: skip
        start = b"\x93NUMPY" + rng.choice([b"\1\0", b"\2\0", b"\3\0", b"\7\0"])
        length = len(header).to_bytes(2 if start[6] == 1 else 4, "little")
        members[index] = (name, start + length + header + packed[128:])
    else:
        damaged = _bytes(packed[:160], rng) + packed[160:] if what == 4 else _bytes(packed, rng)
        members[index] = (name, damaged)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, packed in members:
            archive.writestr(name, packed)
    return out.getvalue()


def outcome(content: bytes, model: Model) -> str:
    """What becomes of a body: the code of its error, or "sound". Raises what is a finding."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome, echoed = "sound", 0
    try:
        for observation in _observations(content):
            spectrum = prepare(observation, model.grid, model.normaliser)
            assert np.isfinite(spectrum.flux).all(), "a flux that is not finite"
            assert np.isfinite(spectrum.ivar).all(), "an ivar that is not finite"
            assert (spectrum.ivar >= 0).all(), "a negative ivar"
    except (ServiceError, ChemtwinError) as error:
        outcome = error.code
        echoed = len(error.message) + sum(map(len, error.detail))
    except ValidationError:
        outcome = "invalid_request"
    seconds = time.process_time() - began
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    assert echoed < 2000, "an error message that echoes"
    assert seconds < SECONDS, f"{seconds:.1f} seconds"
    assert megabytes < MEGABYTES, f"{megabytes:.0f} MB"
    return outcome


def _observations(content: bytes) -> list[Observation]:
    if content[:2] == b"PK":
        stars = npz_stars(content, BODY_LIMIT, MAX_STARS)
        return [StarIn.model_validate(star).observation(BAD_BITS) for star in stars[:3]]
    return [fits_job(content, QUERY, SETTINGS).observation]


class Run:
    """Cases until the time is over, and what became of them."""

    def __init__(self, model: Model, minutes: float, findings: Path) -> None:
        self.model, self.findings = model, findings
        self.began = time.monotonic()
        self.ends = self.began + 60 * minutes
        self.outcomes: Counter[str] = Counter()
        self.found: set[str] = set()
        self.slowest = 0.0
        self.now: tuple[float, bytes] | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """End the run at a case that does not."""
        while True:
            time.sleep(1)
            if (now := self.now) and time.monotonic() - now[0] > ENDLESS:
                self._keep(now[1], f"more than {ENDLESS} seconds")
                self._end()

    def _keep(self, content: bytes, what: str) -> None:
        self.outcomes["FINDING"] += 1
        if what not in self.found:
            self.found.add(what)
            self.findings.mkdir(parents=True, exist_ok=True)
            (self.findings / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
            print("finding:", what, flush=True)

    def _end(self) -> None:
        self.report()
        sys.stdout.flush()
        os._exit(1 if self.found else 0)

    def case(self, content: bytes) -> None:
        """One case; at the end of the time, the report and the end of the process."""
        began = time.monotonic()
        self.now = began, content
        try:
            self.outcomes[outcome(content, self.model)] += 1
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error)[:80]} in {Path(where.filename).name}:{where.lineno}"
            self._keep(content, what)
        self.now = None
        self.slowest = max(self.slowest, time.monotonic() - began)
        if time.monotonic() > self.ends:
            self._end()

    def report(self) -> None:
        """How many cases there were, and what became of them."""
        cases, seconds = sum(self.outcomes.values()), time.monotonic() - self.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(
            f"{cases} cases in {seconds / 60:.1f} minutes, {len(self.found)} findings; "
            f"slowest {self.slowest:.2f} s, peak {peak:.0f} MB; Python {python_version()}, "
            f"numpy {np.__version__}, astropy {version('astropy')}, {machine()}, {os.cpu_count()} processors"
        )
        for name, count in self.outcomes.most_common():
            print(f"{count:>10} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    warnings.simplefilter("ignore")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args()
    files = sound_files()
    run = Run(load_model(REFERENCE), given.minutes, given.findings)
    for content in files:
        run.case(content)
    print("sound files:", dict(run.outcomes), flush=True)
    if find_spec("atheris"):
        guided(run, files, given.seed)
    rng = random.Random(given.seed)
    while True:
        content = rng.choice(files)
        for _ in range(1 + int(rng.paretovariate(1))):
            content = damage(content, rng)[:LONGEST]
        run.case(content)


def guided(run: Run, files: list[bytes], seed: int) -> None:
    """Damage guided by coverage: what reaches new branches is damaged further."""
    import tempfile

    import atheris

    import app.formats.npz
    import model.spectra.apogee
    import model.spectra.fits_headers

    for module in (app.formats.npz, model.spectra.apogee, model.spectra.fits_headers, zipfile, np.lib.format):
        for name, value in vars(module).items():
            if (
                callable(value)
                and getattr(value, "__module__", None) == module.__name__
                and hasattr(value, "__code__")
            ):
                setattr(module, name, atheris.instrument_func(value))

    def mutate(content: bytes, longest: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.2:
            return atheris.Mutate(content, longest)
        for _ in range(1 + int(rng.paretovariate(1.5))):
            content = damage(content, rng)
        return content[:longest]

    corpus = Path(tempfile.mkdtemp())
    for number, content in enumerate(files):
        (corpus / str(number)).write_bytes(content)
    options = [f"-max_len={LONGEST}", f"-seed={seed}", "-len_control=0", "-verbosity=0", "-rss_limit_mb=4000"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run.case, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

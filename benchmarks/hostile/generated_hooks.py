"""The hooks by which generated_requests.py gives schemathesis sound spectra and counts requests."""

import json
import os
import random
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st

from app.formats.bodies import FITS, NPZ
from benchmarks.hostile.fuzz import LONGEST, damage, sound_files

PIXELS = 7514
SOUND = {"flux": [1.0] * PIXELS, "ivar": [1e4] * PIXELS}
ON_ITS_OWN = ("wavelength", "error", "bitmask", "parameters", "parameters_err")


def files(start: bytes) -> st.SearchStrategy[bytes]:
    """Sound files that begin so, and files damaged a few times."""

    def damaged(content: bytes, times: int, seed: int) -> bytes:
        rng = random.Random(seed)
        for _ in range(times):
            content = damage(content, rng)[:LONGEST]
        return content

    sound = [content for content in sound_files() if content.startswith(start)]
    return st.builds(damaged, st.sampled_from(sound), st.integers(0, 4), st.integers(0, 2**32))


for kind in FITS:
    schemathesis.openapi.media_type(kind, files(b"SIMPLE"))
schemathesis.openapi.media_type(NPZ, files(b"PK"))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make sound what the schema cannot say: no minimum above its maximum, and a spectrum of all pixels."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for least, greatest in (("teff_min", "teff_max"), ("logg_min", "logg_max"), ("fe_h_min", "fe_h_max")):
        both = [case.query[name] for name in (least, greatest) if name in (case.query or {})]
        if len(both) == 2 and all(isinstance(value, (int, float)) for value in both):
            case.query[least], case.query[greatest] = sorted(both)
    if not isinstance(case.body, dict):
        return
    if "flux" in case.body and case.operation.path == "/embed":
        case.query = {}  # what goes with FITS
    stars = case.body.get("stars", [])
    for spectrum in (case.body, case.body.get("spectrum"), *(stars if isinstance(stars, list) else [])):
        if isinstance(spectrum, dict) and "flux" in spectrum:
            for name in ON_ITS_OWN:
                spectrum.pop(name, None)
            spectrum.update(SOUND)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Log each request and its response's status."""
    kind = (case.media_type or "").replace("application/", "") if case.body else ""
    line = [f"{case.operation.label} {kind}".strip(), response.status_code, len(response.content)]
    with Path(os.environ["GENERATED_REQUESTS"]).open("a") as file:
        file.write(json.dumps(line) + "\n")

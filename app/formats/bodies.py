"""Request bodies: reading them under a limit, and what each Content-Type becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.formats.npz import read_npz
from app.inference.embedder import Job
from app.schemas.requests import ERRORS, FitsQuery, StarIn, UnstoredIn
from app.service_errors import Invalid, TooLarge, UnsupportedMedia
from app.settings import Settings
from app.values.positions import left_out, position
from model.spectra.apogee import read_fits
from model.spectra.grid import MAX_PIXELS
from model.spectra.spectrum import PARAMETER_UNITS, Observation, Parameters
from model.spectra.star_file import same_star

JSON, NPZ = "application/json", "application/x-npz"
FITS = ("application/fits", "image/fits")

SMALL = 4096
"""Bytes of a body that are read in less time than it takes to start a thread on them."""

Form = TypeVar("Form")

TEMPLATES = {
    "apStar": " (an apStar's RV keywords are a template's)",
    "mwmStar": " (its doppler_ columns are a template's)",
    "mwmVisit": " (its doppler_ columns are a template's)",
}
"""Why parameters that a file seems to hold are not taken."""

NPZ_STAR = ("star_id", "teff", "logg", "fe_h")
COORDINATES = ("ra", "dec")
NPZ_SPECTRA = ("flux", "ivar", "error", "bitmask")

MAX_BRACKETS, MAX_QUOTES = 100_000, 1_000_000
"""In a JSON body: 64 MB of empty objects would take 2 GB when parsed; 1,000 stars have 5,000 and 40,000."""


def content_type(request: Request) -> str:
    """The media type of the body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limit: int) -> bytes:
    """The body, counted while it is read. Raises TooLarge beyond `limit` bytes."""
    too_large = TooLarge("body_too_large", f"the body is over the limit of {limit // 1_000_000} MB")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def understood(content: bytes, reading: Callable[[bytes], Form]) -> Form:
    """What `reading` makes of a body, in a thread where the body is large enough to be worth one."""
    return reading(content) if len(content) <= SMALL else await run_in_threadpool(reading, content)


def parse_json(content: bytes) -> Any:
    """The JSON value. Raises Invalid for what is not JSON (NaN and Infinity are not), or of too many parts."""
    if content.count(b"{") + content.count(b"[") > MAX_BRACKETS or content.count(b'"') > MAX_QUOTES:
        raise Invalid(
            "too_many_parts",
            f"the JSON has more than {MAX_BRACKETS} objects and lists, or {MAX_QUOTES // 2} strings",
        )
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Invalid(
            "bad_json", f"the body is not valid JSON (NaN and Infinity are not): {error.msg}"
        ) from None


def star_job(star: UnstoredIn, bad_bits: int) -> Job:
    """What is to be embedded of a star of a JSON or npz body. Raises SpectrumError or ParameterError."""
    place = position(star.ra, star.dec)
    return Job(star.observation(bad_bits), star.star_id, *place, star.meta, left_out(star.ra, star.dec))


def fits_job(content: bytes, query: FitsQuery, settings: Settings, *, named: bool = True) -> Job:
    """What is to be embedded of a survey's FITS file; without `named` it may lack an id.

    Labels come from the query, failing that from the file. Raises FormatError, SpectrumError or Invalid.
    """
    file = read_fits(content, settings.bad_bits, most_bytes=settings.max_body_mb * 1_000_000)
    given = {name: value for name in PARAMETER_UNITS if (value := getattr(query, name)) is not None}
    of_file = {name: value for name, value in file.labels.items() if name not in given}
    labels = of_file | given
    missing = [name for name in PARAMETER_UNITS if name not in labels]
    if missing:
        raise Invalid(
            "missing_labels",
            f"{' and '.join(missing)} must be in the query string: this {file.kind} file gives none to trust"
            + TEMPLATES.get(file.kind, ""),
        )
    star_id = query.star_id or file.star_id
    if star_id is None and named:
        raise Invalid("missing_star_id", "star_id must be in the query string: the file names no star")
    if query.star_id is not None and file.star_id is not None and not same_star(query.star_id, file.star_id):
        raise Invalid("another_star", f"the file is of {file.star_id}, another star than {query.star_id}")
    errors = {f"{name}_err": file.errors.get(name, 0.0) for name in of_file}
    errors |= {name: value for name in ERRORS if (value := getattr(query, name)) is not None}
    observation = Observation(
        flux=file.flux,
        parameters=Parameters(**labels, **errors, extra=query.parameters, extra_err=query.parameters_err),
        ivar=file.ivar,
        bad=file.bad,
        wavelength=file.wavelength,
        normalized=file.normalized,
    )
    notes = (*file.notes_of(of_file), *file.disagreements(given))
    return Job(observation, star_id, *position(file.ra, file.dec), {"file": file.kind}, notes)


def npz_stars(
    content: bytes, limit: int, max_stars: int, further: Sequence[str] = (), *, named: bool = True
) -> list[dict[str, Any]]:
    """The stars of an npz body, as dictionaries for `StarIn`; the parameters `further` are arrays too.

    Without `named` they need no `star_id`.

    Headers and sizes are checked before any array is read. Raises FormatError or Invalid.
    """
    errors = [f"{name}_err" for name in (*PARAMETER_UNITS, *further)]
    known = {*NPZ_STAR, *further, *errors, *NPZ_SPECTRA, *COORDINATES, "wavelength"}
    needed = [name for name in (*NPZ_STAR, *further, "flux") if named or name != "star_id"]
    arrays = read_npz(content, limit, needed, known)
    flux = arrays["flux"]
    if flux.ndim != 2 or not 1 <= len(flux) <= max_stars or flux.shape[1] > MAX_PIXELS:
        raise Invalid(
            "bad_shape",
            f"flux must be (stars, pixels) with 1 to {max_stars} stars and at most {MAX_PIXELS} pixels",
        )
    for name, array in arrays.items():
        expected = (
            flux.shape if name in NPZ_SPECTRA else flux.shape[1:] if name == "wavelength" else flux.shape[:1]
        )
        if array.shape != expected:
            raise Invalid("lengths_disagree", f"{name} has shape {str(array.shape)[:80]}, flux {flux.shape}")
    stars = []
    for row in range(len(flux)):
        star: dict[str, Any] = {name: arrays[name][row] for name in NPZ_SPECTRA if name in arrays}
        star.update({name: float(arrays[name][row]) for name in ("teff", "logg", "fe_h")})
        star.update({name: _known(arrays[name][row]) for name in (*ERRORS, *COORDINATES) if name in arrays})
        star["parameters"] = {name: float(arrays[name][row]) for name in further}
        star["parameters_err"] = {
            name: _known(arrays[f"{name}_err"][row]) for name in further if f"{name}_err" in arrays
        }
        try:
            if "star_id" in arrays:
                star_id = arrays["star_id"][row]
                star["star_id"] = star_id.decode("ascii") if isinstance(star_id, bytes) else str(star_id)
        except (ValueError, SystemError):  # numpy's answer to code points beyond Unicode
            raise Invalid("bad_star_id", f"star_id {row} of the npz is not text") from None
        if "wavelength" in arrays:
            star["wavelength"] = arrays["wavelength"]
        stars.append(star)
    return stars


def _known(value: Any) -> float | None:
    return None if math.isnan(number := float(value)) else number


def repeated(values: Sequence[Any]) -> set[int]:
    """The rows of several stars' bodies whose id an earlier one has."""
    ids = [value.get("star_id") if isinstance(value, dict) else None for value in values]
    first: dict[str, int] = {}
    return {
        row
        for row, star_id in enumerate(ids)
        if isinstance(star_id, str) and first.setdefault(star_id, row) != row
    }


def star_in(value: Any) -> StarIn:
    """A star of a parsed body. Raises ValidationError."""
    return StarIn.model_validate(value)


def jobs_of(values: Sequence[Any], form: type[UnstoredIn], bad_bits: int) -> list[Job | Exception]:
    """What is to be embedded of several stars' bodies of a `form`, or in its place what is wrong with one."""
    jobs: list[Job | Exception] = []
    for value in values:
        try:
            jobs.append(star_job(form.model_validate(value), bad_bits))
        except Exception as error:
            jobs.append(error)
    return jobs


def check_number(stars: int, most: int) -> None:
    """Raise Invalid for no stars, or more than one request may have."""
    if not 1 <= stars <= most:
        raise Invalid("too_many_stars", f"send 1 to {most} stars in one request, not {stars}")


def no_spectra() -> UnsupportedMedia:
    """The refusal of a Content-Type that brings no spectra."""
    return UnsupportedMedia(
        "unsupported_media_type",
        f"Content-Type must be {JSON}, {FITS[0]} or {NPZ}; HDF5 and pickles are never accepted",
    )

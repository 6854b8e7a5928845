"""Request bodies: reading them under a limit, and what each Content-Type becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.errors import Invalid, TooLarge, UnsupportedMedia
from app.inference.embedder import Job
from app.operations.threads import Threads
from app.schemas.bodies import ERRORS, UnstoredIn
from app.schemas.queries import FitsQuery
from app.settings import Settings
from app.values.positions import left_out, position
from model.spectra.parameters import PARAMETER_UNITS, Parameters
from model.spectra.spectrum import Observation
from model.spectra.star_file import same_star

NPZ = "application/x-npz"
FITS = ("application/fits", "image/fits")

SMALL = 4096
"""Bytes of a body that are read in less time than it takes to start a thread on them."""

ONE_STAR = 1_000_000
"""Bytes that the body of one star has at most: 8,575 pixels of flux, ivar, mask and wavelength have 600,000."""

Form = TypeVar("Form")

TEMPLATES = {
    "apStar": " (an apStar's RV keywords are a template's)",
    "mwmStar": " (its doppler_ columns are a template's)",
    "mwmVisit": " (its doppler_ columns are a template's)",
}
"""Why parameters that a file seems to hold are not taken."""

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


async def parsed(content: bytes, parse: Callable[[bytes], Form], threads: Threads) -> Form:
    """The result of `parse` on a body, in a thread where the body is large enough to be worth one.

    A body of several stars takes longer than those of `threads` may.
    """
    if len(content) <= SMALL:
        return parse(content)
    if len(content) <= ONE_STAR:
        return await threads.run(lambda: parse(content))
    return await run_in_threadpool(parse, content)


def parse_json(content: bytes) -> Any:
    """The JSON value. Raises Invalid for what is not JSON (NaN and Infinity are not), or of too many parts."""
    characters = np.frombuffer(content, dtype=np.uint8)
    if len(content) > MAX_BRACKETS and (
        np.count_nonzero((characters == ord("{")) | (characters == ord("["))) > MAX_BRACKETS
        or np.count_nonzero(characters == ord('"')) > MAX_QUOTES
    ):
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
    """The spectrum to embed of a star of a JSON or npz body. Raises SpectrumError or ParameterError."""
    ra, dec = position(star.ra, star.dec)
    return Job(star.observation(bad_bits), star.star_id, ra, dec, star.meta, left_out(star.ra, star.dec))


def fits_job(
    content: bytes, query: FitsQuery, settings: Settings, extra: Sequence[str] = (), *, named: bool = True
) -> Job:
    """The spectrum to embed of a survey's FITS file.

    Parameters
    ----------
    content
        The file.
    query
        The star's id and labels; what it leaves out comes from the file.
    settings
        Bad bits of the pixel mask, and the largest unpacked file.
    extra
        The model's extra parameters.
    named
        Whether the star needs an id.

    Raises
    ------
    FormatError, SpectrumError
        The file cannot be read, or its spectrum cannot be used.
    Invalid
        Labels or the id are missing, or the file is of another star.
    """
    from model.spectra.apogee import read_fits  # astropy's sixth of a second, for such files only

    file = read_fits(content, settings.bad_bits, most_bytes=settings.max_body_bytes)
    given = {name: value for name in PARAMETER_UNITS if (value := getattr(query, name)) is not None}
    of_file = {name: value for name, value in file.labels.items() if name not in given}
    labels = of_file | given
    if missing := [name for name in PARAMETER_UNITS if name not in labels]:
        raise Invalid(
            "missing_labels",
            f"{' and '.join(missing)} must be in the query string: this {file.kind} file gives none to trust"
            + TEMPLATES.get(file.kind, ""),
            missing,
        )
    star_id = _star_id(query.star_id, file.star_id, named)
    errors: dict[str, Any] = {f"{name}_err": file.errors.get(name) for name in of_file}
    errors |= {name: value for name in ERRORS if (value := getattr(query, name)) is not None}
    values, values_err = query.extra(extra)
    observation = Observation(
        flux=file.flux,
        parameters=Parameters(**labels, **errors, extra=values, extra_err=values_err),
        ivar=file.ivar,
        bad=file.bad,
        wavelength=file.wavelength,
        normalized=file.normalized,
    )
    notes = (*file.notes_of(of_file), *file.disagreements(given))
    return Job(observation, star_id, *position(file.ra, file.dec), {"file": file.kind}, notes)


def _star_id(asked: str | None, of_file: str | None, named: bool) -> str | None:
    if asked is None and of_file is None and named:
        raise Invalid("missing_star_id", "star_id must be in the query string: the file names no star")
    if asked is not None and of_file is not None and not same_star(asked, of_file):
        raise Invalid("another_star", f"the file is of {of_file}, another star than {asked}")
    return asked or of_file


def repeated(values: Sequence[Any]) -> set[int]:
    """The rows of several stars' bodies whose id an earlier one has."""
    ids = [value.get("star_id") if isinstance(value, dict) else None for value in values]
    first: dict[str, int] = {}
    return {
        row
        for row, star_id in enumerate(ids)
        if isinstance(star_id, str) and first.setdefault(star_id, row) != row
    }


def jobs_of(values: Sequence[Any], form: type[UnstoredIn], bad_bits: int) -> list[Job | Exception]:
    """The spectra to embed of several stars.

    Parameters
    ----------
    values
        The stars' bodies.
    form
        What each must be.
    bad_bits
        Bits of the pixel mask that make a pixel unusable.

    Returns
    -------
    list
        For each star in order its job, or the error of one that cannot be used.
    """
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


def check_content_type(request: Request, *accepted: str) -> str:
    """The media type of the body. Raises UnsupportedMedia for one that is not accepted."""
    kind = content_type(request)
    if kind not in accepted:
        *shown, last = [name for name in accepted if name not in FITS[1:]]
        text = f"{', '.join(shown)} or {last}" if shown else last
        never = "; HDF5 and pickles are never accepted" if NPZ in accepted else ""
        raise UnsupportedMedia("unsupported_media_type", f"Content-Type must be {text}{never}")
    return kind

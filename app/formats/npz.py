"""The stars of an npz body; names, types and sizes are checked before anything is unpacked."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import Invalid
from app.schemas.bodies import ERRORS
from model.errors import FormatError
from model.spectra.grid import MAX_PIXELS
from model.spectra.parameters import PARAMETER_UNITS

OF_STAR = ("star_id", *PARAMETER_UNITS)
COORDINATES = ("ra", "dec")
SPECTRA = ("flux", "ivar", "error", "bitmask")

KINDS = {"star_id": "SU", "bitmask": "biuf"}
"""numpy's kinds of the arrays that are not plain numbers."""

WANTED = {"star_id": "text: an id is taken digit for digit", "bitmask": "integers"}

END = struct.Struct("<4s4H2LH")
MAX_DIRECTORY = 16_384
"""Bytes of the archive's list of members; a member of numpy's takes about 60."""


def npz_stars(
    content: bytes, limit: int, max_stars: int, extra: Sequence[str] = (), *, named: bool = True
) -> list[dict[str, Any]]:
    """The stars of an npz body, as dictionaries that `StarIn` takes.

    Parameters
    ----------
    content
        The body.
    limit
        Most bytes that its arrays may have together.
    max_stars
        Most stars that it may have.
    extra
        The model's extra parameters, which are arrays too.
    named
        Whether the stars need a `star_id`.

    Raises
    ------
    FormatError
        It is not an npz file as numpy writes it.
    Invalid
        Arrays are missing, unknown, too large or of other lengths.
    """
    errors = [f"{name}_err" for name in (*PARAMETER_UNITS, *extra)]
    known = {*OF_STAR, *extra, *errors, *SPECTRA, *COORDINATES, "wavelength"}
    needed = [name for name in (*OF_STAR, *extra, "flux") if named or name != "star_id"]
    arrays = read_npz(content, limit, needed, known)
    _check_shapes(arrays, max_stars)
    return [_star(arrays, row, extra) for row in range(len(arrays["flux"]))]


def _check_shapes(arrays: dict[str, NDArray[Any]], max_stars: int) -> None:
    flux = arrays["flux"]
    if flux.ndim != 2 or not 1 <= len(flux) <= max_stars or flux.shape[1] > MAX_PIXELS:
        raise Invalid(
            "bad_shape",
            f"flux must be (stars, pixels) with 1 to {max_stars} stars and at most {MAX_PIXELS} pixels",
        )
    shapes = dict.fromkeys(SPECTRA, flux.shape) | {"wavelength": flux.shape[1:]}
    for name, array in arrays.items():
        if array.shape != shapes.get(name, flux.shape[:1]):
            raise Invalid("lengths_disagree", f"{name} has shape {str(array.shape)[:80]}, flux {flux.shape}")


def _star(arrays: dict[str, NDArray[Any]], row: int, extra: Sequence[str]) -> dict[str, Any]:
    star: dict[str, Any] = {name: arrays[name][row] for name in SPECTRA if name in arrays}
    star |= {name: float(arrays[name][row]) for name in PARAMETER_UNITS}
    star |= {name: _number(arrays[name][row]) for name in (*ERRORS, *COORDINATES) if name in arrays}
    star["parameters"] = {name: float(arrays[name][row]) for name in extra}
    star["parameters_err"] = {
        name: _number(arrays[f"{name}_err"][row]) for name in extra if f"{name}_err" in arrays
    }
    if "wavelength" in arrays:
        star["wavelength"] = arrays["wavelength"]
    try:
        if "star_id" in arrays:
            star_id = arrays["star_id"][row]
            star["star_id"] = star_id.decode("ascii") if isinstance(star_id, bytes) else str(star_id)
    except (ValueError, SystemError):  # numpy's for code points beyond Unicode
        raise Invalid("bad_star_id", f"star_id {row} of the npz is not text") from None
    return star


def _number(value: Any) -> float | None:
    """A number that may be unknown, which is NaN."""
    return None if math.isnan(number := float(value)) else number


def read_npz(
    content: bytes, limit: int, needed: Sequence[str], known: Collection[str]
) -> dict[str, NDArray[Any]]:
    """The arrays by name: all that are `needed`, none that is not `known`, `limit` bytes together.

    Raises
    ------
    FormatError
        It is not an npz file as numpy writes it.
    Invalid
        Arrays are missing, unknown or too large.
    """
    members = _members(content)
    names = [member.filename.removesuffix(".npy") for member in members]
    if unknown := sorted({name[:40] for name in names if name not in known}):
        raise Invalid("unknown_arrays", f"the npz has unknown arrays: {', '.join(unknown[:10])}")
    if len(set(names)) < len(names):
        raise FormatError("bad_npz", "the npz has an array twice")
    if sum(member.file_size for member in members) > limit:
        raise Invalid("unpacked_too_large", f"the npz would unpack to more than {limit // 1_000_000} MB")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise FormatError("bad_npz", "the npz must be stored or deflated, as numpy writes it")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {name: _array(archive, member, name) for name, member in zip(names, members, strict=True)}
    if missing := [name for name in needed if name not in arrays]:
        raise Invalid("missing_arrays", f"the npz lacks {', '.join(missing)}")
    return arrays


def _members(content: bytes) -> list[zipfile.ZipInfo]:
    """What the archive lists, if it ends as numpy ends one (no comment, no ZIP64) and lists little."""
    if len(content) >= END.size:
        signature, *_, directory, _, comment = END.unpack(content[-END.size :])
        plain = signature == b"PK\x05\x06" and not comment and content[-42:-38] != b"PK\x06\x07"
        if plain and directory > MAX_DIRECTORY:
            raise FormatError("bad_npz", "the npz lists more members than there are arrays to send")
        if plain:
            try:
                return zipfile.ZipFile(io.BytesIO(content)).infolist()
            except Exception:  # zipfile raises nearly anything on damaged archives
                pass
    raise FormatError("not_npz", "the body is not an npz file as numpy writes it")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    try:
        with archive.open(member) as file:
            packed = file.read(member.file_size + 1)  # past the end, where the checksum is looked at
        stream = io.BytesIO(packed)
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(stream)
        size = math.prod(shape) * dtype.itemsize
        sound = size > 0 and len(shape) <= 2 and all(type(length) is int and length > 0 for length in shape)
    except Exception:  # zipfile and numpy raise nearly anything on damaged members
        raise FormatError("bad_npz", f"array {name} cannot be read") from None
    if dtype.kind not in KINDS.get(name, "iuf"):
        wanted = WANTED.get(name, "numbers")
        raise FormatError("bad_npz", f"array {name} holds {str(dtype)[:40]}, not {wanted}")
    if 0 in shape:
        raise FormatError("bad_npz", f"array {name} is empty")
    if not sound or size != len(packed) - stream.tell():
        raise FormatError("bad_npz", f"array {name} is not as long as its header says")
    return np.frombuffer(packed, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")

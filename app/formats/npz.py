"""The arrays of an npz body, each step looked at before it costs anything."""

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

from app.service_errors import Invalid
from model.errors import FormatError

KINDS = {"star_id": "SU", "bitmask": "biuf"}
"""Of numpy's types, for what is not a plain number."""

WANTED = {"star_id": "text: an id is taken digit for digit", "bitmask": "integers"}

END = struct.Struct("<4s4H2LH")
MAX_DIRECTORY = 16_384
"""Bytes of the archive's list of members; a member of numpy's takes about 60."""


def read_npz(
    content: bytes, limit: int, needed: Sequence[str], known: Collection[str]
) -> dict[str, NDArray[Any]]:
    """The arrays by name: all that are `needed`, none that is not `known`, `limit` bytes together.

    Raises FormatError or Invalid.
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
    if not sound or size != len(packed) - stream.tell():
        raise FormatError("bad_npz", f"array {name} is not as long as its header says")
    return np.frombuffer(packed, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")

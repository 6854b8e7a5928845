"""A cache file: named arrays and a description, written whole or not at all, read only if undamaged.

What is read stays in the file, mapped to memory: all processes that read it share it.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = "chemtwin-search-5"

TYPES = {"U8": np.uint8, "I64": np.int64, "F32": np.float32, "F64": np.float64}
"""The file format's names of the types that are written."""


class CacheError(Exception):
    """A cache that is missing, damaged or of something else; the message says which file and why."""


def write_cache(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write a file, on disk on return; one that is there is replaced.

    Parameters
    ----------
    path
        The file.
    arrays
        Arrays of `TYPES`, by name.
    about
        The description: what JSON can represent.

    Raises
    ------
    OSError
        The file cannot be written; what was there is still there.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = json.dumps(dict(about))
    metadata = {"format": FORMAT, "about": header, "checksum": str(_checksum(whole, header))}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    os.close(descriptor)
    try:
        try:
            save_file(whole, name, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {name}: {error}") from error
        _sync(Path(name), os.O_RDWR)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent, os.O_RDONLY)


def read_cache(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the description that `write_cache` wrote. The arrays cannot be written to.

    Raises
    ------
    CacheError
        The file is missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="numpy"):  # which checks the header
            content = np.asarray(np.memmap(path, np.uint8, "r"))  # whose views cost less
    except (OSError, SafetensorError) as error:
        raise CacheError(f"cannot read {path}: {error}") from error
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")  # 8 bytes are the header's length
    entries = json.loads(content[8:start].tobytes())
    metadata = entries.pop("__metadata__", {})
    known = all(entry["dtype"] in TYPES for entry in entries.values())
    if metadata.get("format") != FORMAT or not known:
        raise CacheError(f"{path} is no cache of this version")
    arrays = {name: _mapped(content[start:], entry) for name, entry in entries.items()}
    header = metadata.get("about", "")
    if metadata.get("checksum") != str(_checksum(arrays, header)):
        raise CacheError(f"{path} is damaged")
    about: dict[str, Any] = json.loads(header)
    return arrays, about


def _mapped(content: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    """The array of an entry of a safetensors header, in the bytes (n,) that follow the header."""
    own = content[slice(*entry["data_offsets"])]
    return own.view(TYPES[entry["dtype"]]).reshape(entry["shape"])


def _checksum(arrays: Mapping[str, NDArray[Any]], header: str) -> int:
    checksum = zlib.crc32(header.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

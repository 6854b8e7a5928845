"""A cache file: named arrays and what is told of them, written whole or not at all, read only if undamaged."""

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

FORMAT = "chemtwin-search-3"


class CacheError(Exception):
    """A cache that is missing, damaged or of something else; the message says which file and why."""


def write_cache(path: Path, arrays: Mapping[str, NDArray[Any]], told: Mapping[str, Any]) -> None:
    """Write arrays of numbers or bools, on disk on return, in the place of what was there. Raises OSError."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = json.dumps(dict(told))
    metadata = {"format": FORMAT, "told": header, "checksum": str(_checksum(whole, header))}
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
    """What `write_cache` wrote. Raises CacheError for anything else."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CacheError(f"{path} is no cache of this version")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CacheError(f"cannot read {path}: {error}") from error
    header = metadata.get("told", "")
    if metadata.get("checksum") != str(_checksum(arrays, header)):
        raise CacheError(f"{path} is damaged")
    told: dict[str, Any] = json.loads(header)
    return arrays, told


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

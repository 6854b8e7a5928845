"""The files of a folder that hold spectra, cut into blocks that are read one at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py

from app.bulk.readers.array_reader import HDF5, read_hdf5, read_npz
from app.bulk.readers.star_files import without_ending
from model.errors import InputError

BLOCK = 256
ARRAYS = (*HDF5, ".npz")
WORKING, PLAN = ".building", "plan.json"
"""The ending of a build's working folder, and a file in it."""


@dataclass(frozen=True)
class Block:
    """Spectra that are read together: one each of some FITS `files`, or `rows` of one file of arrays.

    `number` counts the blocks of a folder, and paths are relative to it. Arrays without flux have no `rows`.
    """

    number: int
    files: tuple[str, ...]
    rows: slice | None = None

    def __len__(self) -> int:
        return len(self.files) if self.rows is None else self.rows.stop - self.rows.start


def find_files(folder: Path, without: Collection[Path]) -> list[str]:
    """The files of spectra in a folder and its subfolders, as sorted relative paths; links are followed.

    Paths in `without` are passed over, folders among them with all that is in them. So are working folders of
    builds, links that lead nowhere, and a folder that was searched already, by whatever link.
    """
    apart = {path.resolve() for path in (*without, folder)}
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        inside = sorted(folders, key=lambda one: (Path(parent, one).is_symlink(), one))
        folders.clear()
        for one in inside:
            path = Path(parent, one).resolve()
            if path not in apart and not (path.name.endswith(WORKING) and (path / PLAN).is_file()):
                folders.append(one)
                apart.add(path)
        for name in files:
            path = Path(parent, name)
            known = without_ending(name) is not None or path.suffix in ARRAYS
            if known and path.is_file() and path.resolve() not in apart:
                found.append(str(PurePosixPath(path.relative_to(folder))))
    return sorted(found)


def blocks_of(folder: Path, files: Sequence[str]) -> list[Block]:
    """The blocks of sorted files."""
    return [Block(number, *part) for number, part in enumerate(_parts(folder, files))]


def _parts(folder: Path, files: Sequence[str]) -> Iterator[tuple[tuple[str, ...], slice | None]]:
    fits = [name for name in files if without_ending(name) is not None]
    for start in range(0, len(fits), BLOCK):
        yield tuple(fits[start : start + BLOCK]), None
    for name in files:
        if without_ending(name) is None:
            stars = _stars(folder / name)
            for start in range(0, stars, BLOCK):
                yield (name,), slice(start, min(start + BLOCK, stars))
            if not stars:
                yield (name,), None


def _stars(path: Path) -> int:
    """How many stars a file of arrays has; 0 for a file of something else, and for a survey that was built."""
    try:
        arrays = read_npz(path) if path.suffix == ".npz" else read_hdf5(path)
    except InputError:
        return 0
    if is_built_survey(path):
        return 0
    return int(arrays["flux"].shape[0]) if "flux" in arrays and len(arrays["flux"].shape) == 2 else 0


def is_built_survey(path: Path) -> bool:
    """Whether a file of arrays is a survey that a build wrote: docs/reference/file-formats.md."""
    if path.suffix not in HDF5 or not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return "normalisation" in file.attrs and "provenance" in file

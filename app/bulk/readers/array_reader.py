"""Stars in arrays with a row each: the datasets of a survey in HDF5, or the members of an npz."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.bulk.readers.star_reader import (
    COORDINATES,
    LABELS,
    READING,
    InputFiles,
    ReadStar,
    RejectedStar,
    StarReader,
    check_id,
    extra_meta,
    parameters_of,
)
from app.inference.embedder import Job
from app.settings import Settings
from app.values.identifiers_and_numbers import (
    ColumnError,
    converted,
    identifiers,
    meta_value,
    numbers,
    vacuum_angstrom,
)
from app.values.positions import left_out, position
from model.errors import ChemtwinError, InputError
from model.spectra.pixels import bad_pixels, ivar_of
from model.spectra.spectrum import Observation

PIXELS = ("flux", "ivar", "error", "bitmask")
HDF5 = (".h5", ".hdf5")
SURVEY_ONLY = {"twin_of", "group", "abundances"}
"""Datasets of a survey that training and evaluation read, and a catalogue does not."""


class ArrayReader(StarReader):
    """Stars in arrays by name, a row each; `extra_units` are the units of the model's extra parameters."""

    def __init__(
        self, files: InputFiles, arrays: Mapping[str, Any], settings: Settings, extra_units: Mapping[str, str]
    ) -> None:
        path = files.path
        self._path, self._arrays = path, arrays
        self._bad_bits, self._extra_units = settings.bad_bits, extra_units
        survey = path.suffix in HDF5
        needed = {"flux", "star_id", *LABELS, *(["wavelength"] if survey else [])}
        if missing := needed - set(arrays):
            kind = "a survey" if survey else "an npz of stars"
            raise InputError(f"{path} is not {kind}: it lacks {', '.join(sorted(missing))}")
        if missing := set(extra_units) - set(arrays):
            raise InputError(f"{path} lacks {', '.join(sorted(missing))}, one number per star")
        if {"ivar", "error"} <= set(arrays):
            raise InputError(f"{path} has ivar and error: one of them must go")
        errors = (f"{name}_err" for name in (*LABELS, *extra_units))
        self._numeric = [n for n in (*LABELS, *extra_units, *COORDINATES, *errors, "snr") if n in arrays]
        self._pixels = [name for name in PIXELS if name in arrays]
        shape = arrays["flux"].shape
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: flux has shape {shape}, not (stars, pixels)")
        for name in ("star_id", *self._numeric, *self._pixels):
            expected = shape if name in PIXELS else shape[:1]
            if arrays[name].shape != expected:
                raise InputError(f"{path}: {name} has shape {arrays[name].shape}, flux {shape}")
            kinds = "biuf" if name == "bitmask" else "iuf"
            if name != "star_id" and arrays[name].dtype.kind not in kinds:
                raise InputError(f"{path}: {name} has the type {arrays[name].dtype}, not numbers")
        unknown = sorted(set(arrays) - {"star_id", "wavelength", *self._numeric, *self._pixels} - SURVEY_ONLY)
        self._noted = "warnings" in unknown and _is_text(arrays["warnings"], shape[0])
        unknown = [name for name in unknown if name != "warnings" or not self._noted]
        free = [n for n in unknown if arrays[n].shape == shape[:1] and arrays[n].dtype.kind in "SUOiufb"]
        self.meta_columns = files.meta_columns(free)
        self.ignored_columns = tuple(name for name in unknown if name not in self.meta_columns)
        self._wavelength = self._in_angstrom() if "wavelength" in arrays else None
        self._common = hashlib.sha256(repr((READING, settings.bad_bits)).encode())
        if self._wavelength is not None:
            self._common.update(self._wavelength.tobytes())

    def _in_angstrom(self) -> NDArray[np.float64]:
        """The common wavelengths (P,). Raises InputError."""
        dataset = self._arrays["wavelength"]
        pixels = self._arrays["flux"].shape[1]
        if dataset.shape != (pixels,) or dataset.dtype.kind not in "iuf":
            raise InputError(
                f"{self._path}: wavelength has shape {dataset.shape} and type {dataset.dtype}; it must be "
                f"{pixels} numbers, the same for all stars"
            )
        try:
            return vacuum_angstrom(np.asarray(dataset[:], np.float64), _unit(dataset))
        except ColumnError as error:
            raise InputError(f"{self._path}: {error}") from None

    def __len__(self) -> int:
        return int(self._arrays["flux"].shape[0])

    def ids(self) -> list[str]:
        """Every star's id. Raises InputError for floating-point numbers."""
        return self._ids(slice(0, len(self)))

    def row_name(self, row: int) -> str:
        """Rows are counted from 0, as arrays are."""
        return f"row {row}"

    def _ids(self, rows: slice) -> list[str]:
        try:
            return [one or "" for one in identifiers("star_id", self._arrays["star_id"][rows])]
        except ColumnError as error:
            raise InputError(f"{self._path}: {error}") from None

    def _column(self, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
        """Some rows (n,) of a column of numbers, in the service's unit, NaN where they are unknown."""
        try:
            found = numbers(values).values
            unit = _unit(self._arrays[name])
            return converted(name, found, unit, self._extra_units.get(name.removesuffix("_err")))
        except ColumnError as error:
            raise InputError(f"{self._path}: {error}") from None

    def read(self, rows: slice) -> list[ReadStar | RejectedStar]:
        """The stars of some rows."""
        raw = {
            name: np.ascontiguousarray(self._arrays[name][rows])
            for name in ("flux", *self._numeric, *(name for name in self._pixels if name != "flux"))
        }
        flux = raw["flux"]
        labels = {name: self._column(name, raw[name]).tolist() for name in self._numeric}
        extra = {name: self._arrays[name][rows].tolist() for name in self.meta_columns}
        content = {
            name: column.view(np.uint8).reshape(len(flux), -1) for name, column in raw.items() if name != "flux"
        }
        notes = self._arrays["warnings"][rows].tolist() if self._noted else [""] * len(flux)
        exact = flux.astype(np.float64)
        stars: list[ReadStar | RejectedStar] = []
        for row, star_id in enumerate(self._ids(rows)):
            values = {name: column[row] for name, column in labels.items()}
            values |= {name: raw[name][row] for name in self._pixels}
            try:
                meta = extra_meta({name: column[row] for name, column in extra.items()})
                check_id(star_id)
                warnings = tuple((meta_value(notes[row]) or "").splitlines())
                job = self._job(star_id, exact[row], values, meta, warnings)
            except ChemtwinError as error:
                stars.append(RejectedStar(star_id, f"{self.row_name(rows.start + row)}: {error}"))
                continue
            digest = self._common.copy()
            digest.update(flux[row])
            for name in sorted(content):
                digest.update(name.encode())
                digest.update(content[name][row])
            digest.update(repr((meta, warnings) if warnings else meta).encode())
            stars.append(ReadStar(job, digest.hexdigest()[:32]))
        return stars

    def _job(
        self,
        star_id: str,
        flux: NDArray[np.float64],
        values: Mapping[str, Any],
        meta: dict[str, Any],
        warnings: tuple[str, ...],
    ) -> Job:
        ivar = values.get("ivar")
        snr = values.get("snr", math.nan)
        if ivar is not None:
            ivar = ivar.astype(np.float64)
        elif "error" in values:
            ivar = ivar_of(values["error"])
        elif snr > 0:
            ivar = np.full(len(flux), snr**2)
        bitmask = values.get("bitmask")
        observation = Observation(
            flux=flux,
            parameters=parameters_of(values, tuple(self._extra_units)),
            ivar=ivar,
            bad=None if bitmask is None else bad_pixels(bitmask, self._bad_bits),
            wavelength=self._wavelength,
        )
        stated = values.get("ra"), values.get("dec")
        meta = {**meta, "source": self._path.name}
        return Job(observation, star_id, *position(*stated), meta, (*warnings, *left_out(*stated)))


def _is_text(array: Any, stars: int) -> bool:
    """Whether an array is one text a star."""
    return array.shape == (stars,) and array.dtype.kind in "SUO"


def _unit(array: Any) -> str:
    """The unit that an HDF5 dataset states, "" where it states none."""
    unit = array.attrs.get("unit", array.attrs.get("units", "")) if isinstance(array, h5py.Dataset) else ""
    return unit.decode() if isinstance(unit, bytes) else str(unit)


def read_hdf5(path: Path) -> dict[str, h5py.Dataset]:
    """The datasets at the top of an HDF5 file. Raises InputError."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is not an HDF5 file that can be read: {error}") from error
    return {name: one for name, one in file.items() if isinstance(one, h5py.Dataset)}


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz: mapped where they are stored, read where they are compressed. Raises InputError."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if member.compress_type == zipfile.ZIP_STORED:
                    file.seek(member.header_offset + 26)  # the lengths of the name and of what follows it
                    lengths = file.read(4)
                    file.seek(sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2)), 1)
                    version = npy.read_magic(file)
                    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, fortran, dtype = header(file)
                    if dtype.hasobject:
                        raise InputError("an array has Python objects")
                    arrays[name] = np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
                else:
                    with archive.open(member) as packed:
                        arrays[name] = npy.read_array(packed, allow_pickle=False)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is not an npz that can be read: {error}") from error
    return arrays

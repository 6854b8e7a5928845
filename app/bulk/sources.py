"""Where bulk work reads stars from: a survey in HDF5, an npz, or a folder of FITS files with a table of labels.

A source is read block by block, so that memory does not grow with it. Each star comes with a digest of all that
its latent depends on, beside the model: so a star is known again wherever its source was moved.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import orjson
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.inference.embedder import Job
from app.schemas.bodies import META_BYTES
from app.settings import Settings
from app.values.columns import (
    ColumnError,
    converted,
    identifiers,
    meta_value,
    numbers,
    vacuum_angstrom,
)
from app.values.positions import left_out, position
from model.errors import ChemtwinError, InputError, ParameterError
from model.spectra.pixels import bad_pixels, ivar_of
from model.spectra.spectrum import PARAMETER_UNITS, Observation, Parameters

LABELS = tuple(PARAMETER_UNITS)
PIXELS = ("flux", "ivar", "error", "bitmask")
COORDINATES = ("ra", "dec")
HDF5 = (".h5", ".hdf5")
SURVEY_ONLY = {"twin_of", "group", "abundances"}
"""Datasets of a survey that training and evaluation read, and a catalogue does not."""

DIGEST = "digest"
"""The key of a star's `meta` under which ingest knows it again."""

OWN_META = {DIGEST, "source", "file"}
"""Keys of a star's `meta` that ingest writes itself."""

MOST_EXTRA = 20
"""Extra columns of a source that are stored in `meta` without being named."""

READING = 2
"""Part of each star's digest: it grows when the same source comes to be read otherwise."""


@dataclass(frozen=True)
class Unread:
    """A star that cannot be read, "" where its id is not known, and why."""

    star_id: str
    reason: str


@dataclass(frozen=True)
class Read:
    """A star that was read, and the digest of what was read."""

    job: Job
    digest: str


class Source(ABC):
    """Stars of a file or a folder, by number.

    `extra` names the columns beyond the known ones that are stored in each star's `meta`, `ignored` those that
    are not.
    """

    extra: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """How many stars there are."""

    @abstractmethod
    def ids(self) -> list[str]:
        """Every star's id, "" where none is known, in the order of the rows."""

    @abstractmethod
    def row_name(self, row: int) -> str:
        """How a message names a row."""

    @abstractmethod
    def read(self, rows: slice) -> list[Read | Unread]:
        """The stars of some rows."""


@dataclass(frozen=True)
class Place:
    """Where a source is: a file, or a folder with a table of `labels`; `stamp` tells a changed file.

    `meta` names the extra columns to store with each star; None stores all, if they are few.
    """

    path: Path
    labels: Path | None
    stamp: tuple[int, ...]
    meta: tuple[str, ...] | None = None

    @classmethod
    def of(cls, path: Path, labels: Path | None, meta: Sequence[str] | None = None) -> Place:
        """The place as it is now."""
        stats = [file.stat() for file in (path, labels) if file is not None]
        stamp = tuple(stat.st_mtime_ns for stat in stats)
        return cls(path.resolve(), labels and labels.resolve(), stamp, None if meta is None else tuple(meta))

    def open(self, settings: Settings, further: Mapping[str, str]) -> Source:
        """The source, for a model that is conditioned on the parameters `further` too; their units by name.

        Raises InputError.
        """
        if self.path.is_dir():
            if self.labels is None:
                raise InputError(f"{self.path} is a folder: --labels must name the table of its stars")
            from app.bulk.fits_folder import FitsFolder  # astropy's half a second, for folders only

            return FitsFolder(self, settings, further)
        if self.labels is not None:
            raise InputError(f"{self.path} is a file with labels of its own: --labels goes with a folder")
        if self.path.suffix == ".npz":
            return Arrays(self, _npz(self.path), settings, further)
        if self.path.suffix in HDF5:
            return Arrays(self, _hdf5(self.path), settings, further)
        raise InputError(f"{self.path} is neither a survey (.h5), nor an .npz, nor a folder")

    def extra(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the source's extra columns `names` that are to be stored. Raises InputError."""
        free = [name for name in names if name not in OWN_META]
        if self.meta is None:
            return tuple(free) if len(free) <= MOST_EXTRA else ()
        chosen = tuple(name.lower() if self.labels is not None else name for name in self.meta)
        if missing := [name for name in chosen if name not in free]:
            there = ", ".join(free[:40]) or "none"
            raise InputError(
                f"{self.labels or self.path} has no extra column {', '.join(missing)} of one value a star: "
                f"it has {there}"
            )
        return chosen


class Arrays(Source):
    """Arrays by name, one row per star: the datasets of a survey, or the members of an npz."""

    def __init__(
        self, place: Place, arrays: Mapping[str, Any], settings: Settings, further: Mapping[str, str]
    ) -> None:
        path = place.path
        self._path, self._arrays, self._bad_bits, self._further = path, arrays, settings.bad_bits, further
        survey = path.suffix in HDF5
        needed = {"flux", "star_id", *LABELS, *(["wavelength"] if survey else [])}
        if missing := needed - set(arrays):
            kind = "a survey" if survey else "an npz of stars"
            raise InputError(f"{path} is not {kind}: it lacks {', '.join(sorted(missing))}")
        if missing := set(further) - set(arrays):
            raise InputError(f"{path} lacks {', '.join(sorted(missing))}, one number per star")
        if {"ivar", "error"} <= set(arrays):
            raise InputError(f"{path} has ivar and error: one of them must go")
        errors = (f"{name}_err" for name in (*LABELS, *further))
        self._numeric = [n for n in (*LABELS, *further, *COORDINATES, *errors, "snr") if n in arrays]
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
                raise InputError(f"{path}: {name} holds {arrays[name].dtype}, not numbers")
        others = sorted(set(arrays) - {"star_id", "wavelength", *self._numeric, *self._pixels} - SURVEY_ONLY)
        free = [n for n in others if arrays[n].shape == shape[:1] and arrays[n].dtype.kind in "SUOiufb"]
        self.extra = place.extra(free)
        self.ignored = tuple(name for name in others if name not in self.extra)
        self._wavelength = self._in_angstrom() if "wavelength" in arrays else None
        self._common = hashlib.sha256(repr((READING, settings.keep_spectra, settings.bad_bits)).encode())
        if self._wavelength is not None:
            self._common.update(self._wavelength.tobytes())

    def _in_angstrom(self) -> NDArray[np.float64]:
        """The common wavelengths (P,). Raises InputError."""
        held = self._arrays["wavelength"]
        pixels = self._arrays["flux"].shape[1]
        if held.shape != (pixels,) or held.dtype.kind not in "iuf":
            raise InputError(
                f"{self._path}: wavelength has shape {held.shape} and holds {held.dtype}; it must be {pixels} "
                "numbers, the same for all stars"
            )
        try:
            return vacuum_angstrom(np.asarray(held[:], np.float64), _unit(held))
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
            return converted(name, found, unit, self._further.get(name.removesuffix("_err")))
        except ColumnError as error:
            raise InputError(f"{self._path}: {error}") from None

    def read(self, rows: slice) -> list[Read | Unread]:
        """The stars of some rows."""
        raw = {
            name: np.ascontiguousarray(self._arrays[name][rows])
            for name in ("flux", *self._numeric, *(name for name in self._pixels if name != "flux"))
        }
        flux = raw["flux"]
        labels = {name: self._column(name, raw[name]).tolist() for name in self._numeric}
        extra = {name: self._arrays[name][rows].tolist() for name in self.extra}
        content = {
            name: column.view(np.uint8).reshape(len(flux), -1) for name, column in raw.items() if name != "flux"
        }
        exact = flux.astype(np.float64)
        stars: list[Read | Unread] = []
        for row, star_id in enumerate(self._ids(rows)):
            values = {name: column[row] for name, column in labels.items()}
            values |= {name: raw[name][row] for name in self._pixels}
            try:
                meta = extra_meta({name: column[row] for name, column in extra.items()})
                check_id(star_id)
                job = self._job(star_id, exact[row], values, meta)
            except ChemtwinError as error:
                stars.append(Unread(star_id, f"{self.row_name(rows.start + row)}: {error}"))
                continue
            digest = self._common.copy()
            digest.update(flux[row])
            for name in sorted(content):
                digest.update(name.encode())
                digest.update(content[name][row])
            digest.update(repr(meta).encode())
            stars.append(Read(job, digest.hexdigest()[:32]))
        return stars

    def _job(
        self, star_id: str, flux: NDArray[np.float64], values: Mapping[str, Any], meta: dict[str, Any]
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
            parameters=parameters_of(values, tuple(self._further)),
            ivar=ivar,
            bad=None if bitmask is None else bad_pixels(bitmask, self._bad_bits),
            wavelength=self._wavelength,
        )
        stated = values.get("ra"), values.get("dec")
        meta = {**meta, "source": self._path.name}
        return Job(observation, star_id, *position(*stated), meta, left_out(*stated))


def check_id(star_id: str | None) -> None:
    """Raise ParameterError for an id that is missing."""
    if not star_id:
        raise ParameterError("missing_star_id", "star_id is missing")


def parameters_of(values: Mapping[str, float], further: Sequence[str]) -> Parameters:
    """The labels among `values`, NaN or absent where unknown; an unknown error counts as none given.

    Raises ParameterError for a label that is unknown or impossible.
    """
    if unknown := [name for name in (*LABELS, *further) if math.isnan(values[name])]:
        raise ParameterError(
            "unknown_labels",
            f"{' and '.join(unknown)} unknown: the cell is blank, masked, NaN or a sentinel such as -9999",
        )
    errors = {
        name: error
        for name in (*LABELS, *further)
        if not math.isnan(error := values.get(f"{name}_err", math.nan)) and error >= 0
    }
    return Parameters(
        **{name: values[name] for name in LABELS},
        **{f"{name}_err": errors.get(name, 0.0) for name in LABELS},
        others={name: values[name] for name in further},
        others_err={name: errors[name] for name in further if name in errors},
    )


def extra_meta(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A star's extra columns as its `meta` has them, without unknown cells.

    Raises ParameterError for more than a star's `meta` may have.
    """
    meta = {name: value for name, cell in cells.items() if (value := meta_value(cell)) is not None}
    if len(orjson.dumps(meta)) > META_BYTES:
        raise ParameterError(
            "meta_too_long", f"the extra columns take more than {META_BYTES} bytes: choose some with --meta"
        )
    return meta


def _unit(array: Any) -> str:
    """The unit that an HDF5 dataset states, "" where it states none."""
    unit = array.attrs.get("unit", array.attrs.get("units", "")) if isinstance(array, h5py.Dataset) else ""
    return unit.decode() if isinstance(unit, bytes) else str(unit)


def _hdf5(path: Path) -> dict[str, h5py.Dataset]:
    """The datasets at the top of an HDF5 file. Raises InputError."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is not an HDF5 file that can be read: {error}") from error
    return {name: one for name, one in file.items() if isinstance(one, h5py.Dataset)}


def _npz(path: Path) -> dict[str, NDArray[Any]]:
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
                        raise InputError("an array holds objects")
                    arrays[name] = np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
                else:
                    with archive.open(member) as packed:
                        arrays[name] = npy.read_array(packed, allow_pickle=False)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is not an npz that can be read: {error}") from error
    return arrays

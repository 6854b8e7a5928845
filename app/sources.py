"""Where bulk work reads stars from: a survey in HDF5, an npz, or a folder of FITS files with a table of labels.

A source is read block by block, so that memory does not grow with it. Each star comes with a digest of all that
its latent depends on, beside the model: so a star is known again wherever its source was left.
"""

from __future__ import annotations

import hashlib
import math
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.embedder import Job, position
from app.settings import Settings
from model.errors import ChemtwinError
from model.spectrum import PARAMETER_UNITS, Observation, Parameters

LABELS = tuple(PARAMETER_UNITS)
PIXELS = ("flux", "ivar", "error", "bitmask")
COORDINATES = ("ra", "dec")
HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True)
class Unread:
    """A star that cannot be read, and why."""

    star_id: str
    reason: str


@dataclass(frozen=True)
class Read:
    """A star that was read, and the digest of what was read."""

    job: Job
    digest: str


class Source(ABC):
    """Stars of a file or a folder, by number."""

    @abstractmethod
    def __len__(self) -> int:
        """How many stars there are."""

    @abstractmethod
    def read(self, rows: slice) -> list[Read | Unread]:
        """The stars of some rows."""


@dataclass(frozen=True)
class Place:
    """Where a source is: a file, or a folder with a table of `labels`; `stamp` tells a changed file."""

    path: Path
    labels: Path | None
    stamp: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, labels: Path | None) -> Place:
        """The place as it is now."""
        stats = [file.stat() for file in (path, labels) if file is not None]
        return cls(path.resolve(), labels and labels.resolve(), tuple(stat.st_mtime_ns for stat in stats))

    def open(self, settings: Settings, further: Sequence[str]) -> Source:
        """The source, for a model conditioned on the parameters `further` too. Raises ValueError."""
        if self.path.is_dir():
            if self.labels is None:
                raise ValueError(f"{self.path} is a folder: --labels must name the table of its stars")
            return FitsFolder(self.path, self.labels, settings, further)
        if self.labels is not None:
            raise ValueError(f"{self.path} is a file with labels of its own: --labels goes with a folder")
        if self.path.suffix == ".npz":
            return Arrays(self.path, _npz(self.path), settings, further)
        if self.path.suffix in HDF5:
            return Arrays(self.path, h5py.File(self.path, "r"), settings, further)
        raise ValueError(f"{self.path} is neither a survey (.h5), nor an .npz, nor a folder")


class Arrays(Source):
    """Arrays by name, one row per star: the datasets of a survey, or the members of an npz."""

    def __init__(
        self, path: Path, arrays: Mapping[str, Any], settings: Settings, further: Sequence[str]
    ) -> None:
        self._name, self._arrays, self._bad_bits = path.name, arrays, settings.bad_bits
        survey = path.suffix in HDF5
        needed = {"flux", "star_id", *LABELS, *(["wavelength"] if survey else [])}
        if missing := needed - set(arrays):
            kind = "a survey" if survey else "an npz of stars"
            raise ValueError(f"{path} is not {kind}: it lacks {', '.join(sorted(missing))}")
        if missing := set(further) - set(arrays):
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}, one number per star")
        if {"ivar", "error"} <= set(arrays):
            raise ValueError(f"{path} has ivar and error: one of them must go")
        self._further = tuple(further)
        errors = (f"{name}_err" for name in (*LABELS, *further))
        optional = (*PIXELS, *COORDINATES, *errors, "snr")
        known = {*needed, *further, *(name for name in optional if name in arrays), "wavelength"}
        if not survey and (unknown := set(arrays) - known):
            raise ValueError(f"{path} has unknown arrays: {', '.join(sorted(unknown)[:10])}")
        self._columns = tuple(sorted(known - {"flux", "wavelength"}))
        shape = arrays["flux"].shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"{path}: flux has shape {shape}, not (stars, pixels)")
        for name in self._columns:
            expected = shape if name in PIXELS else shape[:1]
            if arrays[name].shape != expected:
                raise ValueError(f"{path}: {name} has shape {arrays[name].shape}, flux {shape}")
            if name != "star_id" and arrays[name].dtype.kind not in "biuf":
                raise ValueError(f"{path}: {name} holds {arrays[name].dtype}, not numbers")
        self._wavelength = None
        if "wavelength" in arrays:
            self._wavelength = np.asarray(arrays["wavelength"][:], np.float64)
        self._common = hashlib.sha256(repr((settings.keep_spectra, settings.bad_bits)).encode())
        if self._wavelength is not None:
            self._common.update(self._wavelength.tobytes())

    def __len__(self) -> int:
        return int(self._arrays["flux"].shape[0])

    def read(self, rows: slice) -> list[Read | Unread]:
        """The stars of some rows."""
        flux = np.ascontiguousarray(self._arrays["flux"][rows])
        columns = {name: np.ascontiguousarray(self._arrays[name][rows]) for name in self._columns}
        labels = {name: column.tolist() for name, column in columns.items() if name not in PIXELS}
        told = [
            (name.encode(), column.view(np.uint8).reshape(len(flux), -1))
            for name, column in columns.items()
            if name != "star_id"
        ]
        exact = flux.astype(np.float64)
        stars: list[Read | Unread] = []
        for row in range(len(flux)):
            values = {name: column[row] for name, column in labels.items()}
            values |= {name: columns[name][row] for name in PIXELS if name in columns}
            star_id = _text(values["star_id"])
            try:
                job = self._job(star_id, exact[row], values)
            except ChemtwinError as error:
                stars.append(Unread(star_id, str(error)))
                continue
            digest = self._common.copy()
            digest.update(flux[row])
            for name, content in told:
                digest.update(name)
                digest.update(content[row])
            stars.append(Read(job, digest.hexdigest()[:32]))
        return stars

    def _job(self, star_id: str, flux: NDArray[np.float64], values: Mapping[str, Any]) -> Job:
        ivar = values.get("ivar")
        if ivar is not None:
            ivar = ivar.astype(np.float64)
        elif "error" in values:
            error = values["error"].astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                ivar = np.where(error > 0, 1 / error**2, 0.0)
        elif math.isfinite(snr := float(values.get("snr", math.inf))):
            ivar = np.full(len(flux), snr**2)
        bitmask = values.get("bitmask")
        observation = Observation(
            flux=flux,
            parameters=_parameters(values, self._further),
            ivar=ivar,
            bad=None if bitmask is None else (bitmask & self._bad_bits) != 0,
            wavelength=self._wavelength,
        )
        ra, dec = position(*(_finite(values.get(name)) for name in COORDINATES))
        return Job(observation, star_id, ra, dec, {"source": self._name})


class FitsFolder(Source):
    """apStar and aspcapStar files with a table of labels.

    Column `file` names a star's file in the folder; without it the file is `<star_id>.fits`, or one whose name
    ends in `-<star_id>.fits`. Columns teff, logg, fe_h, and a model's further parameters, may have errors
    `<name>_err`; `ra` and `dec` go before the file's own. Without `star_id` the file says which star it is.
    """

    def __init__(self, folder: Path, labels: Path, settings: Settings, further: Sequence[str]) -> None:
        self._folder, self._settings, self._further = folder, settings, tuple(further)
        table = _table(labels)
        names = set(table.colnames)
        if missing := {*LABELS, *further} - names:
            raise ValueError(f"{labels} lacks columns {', '.join(sorted(missing))}")
        if not {"file", "star_id"} & names:
            raise ValueError(f"{labels} has neither a column file nor star_id")
        self._ids = [_text(value).strip() for value in table["star_id"]] if "star_id" in names else None
        if "file" in names:
            self._files = [_text(value).strip() for value in table["file"]]
        else:
            held = _by_star(folder)
            self._files = [held.get(star_id, f"{star_id}.fits") for star_id in self._ids or ()]
        wanted = [*COORDINATES, *(either for name in (*LABELS, *further) for either in (name, f"{name}_err"))]
        numbers = [name for name in wanted if name in names]
        self._values = {name: _numbers(table[name]) for name in numbers}

    def __len__(self) -> int:
        return len(self._files)

    def read(self, rows: slice) -> list[Read | Unread]:
        """The stars of some rows."""
        return [self._star(row) for row in range(*rows.indices(len(self)))]

    def _star(self, row: int) -> Read | Unread:
        from model.apogee import read_fits  # astropy's half a second, for folders only

        name = self._files[row]
        values = {key: float(column[row]) for key, column in self._values.items()}
        path = self._folder / name
        told = self._ids[row] if self._ids is not None else name
        if not path.resolve().is_relative_to(self._folder):
            return Unread(told, f"{name} is not in the folder")
        try:
            content = path.read_bytes()
            file = read_fits(content, self._settings.bad_bits)
            parameters = _parameters(values, self._further)
            observation = Observation(
                file.flux, parameters, file.ivar, file.bad, file.wavelength, file.normalized
            )
        except (ChemtwinError, OSError) as error:
            return Unread(told, str(error))
        star_id = self._ids[row] if self._ids is not None else file.star_id
        if star_id is None:
            return Unread(told, "the file names no star, and the table has no star_id")
        digest = hashlib.sha256(content)
        settings = self._settings
        digest.update(repr((settings.keep_spectra, settings.bad_bits, sorted(values.items()))).encode())
        meta = {"file": file.kind, "source": name}
        ra, dec = position(*(_finite(values.get(name)) for name in COORDINATES))
        if ra is None:
            ra, dec = position(file.ra, file.dec)
        job = Job(observation, star_id, ra, dec, meta, file.warnings)
        return Read(job, digest.hexdigest()[:32])


def _parameters(values: Mapping[str, Any], further: Sequence[str]) -> Parameters:
    """The labels among `values`; an error that is not known is 0."""
    errors = {name: _finite(values.get(f"{name}_err")) for name in (*LABELS, *further)}
    return Parameters(
        **{name: float(values[name]) for name in LABELS},
        **{f"{name}_err": errors[name] or 0.0 for name in LABELS},
        others={name: float(values[name]) for name in further},
        others_err={name: error for name in further if (error := errors[name]) is not None},
    )


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _numbers(column: Any) -> NDArray[np.float64]:
    """A table's column (N,) as numbers, NaN where it has none. Raises ValueError."""
    return np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan)


def _table(path: Path) -> Any:
    from astropy.table import Table  # half a second, for folders only
    from astropy.utils.exceptions import AstropyWarning

    kinds = {".csv": "ascii.csv", ".fits": "fits", ".fit": "fits", ".vot": "votable", ".xml": "votable"}
    if path.suffix not in kinds:
        raise ValueError(f"{path} is no table of labels: its name must end in {', '.join(kinds)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            return Table.read(path, format=kinds[path.suffix])
    except Exception as error:  # astropy raises nearly anything on damaged tables
        raise ValueError(f"the table {path} cannot be read: {error}") from error


def _by_star(folder: Path) -> dict[str, str]:
    """File names by every part of theirs that follows a hyphen: apStar-r5-<star_id>.fits has the star's id."""
    found = {}
    for path in sorted(folder.glob("*.fits")):
        parts = path.stem.split("-")
        found.update({"-".join(parts[first:]): path.name for first in range(len(parts))})
    return found


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz: mapped where they are stored, read where they are compressed. Raises ValueError."""
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
                        raise ValueError("an array holds objects")
                    arrays[name] = np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
                else:
                    with archive.open(member) as packed:
                        arrays[name] = npy.read_array(packed, allow_pickle=False)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not an npz that can be read: {error}") from error
    return arrays

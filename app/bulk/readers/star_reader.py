"""Stars read one block after another for bulk work, so that memory does not grow with their number.

Each star comes with a digest of all that its latent depends on, beside the model: so a star that was stored is
recognised wherever its file was moved. `app.bulk.readers.open_stars` chooses the reader of a file or folder.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.inference.embedder import OWN_META, Job
from app.schemas.bodies import META_BYTES
from app.values.identifiers_and_numbers import meta_value
from model.errors import InputError, ParameterError
from model.spectra.parameters import PARAMETER_UNITS, Parameters

LABELS = tuple(PARAMETER_UNITS)
COORDINATES = ("ra", "dec")
MOST_EXTRA = 20
"""Extra columns of a source that are stored in `meta` without being named."""

READING = 2
"""Part of each star's digest: a number that grows with every change of how files are read."""


@dataclass(frozen=True)
class RejectedStar:
    """A star that cannot be embedded, and why; its id is "" where it is not known."""

    star_id: str
    reason: str


@dataclass(frozen=True)
class ReadStar:
    """A star that was read, and the digest of what was read."""

    job: Job
    digest: str


class StarReader(ABC):
    """Stars of a file or a folder, by row.

    Attributes
    ----------
    meta_columns
        Columns beyond the known ones that are stored in each star's `meta`.
    ignored_columns
        Columns that are not stored.
    """

    meta_columns: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()

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
    def read(self, rows: slice) -> list[ReadStar | RejectedStar]:
        """The stars of some rows."""


@dataclass(frozen=True)
class InputFiles:
    """What an ingest reads.

    Attributes
    ----------
    path
        A file, or a folder.
    labels
        The table of a folder's stars.
    stamp
        When the files were last changed, in ns: a changed file is opened again.
    meta
        The extra columns to store with each star; None stores all, if they are few.
    """

    path: Path
    labels: Path | None
    stamp: tuple[int, ...]
    meta: tuple[str, ...] | None = None

    @classmethod
    def of(cls, path: Path, labels: Path | None, meta: Sequence[str] | None = None) -> InputFiles:
        """The files as they are now."""
        stats = [file.stat() for file in (path, labels) if file is not None]
        stamp = tuple(stat.st_mtime_ns for stat in stats)
        return cls(path.resolve(), labels and labels.resolve(), stamp, None if meta is None else tuple(meta))

    def meta_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the files' extra columns `names` that are to be stored. Raises InputError."""
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


def check_id(star_id: str | None) -> None:
    """Raise ParameterError for an id that is missing."""
    if not star_id:
        raise ParameterError("missing_star_id", "star_id is missing")


def parameters_of(values: Mapping[str, float], extra: Sequence[str]) -> Parameters:
    """The labels among `values`, NaN or absent where unknown; an unknown error is None.

    Raises ParameterError for a label that is unknown or impossible.
    """
    if unknown := [name for name in (*LABELS, *extra) if math.isnan(values[name])]:
        raise ParameterError(
            "unknown_labels",
            f"{' and '.join(unknown)} unknown: the cell is blank, masked, NaN or a sentinel such as -9999",
        )
    errors = {
        name: error
        for name in (*LABELS, *extra)
        if not math.isnan(error := values.get(f"{name}_err", math.nan)) and error >= 0
    }
    label_errors: dict[str, Any] = {f"{name}_err": errors.get(name) for name in LABELS}
    return Parameters(
        **{name: values[name] for name in LABELS},
        **label_errors,
        extra={name: values[name] for name in extra},
        extra_err={name: errors[name] for name in extra if name in errors},
    )


def extra_meta(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A star's extra columns for its `meta`, without unknown cells.

    Raises ParameterError for more than a star's `meta` may have.
    """
    meta = {name: value for name, cell in cells.items() if (value := meta_value(cell)) is not None}
    if len(orjson.dumps(meta)) > META_BYTES:
        raise ParameterError(
            "meta_too_long", f"the extra columns take more than {META_BYTES} bytes: choose some with --meta"
        )
    return meta

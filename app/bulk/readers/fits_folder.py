"""Stars in a folder of the survey's FITS files, with a table of their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from app.bulk.readers.label_tables import LabelTable, read_label_table
from app.bulk.readers.star_files import NoFile, StarFiles
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
from app.values.identifiers_and_numbers import NUMBER, Numbers, meta_value
from app.values.positions import FAR, apart, left_out, position
from model.errors import ChemtwinError, InputError, ParameterError
from model.spectra.apogee import STAR_BAD, read_fits
from model.spectra.spectrum import Observation
from model.spectra.star_file import StarFile, same_star, spectrum_notes

FLAGS = ("aspcapflag", "aspcapflags", "flag_bad", "starflag")
"""Columns of a table that flag a star's labels or spectrum as not to be trusted: bits, texts, truth values."""


class FitsFolderReader(StarReader):
    """The survey's FITS files with a table of labels.

    Column `file` names a star's file in the folder; without it the file is `<star_id>.fits`, or the survey's
    product of that star. Columns teff, logg, fe_h, and a model's extra parameters, may have errors
    `<name>_err`; its `ra` and `dec` replace the file's own. Without `star_id` the file says which star it is.
    """

    def __init__(self, files: InputFiles, settings: Settings, extra_units: Mapping[str, str]) -> None:
        assert files.labels is not None
        self._folder, self._settings, self._extra = files.path, settings, tuple(extra_units)
        labels = (*LABELS, *extra_units)
        numeric = (*labels, *(f"{name}_err" for name in labels), *COORDINATES)
        used = {*numeric, "file", "star_id", *FLAGS}

        def choose(names: Sequence[str]) -> set[str]:
            self.meta_columns = files.meta_columns([name for name in names if name and name not in used])
            return {*used, "apogee_id", *self.meta_columns}

        self._table: LabelTable = read_label_table(files.labels, choose)
        names = self._table.columns
        if missing := {*labels} - set(names):
            there = ", ".join(self._table.names[:40])
            raise InputError(f"{files.labels} lacks columns {', '.join(sorted(missing))}: it has {there}")
        if not {"file", "star_id"} & set(names):
            raise InputError(f"{files.labels} has neither a column file nor star_id")
        self.meta_columns = tuple(name for name in self.meta_columns if name in names)
        self.ignored_columns = tuple(
            name for name in self._table.names if name not in {*used, *self.meta_columns}
        )
        self._ids, self._names = self._table.identifiers("star_id"), self._table.identifiers("file")
        self._numbers: dict[str, Numbers] = {
            name: self._table.numbers(name, extra_units.get(name.removesuffix("_err")))
            for name in numeric
            if name in names
        }
        self._designations = self._table.identifiers("apogee_id")
        self._files = StarFiles.of(files.path)

    def __len__(self) -> int:
        return len(self._table)

    def ids(self) -> list[str]:
        """Every star's id, by the table, or else by its file."""
        return [self._id(row) for row in range(len(self))]

    def row_name(self, row: int) -> str:
        """The row of the table, or the line of a CSV."""
        return self._table.row_name(row)

    def _id(self, row: int) -> str:
        if self._ids is not None:
            return self._ids[row] or ""
        try:
            return self._file(self._path(row))[1].star_id or ""
        except (NoFile, ChemtwinError, OSError):
            return ""

    def _path(self, row: int) -> str:
        """The path of a row's file in the folder. Raises NoFile."""
        if self._names is None:
            assert self._ids is not None
            return self._files.of_star(self._ids[row] or "")
        name = self._names[row]
        if name is None:
            raise NoFile("the column file is blank")
        return self._files.named(name)

    def _file(self, path: str) -> tuple[bytes, StarFile]:
        """A file's bytes, and what it says of its star. Raises ChemtwinError or OSError."""
        content = (self._folder / path).read_bytes()
        return content, read_fits(content, self._settings.bad_bits)

    def read(self, rows: slice) -> list[ReadStar | RejectedStar]:
        """The stars of some rows."""
        return [self._star(row) for row in range(*rows.indices(len(self)))]

    def _star(self, row: int) -> ReadStar | RejectedStar:
        star_id = self._ids[row] if self._ids is not None else None
        try:
            return self._read(row, star_id)
        except (NoFile, ChemtwinError, OSError) as error:
            return RejectedStar(star_id or "", f"{self.row_name(row)}: {error}")

    def _read(self, row: int, star_id: str | None) -> ReadStar:
        """Raises NoFile, ChemtwinError or OSError."""
        if row in self._table.damaged:
            raise ParameterError("damaged_row", self._table.damaged[row])
        if self._ids is not None:
            check_id(star_id)
            self._check_designation(row, star_id or "")
        wrong = [f"{name} {column.wrong[row]}" for name, column in self._numbers.items() if row in column.wrong]
        if wrong:
            raise ParameterError("bad_labels", "; ".join(wrong))
        values = {name: float(column.values[row]) for name, column in self._numbers.items()}
        parameters = parameters_of(values, self._extra)
        meta = extra_meta({name: self._table.columns[name].values[row] for name in self.meta_columns})
        path = self._path(row)
        content, file = self._file(path)
        star_id = star_id or file.star_id
        check_id(star_id)
        assert star_id is not None
        if file.star_id is not None and not same_star(star_id, file.star_id):
            raise ParameterError("another_star", f"{path} is of {file.star_id}, another star")
        observation = Observation(file.flux, parameters, file.ivar, file.bad, file.wavelength, file.normalized)
        digest = hashlib.sha256(content)
        settings = self._settings
        digest.update(repr((READING, settings.bad_bits)).encode())
        digest.update(repr((sorted(values.items()), meta)).encode())
        own = position(*(values.get(name) for name in COORDINATES))
        of_file = position(file.ra, file.dec)
        job = Job(
            observation,
            star_id,
            *(of_file if own[0] is None else own),
            {**meta, "file": file.kind, "source": path},
            (
                *file.notes_of(()),
                *file.disagreements(values),
                *left_out(values.get("ra"), values.get("dec")),
                *self._warnings(row, own, of_file),
            ),
        )
        return ReadStar(job, digest.hexdigest()[:32])

    def _check_designation(self, row: int, star_id: str) -> None:
        """Raise ParameterError where the table has two ids of a row that are of different stars."""
        other = None if self._designations is None else self._designations[row]
        if other is not None and not same_star(star_id, other):
            raise ParameterError("another_star", f"apogee_id {other} is another star than star_id {star_id}")

    def _warnings(
        self, row: int, own: tuple[float | None, float | None], of_file: tuple[float | None, float | None]
    ) -> list[str]:
        """What is strange about a row's labels and its file, beside the table's own position and the file's."""
        found = []
        degrees = apart(own, of_file)
        if degrees > FAR:
            found.append(f"the table's position is {degrees:.2g} degrees from the file's: is it another star?")
        for name in FLAGS:
            if name in self._table.columns:
                found += _flag_warnings(name, meta_value(self._table.columns[name].values[row]))
        return found


def _flag_warnings(name: str, flags: Any) -> tuple[str, ...]:
    """What a flag of the table says against a star: bits, as a number or as text, or a truth value."""
    text = str(flags).strip()
    bits = max(0, int(float(text))) if NUMBER.match(text) else 0
    if name == "starflag":
        return spectrum_notes(bits, "the table's STARFLAG")
    if name == "flag_bad":
        distrusted = text.lower() == "true" or bits == 1
    else:
        distrusted = bool(bits & STAR_BAD) or "STAR_BAD" in text
    return (f"the table's {name} says that the pipeline does not trust these labels",) if distrusted else ()

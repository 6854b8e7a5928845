"""The report of an ingest: a CSV file of the stars to look at."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Literal, Self

from model.errors import InputError

SHOWN = 20
"""How many stars that failed are named on the screen; the report lists all."""

Outcome = Literal["stored", "replaced", "already stored", "refused", "repeated"]
FAILED = ("refused", "repeated")


@dataclass(frozen=True)
class Note:
    """A star to be looked at: its outcome, whether it is in the model's domain, and what is wrong or odd.

    `star_id` is "" where it is not known.
    """

    star_id: str
    outcome: Outcome
    in_domain: bool | None
    text: str

    def __str__(self) -> str:
        return f"{self.star_id}: {self.text}" if self.star_id else self.text


HEADER = [field.name for field in fields(Note)]


class ReportFile:
    """The file that lists notes. It replaces an earlier report, and no other file.

    It is written under another name and renamed at the end, so that several ingests can write it.
    """

    def __init__(self, path: Path) -> None:
        """Raises InputError where `path` exists and is no report of an ingest."""
        if path.exists() and not _is_report(path):
            raise InputError(f"{path} exists and is no report of an ingest: name another file with --report")
        self._path, self._partial = path, path.with_name(f".{path.name}.{os.getpid()}")
        self.count, self.failed = 0, list[Note]()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(HEADER)
        return self

    def write(self, notes: Sequence[Note]) -> None:
        """Add notes; the first `SHOWN` of stars that failed are in `failed`."""
        self._rows.writerows(map(astuple, notes))
        self.count += len(notes)
        failed = (note for note in notes if note.outcome in FAILED)
        self.failed += islice(failed, SHOWN - len(self.failed))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().rstrip(b"\r\n") == ",".join(HEADER).encode()

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
"""Stars that failed and are named on the screen; the others are counted, and listed in the report."""

Outcome = Literal["stored", "replaced", "already there", "refused", "repeated"]
FAILED = ("refused", "repeated")


@dataclass(frozen=True)
class Note:
    """A star to be looked at: what became of it, if the model knows such stars, and what is wrong or odd.

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
    """The file that lists notes. It takes the place of an earlier report, and of nothing else.

    It is written under another name and renamed at the end, so several ingests do not meet in it.
    """

    def __init__(self, path: Path) -> None:
        """Raises InputError where `path` is there and is no report of an ingest."""
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
        """Add notes; the first `SHOWN` of stars that failed stay in `failed`."""
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

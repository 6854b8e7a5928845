"""Small tables that a user writes by hand or exports: known pairs, stars to compare, published labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import InputError

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Line:
    """One line of a table: its `number` in the file, and its `cells` by column."""

    number: int
    cells: dict[str, str]

    def number_of(self, column: str, path: Path) -> float:
        """The number in a column. Raises InputError naming the line of anything else in `path`."""
        try:
            return float(self.cells[column])
        except ValueError:
            text = self.cells[column]
            raise InputError(f"{path}, line {self.number}: {column} is {text!r}, no number") from None


def read_csv(path: Path, columns: Sequence[str]) -> list[Line]:
    """The lines of a CSV file that has `columns`, named in its first line.

    Values are separated by commas, semicolons or tabs. A byte order mark, spaces around values, the case of
    column names, empty lines and lines that begin with # do not matter; a missing value is empty.

    Raises
    ------
    InputError
        For a file that is not UTF-8 text, or without one of the columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), 1) if not line.startswith("#")]
    header = numbered[0][1] if numbered else ""
    reader = csv.reader((line for _, line in numbered), delimiter=max(DELIMITERS, key=header.count))
    names = [name.strip().lower() for name in next(reader, [])]
    if missing := sorted({name.lower() for name in columns} - set(names)):
        raise InputError(f"{path} lacks the columns {', '.join(missing)} in its first line")
    found = []
    for cells in reader:
        values = [cell.strip() for cell in cells] + [""] * (len(names) - len(cells))
        if any(values):
            cells_of = dict(zip(names, values, strict=False))
            line = {name: cells_of[name.lower()] for name in columns}
            found.append(Line(numbered[reader.line_num - 1][0], line))
    return found

"""Columns of flags in an archive's table, and the bits or words in them that exclude a star of a survey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from app.bulk.readers.label_tables import LabelTable
from app.values.identifiers_and_numbers import NUMBER, Values, meta_value
from model.errors import InputError
from model.spectra.apogee import STAR_BAD
from model.spectra.star_file import SPECTRUM_FLAGS

ChosenFlags: TypeAlias = "tuple[tuple[str, tuple[str, ...]], ...] | None"
"""Flags by column, in lower case: bits by number, words of flags written as text. None are the usual ones."""

SPECTRUM_BITS = tuple(map(str, SPECTRUM_FLAGS))
USUAL = (
    ("aspcapflag", (str(STAR_BAD.bit_length() - 1),)),
    ("aspcapflags", ("STAR_BAD",)),
    ("flag_bad", ("0",)),
    ("starflag", SPECTRUM_BITS),
    ("spectrum_flags", SPECTRUM_BITS),
)
"""A truth value is bit 0."""

TRUTHS = "true", "false"
NONE = "none"


def chosen_flags(given: Sequence[str]) -> ChosenFlags:
    """The flags that the options `given` name: COLUMN:BIT,BIT,... each, or `none`.

    Raises InputError for an option of another form.
    """
    if not given:
        return None
    if list(given) == [NONE]:
        return ()
    found: dict[str, tuple[str, ...]] = {}
    for one in given:
        column, colon, bits = one.partition(":")
        name, flags = column.strip().lower(), tuple(bit.strip() for bit in bits.split(",") if bit.strip())
        if not (colon and name and flags):
            raise InputError(f"--flags {one}: give COLUMN:BIT,BIT,... such as ASPCAPFLAG:23, or none")
        found[name] = (*found.get(name, ()), *flags)
    return tuple(found.items())


def flag_columns(chosen: ChosenFlags) -> set[str]:
    """The columns that flags are read from, where a table has them."""
    return {name for name, _ in (USUAL if chosen is None else chosen)}


class Flags:
    """The flags of a table's stars.

    Raises InputError where a column that was chosen is not there, or cannot have the flags chosen. Of the usual
    ones those are read that are there.
    """

    def __init__(self, table: LabelTable, chosen: ChosenFlags) -> None:
        if missing := [name for name, _ in chosen or () if name not in table.columns]:
            there = ", ".join(table.names[:40])
            raise InputError(
                f"{table.path} has no column {', '.join(missing)}, which --flags names: it has {there}"
            )
        used = [(name, flags) for name, flags in (USUAL if chosen is None else chosen) if name in table.columns]
        self.used = dict(used)
        self._columns = {name: table.columns[name].values for name in self.used}
        for name, flags in chosen or ():
            if problem := _problem(self._columns[name], flags):
                raise InputError(f"--flags {name.upper()}:{','.join(flags)}: {problem}")

    def of(self, row: int) -> str:
        """Which of the flags are set in a row; "" for none."""
        found = []
        for name, values in self._columns.items():
            if bits := _set(meta_value(values[row]), self.used[name]):
                found.append(f"{name.upper()} has {', '.join(bits)} set")
        return "; ".join(found)


def _problem(values: Values, flags: Sequence[str]) -> str:
    """Why a column of these values (N,) cannot have some flags; "" where it can."""
    cells = values.tolist() if isinstance(values, np.ndarray) else values
    texts = {str(cell): _number(str(cell)) for one in set(cells) if (cell := meta_value(one)) is not None}
    words = [text for text, number in texts.items() if number is None]
    if no_bits := [flag for flag in flags if not flag.isdigit()] if texts and not words else []:
        return f"the column has numbers, and {no_bits[0]!r} is the number of no bit"
    bits = [int(flag) for flag in flags if flag.isdigit()]
    if not bits:
        return ""
    if words:
        return f"the column has text such as {words[0][:40]!r}, so flags are words, not numbers of bits"
    if fractions := [text for text, number in texts.items() if number is not None and number % 1]:
        return f"the column has {fractions[0]}, and bits are those of whole numbers"
    truths = bool(texts) and all(text.lower() in TRUTHS for text in texts)
    highest = 0 if truths else _highest_bit(values)
    if beyond := [str(bit) for bit in bits if bit > highest]:
        return f"the column has bits 0 to {highest}, not {', '.join(beyond)}"
    return ""


def _highest_bit(values: Values) -> int:
    """The highest bit of a column's numbers, without the sign."""
    kind = values.dtype if isinstance(values, np.ndarray) else np.dtype(np.int64)
    return 8 * kind.itemsize - (2 if kind.kind == "i" else 1) if kind.kind in "iu" else 62


def _number(text: str) -> float | None:
    """A cell as a number, 1 and 0 for truth values; None for words."""
    if text.lower() in TRUTHS:
        return float(text.lower() == "true")
    return float(text) if NUMBER.match(text) else None


def _set(value: Any, flags: Sequence[str]) -> list[str]:
    """Those of some flags that a cell has set: bits of a number, or words of a text."""
    text = str(value).strip()
    number = _number(text)
    if number is None:
        words = text.replace("|", ",").replace(" ", ",").split(",")
        return [flag for flag in flags if flag in words]
    bits = max(0, int(text) if text.isdigit() else int(number))
    return [f"bit {flag}" for flag in flags if flag.isdigit() and bits >> int(flag) & 1]

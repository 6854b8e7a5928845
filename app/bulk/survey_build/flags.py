"""Columns of flags in an archive's table, and the bits or words in them that exclude a star of a survey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.bulk.readers.label_tables import LabelTable
from app.values.identifiers_and_numbers import NUMBER, meta_value
from model.errors import InputError
from model.spectra.apogee import STAR_BAD
from model.spectra.star_file import SPECTRUM_FLAGS

SPECTRUM_BITS = tuple(map(str, SPECTRUM_FLAGS))
DEFAULT: Mapping[str, tuple[str, ...]] = {
    "aspcapflag": (str(STAR_BAD.bit_length() - 1),),
    "aspcapflags": ("STAR_BAD",),
    "flag_bad": ("0",),
    "starflag": SPECTRUM_BITS,
    "spectrum_flags": SPECTRUM_BITS,
}
"""By column, in lower case: bits by number, words of flags written as text. A truth value is bit 0."""

NONE = "none"


def chosen_flags(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The flags that the options `given` name: COLUMN:BIT,BIT,... each, or `none`.

    Raises InputError for an option of another form.
    """
    if not given:
        return dict(DEFAULT)
    if list(given) == [NONE]:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for one in given:
        column, colon, bits = one.partition(":")
        names = tuple(bit.strip() for bit in bits.split(",") if bit.strip())
        if not (colon and column.strip() and names):
            raise InputError(f"--flags {one}: give COLUMN:BIT,BIT,... such as ASPCAPFLAG:23, or none")
        found[column.strip().lower()] = names
    return found


class Flags:
    """The flags of a table's stars. Raises InputError where a column that was asked for is not there."""

    def __init__(self, table: LabelTable, chosen: Mapping[str, tuple[str, ...]]) -> None:
        absent = [name for name in chosen if name not in table.columns]
        if missing := [name for name in absent if chosen[name] != DEFAULT.get(name)]:
            raise InputError(f"{table.path} has no column {', '.join(missing)}, which --flags names")
        self._columns = {name: table.columns[name].values for name in chosen if name in table.columns}
        self._chosen = chosen
        self.used = {name: chosen[name] for name in self._columns}

    def of(self, row: int) -> str:
        """Which of the flags are set in a row; "" for none."""
        found = []
        for name, values in self._columns.items():
            if bits := _set(meta_value(values[row]), self._chosen[name]):
                found.append(f"{name.upper()} has {', '.join(bits)} set")
        return "; ".join(found)


def _set(value: Any, flags: Sequence[str]) -> list[str]:
    """Those of some flags that a cell has set: bits of a number, or words of a text."""
    text = str(value).strip()
    if value is True or text.lower() == "true":
        text = "1"
    if not NUMBER.match(text):
        words = text.replace("|", ",").replace(" ", ",").split(",")
        return [flag for flag in flags if flag in words]
    number = max(0, int(float(text)))
    return [f"bit {flag}" for flag in flags if flag.isdigit() and number >> int(flag) & 1]

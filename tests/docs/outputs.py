"""What code prints, against what a page shows below it: the same words, and the same numbers within a tolerance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from tests.docs.blocks import Block

TOLERANCE = 0.05
"""Relative, of numbers with a decimal point and of percentages; or one unit of the last digit, if that is larger."""

MACHINE = re.compile(r"(?<=Python )[\d.]+|(?<=torch )[\d.]+(?:\+\w+)?|\b[\d.]+(?= m?s\b| GiB free)")
"""What differs from machine to machine."""

VERSION = re.compile(r"(?<=@)[0-9a-f]{12}\b")
"""The version of a model."""

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*(?:e[-+]?\d+)?(?!\.?\w)|\d+(?=%))")
"""A number that a small change may move: no integer, no part of a name, an address or a version."""

RULE = re.compile(r"-{3,}")
BRACKET = re.compile(r"\s*([\[\]])\s*")


def stale(printed: str, shown: str) -> bool:
    """Whether a page has to be written anew: something differs that is not of the machine or of alignment."""
    return MACHINE.sub("*", printed).split() != MACHINE.sub("*", shown).split()


def words(text: str) -> str:
    """All that must be equal: the text without its numbers, on one line, without the alignment of columns."""
    for pattern, sign in (
        (MACHINE, "*"),
        (VERSION, "*"),
        (NUMBER, "#"),
        (RULE, "---"),
        (BRACKET, r"\1"),
    ):
        text = pattern.sub(sign, text)
    return " ".join(text.split())


def numbers(text: str) -> Iterator[tuple[float, float]]:
    """Each number of the text, and one unit of its last digit."""
    for number in NUMBER.findall(MACHINE.sub("*", text)):
        exact = Decimal(f"{number}0" if number.endswith(".") else number)
        exponent = exact.as_tuple().exponent
        assert isinstance(exponent, int)
        yield float(exact), 10.0**exponent


def difference(printed: str, shown: str) -> str:
    """In what the text that was printed is not the text that is shown; empty where it is the same."""
    if words(printed) != words(shown):
        return "other words"
    for (now, _), (then, unit) in zip(numbers(printed), numbers(shown), strict=True):
        if abs(now - then) > 1.001 * max(unit, TOLERANCE * abs(then)):  # 1.001: 0.2 - 0.1 is not 0.1
            return f"{now:g} is not {then:g}"
    return ""


def compare(printed: str, shown: str) -> None:
    """Fail where what was printed is not what is shown."""
    found = difference(printed, shown)
    assert not found, f"{found}\nprinted:\n{printed}\nshown (`make docs-outputs` writes it):\n{shown}"


def compare_or_write(page: Path, block: Block, printed: str, write: bool) -> None:
    """Compare what a block printed with what the page shows below it, or write it there."""
    assert block.output is not None
    if write and stale(printed, block.output):
        stripped = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
        above = f"{block.text}```\n\n```text\n"
        before, found, after = page.read_text().partition(f"{above}{block.output}```")
        assert found, f"{page.name} shows no output right below the block in line {block.line}"
        page.write_text(f"{before}{above}{stripped}```{after}")
    elif not write:
        compare(printed, block.output)

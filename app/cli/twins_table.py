"""The table of a star's twins as `chemtwin twins` prints it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from index.stores.star import Star


class Column(NamedTuple):
    """A column: its name, its unit, the text of a twin, and whether that is words and not a number."""

    name: str
    unit: str
    text: Callable[[dict[str, Any]], str]
    words: bool = False


def twins_table(star: Star, response: dict[str, Any]) -> str:
    """Lines of text: the star, what was searched, a row for each twin, and what the verdicts say.

    Parameters
    ----------
    star
        The star, with an empty `star_id` if it has none.
    response
        The response of /twins.
    """
    model, twins = response["model"], response["twins"]
    name, fe_h = star.star_id or "the spectrum", _with_error(star.fe_h, star.fe_h_err)
    domain = "" if star.in_domain else f", {OUTSIDE} the model's domain"
    snr = f"S/N {_number(star.snr, 0)}{domain}"
    limit = response["fe_h_within"]
    near = "" if limit is None else f" within {limit:.2f} dex in [Fe/H]"
    whom = f"among {response['searched']} stars" + (f", those{near}" if near else "")
    lines = [
        f"twins of {name} {whom}, by {model['name']}@{model['version']}",
        f"the star: Teff {star.teff:.0f} K, log g {star.logg:.2f}, [Fe/H] {fe_h}, {snr}",
    ]
    if not response["searched"]:
        return "\n".join([*lines, "the catalogue is empty: chemtwin catalogue ingest fills it"])
    if not twins:
        return "\n".join([*lines, f"the catalogue has no other star{near} that passes the filters"])
    columns = [column for column in COLUMNS if column.name not in OPTIONAL or _known(column, twins)]
    rows = [[column.text(twin) for column in columns] for twin in twins]
    head = [[column.name for column in columns], [column.unit for column in columns]]
    lines += ["", *_aligned([*head, *rows], [column.words for column in columns]), ""]
    verdicts = {twin["verdict"] for twin in twins}
    return "\n".join(
        [*lines, *(f"{verdict}: {means}" for verdict, means in MEANING.items() if verdict in verdicts)]
    )


def _aligned(rows: Sequence[Sequence[str]], words: Sequence[bool]) -> list[str]:
    """Lines of text: words on the left of their column, numbers on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in rows
    ]


def _domain(twin: dict[str, Any]) -> str:
    return INSIDE if twin["in_domain"] else OUTSIDE


def _known(column: Column, twins: Sequence[dict[str, Any]]) -> bool:
    return any(column.text(twin) not in (UNKNOWN, INSIDE) for twin in twins)


def _number(value: float | None, decimals: int) -> str:
    return UNKNOWN if value is None else f"{value:z.{decimals}f}"


def _p_same(twin: dict[str, Any]) -> str:
    """In brackets where it does not count."""
    text = _fraction(twin["p_same"])
    return f"({text})" if twin["verdict"] == CANNOT_TELL and twin["p_same"] is not None else text


def _fraction(value: float | None) -> str:
    """Three decimals, but no number that is rounded to 0 or 1."""
    if value is None:
        return UNKNOWN
    if value < 0.001:
        return f"{value:.1e}"
    return "> 0.999" if 0.9995 <= value < 1 else f"{value:.3f}"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:z.2f}" + ("" if error is None else f" \N{PLUS-MINUS SIGN} {error:.2f}")


UNKNOWN, INSIDE, OUTSIDE, CANNOT_TELL = "-", "inside", "outside", "cannot tell"
COLUMNS = (
    Column("star_id", "", lambda twin: str(twin["star_id"]), words=True),
    Column("cluster", "", lambda twin: twin["cluster"] or UNKNOWN, words=True),
    Column("distance", "", lambda twin: _number(twin["distance"], 2)),
    Column("p_same", "", _p_same),
    Column("verdict", "", lambda twin: str(twin["verdict"]), words=True),
    Column("[Fe/H]", "dex", lambda twin: _with_error(twin["fe_h"], twin["fe_h_err"])),
    Column("Teff", "K", lambda twin: _number(twin["teff"], 0)),
    Column("log g", "dex", lambda twin: _number(twin["logg"], 2)),
    Column("S/N", "", lambda twin: _number(twin["snr"], 0)),
    Column("domain", "", _domain, words=True),
    Column("doppelganger_rate", "", lambda twin: _fraction(twin["doppelganger_rate"])),
)
OPTIONAL = {"cluster", "domain", "doppelganger_rate"}
"""Columns that are left out where no twin has a value, and that of the domain where all are inside."""

MEANING = {
    "same within noise": "p_same is 0.01 or more; noise and the errors of the labels explain the distance",
    "different": "p_same is below 0.01; noise hardly puts stars of one chemistry so far apart",
    CANNOT_TELL: (
        "one of the two is outside the domain, or came without errors; p_same, in brackets, does not count"
    ),
}
"""What the verdicts say."""

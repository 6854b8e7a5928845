"""The tables of a store: those of a new one, and the migrations that bring those of an earlier version here."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from index.stores.star import FLAG, TEXT, VECTOR, Table

Dialect = Literal["sqlite", "postgres"]


def new_tables(table: Table, dialect: Dialect) -> list[str]:
    """The statements that make the tables of a new store, for stars with the columns of `table`."""
    text, data, flag = (getattr(kind, dialect) for kind in (TEXT, VECTOR, FLAG))
    integer, counter, end = {
        "sqlite": ("INTEGER", "INTEGER", " WITHOUT ROWID"),
        "postgres": ("bigint", "bigint GENERATED ALWAYS AS IDENTITY", ""),
    }[dialect]
    return [
        f"CREATE TABLE stars (seq {integer} NOT NULL UNIQUE, deleted {flag} NOT NULL DEFAULT false, "
        f"{table.definitions(dialect)}){end}",
        "CREATE INDEX stars_by_position ON stars (dec, ra) WHERE dec IS NOT NULL",
        "CREATE INDEX stars_by_cluster ON stars (cluster, star_id) WHERE cluster IS NOT NULL",
        f"CREATE TABLE spectra (star_id {text} PRIMARY KEY, spectrum {data} NOT NULL)",
        f"CREATE TABLE openings (number {counter} PRIMARY KEY, token {text} NOT NULL, seq {integer} NOT NULL)",
    ]


@cache
def migrations(dialect: Dialect) -> dict[int, str]:
    """By the version that it leads to, in order: the statements of a file in `index/stores/migrations`."""
    found = sorted(
        (file.name, file.read_text(encoding="utf-8"))
        for file in (files("index") / "stores" / "migrations" / dialect).iterdir()
        if file.name.endswith(".sql")
    )
    return {int(name.partition("_")[0]): text for name, text in found}


def version(dialect: Dialect) -> int:
    """The version of this program's stores."""
    return max(migrations(dialect))

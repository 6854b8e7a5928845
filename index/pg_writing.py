"""What one write transaction does to the tables of the store in PostgreSQL, and a star as a row of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString

import numpy as np
import psycopg
from numpy.typing import NDArray

from index.rows import COLUMNS, pack, unpack
from index.store import Brief, Star

NAMES = tuple(COLUMNS.split(", "))
MARKS = ", ".join("%s::vector" if name == "latent" else "%s" for name in NAMES)
INSERT = (
    f"INSERT INTO stars (seq, deleted, {COLUMNS}) VALUES (%s, false, {MARKS}) "
    "ON CONFLICT (star_id, model) DO UPDATE SET seq = EXCLUDED.seq, deleted = false, "
    + ", ".join(f"{name} = EXCLUDED.{name}" for name in NAMES[2:])
)
DELETE = (
    "WITH old AS (SELECT star_id, model, row_number() OVER (ORDER BY star_id, model) AS place "
    "FROM stars WHERE NOT deleted AND {condition}), "
    "gone AS (UPDATE stars SET deleted = true, seq = %s + old.place, latent = NULL, covariance = NULL, "
    "meta = NULL, others = NULL, warnings = NULL, ra = NULL, dec = NULL "
    "FROM old WHERE stars.star_id = old.star_id AND stars.model = old.model RETURNING stars.model) "
    "SELECT model, count(*) FROM gone GROUP BY model"
)

Row = tuple[Any, ...]
Connection = psycopg.Connection[Row]


class Writing:
    """A write transaction under way, and what it changes in `chemtwin` and `models`."""

    def __init__(self, connection: Connection, seq: int) -> None:
        self.connection = connection
        self._seq = seq
        self._stars: Counter[str] = Counter()
        self._written: Counter[str] = Counter()

    def live(self, star_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """By star id, those of these that are there: the seq of each model's row."""
        found: dict[str, dict[str, int]] = {}
        rows = self.connection.execute(
            "SELECT star_id, model, seq FROM stars WHERE NOT deleted AND star_id = ANY(%s)", (list(star_ids),)
        )
        for star_id, model, seq in rows:
            found.setdefault(star_id, {})[model] = seq
        return found

    def insert(self, stars: Iterable[Star], live: Mapping[str, Mapping[str, int]]) -> None:
        """Write rows; `live` tells which of them are there already."""
        rows, new = [], set()
        for star in stars:
            self._seq += 1
            rows.append((self._seq, *row_of(star)))
            self._written[star.model] += 1
            if star.model not in live.get(star.star_id, ()):
                new.add((star.star_id, star.model))
        self._stars.update(model for _, model in new)
        self.connection.cursor().executemany(INSERT, rows)

    def delete(self, condition: LiteralString, values: Sequence[Any]) -> int:
        """Mark the rows that meet a condition as deleted. Returns how many."""
        rows = self.connection.execute(DELETE.format(condition=condition), (*values, self._seq)).fetchall()
        found: int = sum(count for _, count in rows)
        self._seq += found
        for model, count in rows:
            self._stars[model] -= count
            self._written[model] += count
        return found

    def delete_rows(self, rows: Sequence[tuple[str, str]]) -> None:
        """Mark the rows of these star ids and models as deleted."""
        if rows:
            ids, models = zip(*rows, strict=True)
            self.delete(
                "(star_id, model) IN (SELECT * FROM unnest(%s::text[], %s::text[]))", (list(ids), list(models))
            )

    def keep(self, spectra: Mapping[str, bytes | None]) -> None:
        """Keep these spectra, and none of the stars without."""
        cursor = self.connection.cursor()
        cursor.execute("DELETE FROM spectra WHERE star_id = ANY(%s)", (list(spectra),))
        kept = [(star_id, spectrum) for star_id, spectrum in spectra.items() if spectrum is not None]
        if kept:
            cursor.executemany("INSERT INTO spectra VALUES (%s, %s)", kept)

    def count(self) -> None:
        """Write the counters, as the transaction's last act."""
        self.connection.execute("UPDATE chemtwin SET seq = %s", (self._seq,))
        for model, written in self._written.items():
            self.connection.execute(
                "INSERT INTO models VALUES (%s, %s, %s) ON CONFLICT (model) DO UPDATE "
                "SET stars = models.stars + EXCLUDED.stars, written = models.written + EXCLUDED.written",
                (model, self._stars[model], written),
            )


def floats(data: bytes) -> NDArray[np.float32]:
    """The elements (D,) of a vector as pgvector sends it in binary."""
    return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)


def text(latent: NDArray[np.float32]) -> str:
    """A vector (D,) as pgvector reads it; single precision survives exactly."""
    return str(latent.astype(np.float32).tolist())


def row_of(star: Star) -> Row:
    """As `pack`, with the latent as text and missing numbers as NULL."""
    values = [None if isinstance(value, float) and np.isnan(value) else value for value in pack(star)]
    values[2] = text(star.latent)
    return tuple(values)


def star_of(row: Sequence[Any]) -> Star:
    """As `unpack`, of a row with its latent in binary."""
    return unpack((*row[:2], floats(row[2]).tobytes(), *row[3:]))


def brief_of(row: Row) -> Brief:
    """A row of BRIEF with its latent in binary."""
    brief = Brief._make(row)
    return brief._replace(latent=floats(brief.latent).tobytes())

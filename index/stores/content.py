"""The content of a store as a number of rows and a digest: whether rows came back as they were written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from index.errors import StoreError
from index.stores.star import Star, Table


@dataclass
class Content:
    """How many rows there are, and a digest of all their values that does not depend on their order."""

    table: Table
    rows: int = 0
    digest: int = 0

    def counting(self, rows: Iterable[tuple[Star, bytes | None]]) -> Iterator[tuple[Star, bytes | None]]:
        """The same `rows`, each counted when it is taken."""
        for star, spectrum in rows:
            values = [*self.table.pack(star), None if spectrum is None else sha256(spectrum).digest()]
            self.rows += 1
            self.digest = (self.digest + int.from_bytes(sha256(repr(values).encode()).digest())) % 2**256
            yield star, spectrum

    def check(self, rows: Iterable[tuple[Star, bytes | None]], name: str) -> None:
        """Raise StoreError unless `rows`, read back from the store `name`, have the same content."""
        found = Content(self.table)
        for _ in found.counting(rows):
            pass
        if found != self:
            raise StoreError(
                f"{name} gives back {found.rows} rows of {self.rows} written, or other values. "
                "Nothing was changed."
            )

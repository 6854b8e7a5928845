"""The survey's FITS files in a folder and its subfolders, found by their names.

Names are those of the SDSS data model; a file may be gzipped, and a link is followed.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model.spectra.star_file import DESIGNATION

ID = rf"(?P<id>{DESIGNATION}|[^-]+)"
TELESCOPE = r"(?:-(?:apo25m|apo1m|lco25m))?"
PRODUCTS = {
    "mwmStar": re.compile(rf"mwmStar-[^-]+-{ID}\Z"),
    "apStar": re.compile(rf"(?:apStar|asStar)-[^-]+{TELESCOPE}-{ID}\Z"),
    "aspcapStar": re.compile(rf"aspcapStar-[^-]+(?:-[^-]+)??-{ID}\Z"),
    "mwmVisit": re.compile(rf"mwmVisit-[^-]+-{ID}\Z"),
}
"""The products with a star's spectrum at rest, in the order in which they are preferred."""

ENDINGS = (".fits", ".fits.gz")


class NoFile(Exception):
    """No file, or not one file only, is a star's; the message says which there are."""


def without_ending(name: str) -> str | None:
    """A file's name without .fits or .fits.gz, None for another ending."""
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), None)
    return None if ending is None else name[: -len(ending)]


def product_of(bare: str) -> tuple[str, str] | None:
    """The product of `PRODUCTS` and the star's id that a bare name states; None for any other name."""
    for product, pattern in PRODUCTS.items():
        if found := pattern.match(bare):
            return product, found["id"]
    return None


@dataclass(frozen=True)
class StarFiles:
    """The FITS files below `folder`, by paths relative to it: by bare name, and by star and product."""

    folder: Path
    by_name: Mapping[str, Sequence[str]]
    by_star: Mapping[str, Mapping[str, Sequence[str]]]

    @classmethod
    def of(cls, folder: Path) -> StarFiles:
        """Look through a folder and its subfolders."""
        by_name: dict[str, list[str]] = defaultdict(list)
        by_star: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for parent, folders, files in os.walk(folder, followlinks=True):
            folders.sort()
            for file in sorted(files):
                bare = without_ending(file)
                if bare is None:
                    continue
                path = str(PurePosixPath(Path(parent, file).relative_to(folder)))
                by_name[bare].append(path)
                if (named := product_of(bare)) is not None:
                    product, star_id = named
                    by_star[star_id][product].append(path)
        return cls(folder, by_name, by_star)

    def named(self, name: str) -> str:
        """The file that a table names: by its path in the folder, or by its bare name in any subfolder.

        It may be gzipped where the name does not say so. Raises NoFile.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise NoFile(f"{name} is not in the folder")
        bare = without_ending(path.name)
        if bare is None:
            raise NoFile(f"{name} is no name of a FITS file: it must end in .fits or .fits.gz")
        found = [one for one in self.by_name.get(bare, ()) if PurePosixPath(one).parent == path.parent]
        if not found and len(path.parts) == 1:
            found = list(self.by_name.get(bare, ()))
        if exact := [one for one in found if PurePosixPath(one).name == path.name]:
            found = exact
        return self._only(found, f"no file {name} in the folder")

    def of_star(self, star_id: str) -> str:
        """The file of a star: <star_id>.fits, or else its first product in the order of `PRODUCTS`.

        Raises NoFile.
        """
        if star_id in self.by_name:
            return self._only(self.by_name[star_id], "")
        products = self.by_star.get(star_id, {})
        first = next((product for product in PRODUCTS if product in products), None)
        return self._only(
            [] if first is None else products[first],
            f"no file {star_id}.fits, nor a survey's file of that star, such as apStar-...-{star_id}.fits",
        )

    def _only(self, paths: Sequence[str], none: str) -> str:
        """The one path, links to the same file counted once. Raises NoFile."""
        if not paths:
            raise NoFile(none)
        different = {(self.folder / path).resolve(): path for path in reversed(paths)}
        if len(different) > 1:
            several = ", ".join(sorted(different.values())[:5])
            raise NoFile(f"{len(different)} files are this star's ({several}): name one in the column file")
        return next(iter(different.values()))

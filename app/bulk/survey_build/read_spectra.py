"""The spectra of one block of files, with the labels of their stars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from app.bulk.readers.array_reader import ArrayReader, read_hdf5, read_npz
from app.bulk.readers.star_files import product_of, without_ending
from app.bulk.readers.star_reader import LABELS, InputFiles, RejectedStar
from app.bulk.survey_build.inputs import Block, is_built_survey
from app.bulk.survey_build.refused import RefusedSpectrum
from app.bulk.survey_build.star_labels import StarLabels
from app.errors import Invalid
from app.inference.embedder import cluster_of
from app.settings import Settings
from app.values.identifiers_and_numbers import identifiers
from app.values.positions import position
from app.values.star_ids import check_star_id
from model.errors import ChemtwinError
from model.spectra.apogee import read_fits
from model.spectra.gzipped import MAX_UNPACKED
from model.spectra.spectrum import Observation
from model.spectra.star_file import designated_position


@dataclass(frozen=True)
class FoundSpectrum:
    """A spectrum with the labels of its star.

    Attributes
    ----------
    star_id
        The star's id in the table, or else in the file.
    row
        The star's row of the table, -1 without a table.
    observation
        The spectrum and labels.
    ra, dec
        Position in degrees; None where it is not known.
    cluster
        The star's cluster in the table, or else in the file; "" for none.
    warnings
        What is odd about the file.
    """

    star_id: str
    row: int
    observation: Observation
    ra: float | None
    dec: float | None
    cluster: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SpectrumReader:
    """Reads the spectra of a folder's blocks; the stars of `labels` that are below `min_snr` are refused."""

    folder: Path
    labels: StarLabels | None
    settings: Settings
    min_snr: float

    def read(self, block: Block) -> Iterator[tuple[str, FoundSpectrum | RefusedSpectrum]]:
        """Each spectrum of a block, by the name of its file, and its row in a file of arrays."""
        if block.rows is not None:
            name = block.files[0]
            for row, found in zip(
                range(block.rows.start, block.rows.stop), self._of_arrays(name, block.rows), strict=True
            ):
                yield f"{name}#{row}", found
            return
        for name in block.files:
            try:
                yield name, self._of_fits(name)
            except RefusedSpectrum as refused:
                yield name, refused

    def _of_fits(self, name: str) -> FoundSpectrum:
        """Raises RefusedSpectrum."""
        bare = without_ending(PurePosixPath(name).name)
        if bare is None:
            if is_built_survey(self.folder / name):
                raise RefusedSpectrum("survey", "")
            raise RefusedSpectrum("unreadable", "holds no flux of (stars, pixels)")
        assert self.labels is not None
        named = product_of(bare)
        in_name = bare if named is None else named[1]
        path = self.folder / name
        try:
            if path.stat().st_size > MAX_UNPACKED:
                raise RefusedSpectrum("unreadable", "larger than any file of one star", in_name)
            file = read_fits(path.read_bytes(), self.settings.bad_bits)
        except (ChemtwinError, OSError) as error:
            raise RefusedSpectrum("unreadable", str(error), in_name) from None
        row = self.labels.row_of(name, (file.star_id, in_name))
        star_id = self.labels.star_id(row) or file.star_id or in_name
        try:
            check_star_id(star_id)
            self.labels.check_star(row, file.star_id, name)
            parameters = self.labels.parameters(row, self.min_snr)
            observation = Observation(
                file.flux, parameters, file.ivar, file.bad, file.wavelength, file.normalized
            )
        except RefusedSpectrum as refused:
            raise RefusedSpectrum(refused.reason, refused.text, star_id, row) from None
        except Invalid as error:
            raise RefusedSpectrum("labels", str(error), star_id, row) from None
        except ChemtwinError as error:
            raise RefusedSpectrum("spectrum", str(error), star_id, row) from None
        own = position(*self.labels.position(row)), position(file.ra, file.dec), _stated(star_id)
        at = next((one for one in own if one[0] is not None), (None, None))
        odd = file.disagreements({label: parameters.value(label) for label in LABELS})
        cluster = self.labels.cluster(row)
        return FoundSpectrum(star_id, row, observation, *at, cluster, (*file.warnings, *odd))

    def _of_arrays(self, name: str, rows: slice) -> list[FoundSpectrum | RefusedSpectrum]:
        try:
            reader, table_rows = _arrays(self, name)
            stars = reader.read(rows)
        except ChemtwinError as error:
            return [RefusedSpectrum("unreadable", str(error))] * (rows.stop - rows.start)
        found: list[FoundSpectrum | RefusedSpectrum] = []
        for star, row in zip(stars, table_rows[rows], strict=True):
            if isinstance(row, RefusedSpectrum):
                found.append(row)
            elif isinstance(star, RejectedStar):
                found.append(RefusedSpectrum("spectrum", star.reason, star.star_id, row))
            else:
                job = star.job
                star_id = self.labels.star_id(row) if self.labels is not None else job.star_id or ""
                at = (job.ra, job.dec) if job.ra is not None else _stated(star_id)
                of_table = "" if self.labels is None else self.labels.cluster(row)
                cluster = of_table or cluster_of(job.meta) or ""
                found.append(FoundSpectrum(star_id, row, job.observation, *at, cluster, job.warnings))
        return found

    def row_of_array(self, star_id: str | None) -> tuple[int, dict[str, float]] | RefusedSpectrum:
        """The table's row of a star in a file of arrays, and its labels there, NaN where they are not known."""
        if self.labels is None:
            return -1, {}
        row = -1
        try:
            row = self.labels.row_of("", (star_id,))
            check_star_id(self.labels.star_id(row))
            parameters = self.labels.parameters(row, self.min_snr)
        except RefusedSpectrum as refused:
            return RefusedSpectrum(refused.reason, refused.text, star_id or "", row)
        except Invalid as error:
            return RefusedSpectrum("labels", str(error), star_id or "", row)
        values = {label: parameters.value(label) for label in LABELS}
        values |= {f"{label}_err": np.nan if (e := parameters.error(label)) is None else e for label in LABELS}
        ra, dec = self.labels.position(row)
        return row, values if np.isnan(ra) else values | {"ra": ra, "dec": dec}


@lru_cache(maxsize=1)
def _arrays(spectra: SpectrumReader, name: str) -> tuple[ArrayReader, list[int | RefusedSpectrum]]:
    """The reader of a file of arrays with the table's labels in it, and each star's row of the table.

    Raises ChemtwinError.
    """
    path = spectra.folder / name
    arrays: dict[str, Any] = dict(read_npz(path) if path.suffix == ".npz" else read_hdf5(path))
    rows: list[int | RefusedSpectrum] = []
    stars = len(arrays["flux"])
    named = "cluster" in arrays and arrays["cluster"].shape == (stars,)
    files = InputFiles.of(path, None, ("cluster",) if named else ())
    if spectra.labels is None:
        return ArrayReader(files, arrays, spectra.settings, {}), [*[-1] * stars]
    columns = {label: np.full(stars, np.nan) for label in (*LABELS, *(f"{label}_err" for label in LABELS))}
    columns |= {axis: np.array(arrays.get(axis, np.full(stars, np.nan)), np.float64) for axis in ("ra", "dec")}
    ids = identifiers("star_id", arrays["star_id"][:]) if "star_id" in arrays else [None] * stars
    for number, star_id in enumerate(ids):
        found = spectra.row_of_array(star_id)
        if isinstance(found, RefusedSpectrum):
            rows.append(found)
            continue
        rows.append(found[0])
        for label, value in found[1].items():
            columns[label][number] = value
    return ArrayReader(files, arrays | columns, spectra.settings, {}), rows


def _stated(star_id: str) -> tuple[float | None, float | None]:
    """The position that an id states."""
    return designated_position(star_id) or (None, None)

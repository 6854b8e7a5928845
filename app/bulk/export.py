"""The catalogue as a table: HDF5 and Parquet row block by row block, FITS and VOTable built whole in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.io import fits
from tqdm import tqdm

from app.formats.table_columns import Column, star_columns, table
from index.stores.sql_store import Store
from index.stores.star import Star

BLOCK = 4096


def export(store: Store, path: Path, model: str | None, units: dict[str, str], form: str) -> int:
    """Write the rows by `model`, or by every model if None, to a table at `path`; returns how many.

    `units` are those of the extra parameters that are known; `form` is one of `FORMS`. All rows are of one
    moment: one pass over them finds what columns there are, another writes them. Stored spectra are not read.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with store.snapshot() as rows:
            dimension, extra_units = 0, dict[str, str]()
            for star in rows(model):
                dimension = max(dimension, len(star.latent))
                extra_units.update(
                    {name: units.get(name, "") for name in star.extra if name not in extra_units}
                )
            blocks = _blocks(tqdm(rows(model), unit="star", desc="export", disable=None))
            count = FORMS[form](partial, star_columns(max(dimension, 1), extra_units), blocks)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _blocks(stars: Iterable[Star]) -> Iterator[list[Star]]:
    several = iter(stars)
    while block := list(islice(several, BLOCK)):
        yield block


def _hdf5(path: Path, fields: list[Column], blocks: Iterator[list[Star]]) -> int:
    count = 0
    with h5py.File(path, "w") as file:
        for field in fields:
            shape = (0, field.width) if field.width else (0,)
            kind = h5py.string_dtype() if field.dtype == "O" else field.dtype
            dataset = file.create_dataset(
                field.name, shape, kind, maxshape=(None, *shape[1:]), chunks=(BLOCK, *shape[1:])
            )
            dataset.attrs.update(description=field.description, unit=field.unit, ucd=field.ucd)
        for stars in blocks:
            for field in fields:
                dataset = file[field.name]
                dataset.resize(count + len(stars), axis=0)
                dataset[count:] = field.of(stars)
            count += len(stars)
    return count


def _parquet(path: Path, fields: list[Column], blocks: Iterator[list[Star]]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"O": pa.string(), "?": pa.bool_(), "f4": pa.float32(), "f8": pa.float64()}

    def kind(field: Column) -> Any:
        return pa.list_(kinds[field.dtype], field.width) if field.width else kinds[field.dtype]

    metadata = [{"description": f.description, "unit": f.unit, "ucd": f.ucd} for f in fields]
    schema = pa.schema(
        [pa.field(f.name, kind(f), metadata=notes) for f, notes in zip(fields, metadata, strict=True)]
    )
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for stars in blocks:
            arrays = [
                pa.FixedSizeListArray.from_arrays(pa.array(field.of(stars).ravel()), field.width)
                if field.width
                else pa.array(field.of(stars), kinds[field.dtype])
                for field in fields
            ]
            writer.write_table(pa.table(arrays, schema=schema))
            count += len(stars)
    return count


def _fits(path: Path, fields: list[Column], blocks: Iterator[list[Star]]) -> int:
    built = table(fields, [star for block in blocks for star in block])
    for name in ("star_id", "warnings", "model"):
        built[name] = np.char.encode(built[name], "ascii", "replace")
    hdu = fits.table_to_hdu(built)
    for number, field in enumerate(fields, 1):
        hdu.header[f"TUCD{number}"] = field.ucd
        hdu.header[f"TCOMM{number}"] = field.description
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return len(built)


def _votable(path: Path, fields: list[Column], blocks: Iterator[list[Star]]) -> int:
    built = table(fields, [star for block in blocks for star in block])
    built.write(path, format="votable", overwrite=True, tabledata_format="binary2")
    return len(built)


FORMS: dict[str, Callable[[Path, list[Column], Iterator[list[Star]]], int]] = {
    "h5": _hdf5,
    "parquet": _parquet,
    "fits": _fits,
    "vot": _votable,
}
WHOLE = ("fits", "vot")
"""Forms that are built in memory before they are written."""

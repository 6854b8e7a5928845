"""The catalogue as a table: HDF5 and Parquet row block by row block, FITS and VOTable built whole in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import Column as TableColumn
from astropy.table import Table
from numpy.typing import NDArray
from tqdm import tqdm

from index.store import Star, Store

BLOCK = 4096
NAN = float("nan")


@dataclass(frozen=True)
class Column:
    """A column: what it is, its unit and UCD1+ as VOTable writes them, its type, and a vector's width."""

    name: str
    description: str
    value: Callable[[Star], Any]
    unit: str = ""
    ucd: str = ""
    dtype: str = "f8"
    width: int = 0

    def of(self, stars: Sequence[Star]) -> NDArray[Any]:
        """Its values (n,), or (n, width); text as objects."""
        if not self.width:
            values = [self.value(star) for star in stars]
            return np.array([NAN if value is None else value for value in values], dtype=self.dtype)
        vectors = np.full((len(stars), self.width), np.nan, dtype=self.dtype)
        for row, star in enumerate(stars):
            vector = self.value(star)
            vectors[row, : len(vector)] = vector
        return vectors


def columns(dimension: int, further: dict[str, str]) -> list[Column]:
    """The columns of stars with latents of `dimension` at most and parameters `further`, with their units."""
    return [
        Column("star_id", "star", lambda s: s.star_id, ucd="meta.id;meta.main", dtype="O"),
        Column("teff", "effective temperature", lambda s: s.teff, "K", "phys.temperature.effective"),
        Column("logg", "log10 of surface gravity in cm/s2, dex", lambda s: s.logg, "", "phys.gravity"),
        Column("fe_h", "[Fe/H], dex", lambda s: s.fe_h, "", "phys.abund.Fe"),
        *(
            Column(name, "a parameter of the model", lambda s, n=name: s.others.get(n), unit)  # type: ignore[misc]
            for name, unit in further.items()
        ),
        Column("latent", "latent by the model", lambda s: s.latent, "", "stat.fit.param", "f4", dimension),
        Column("latent_sd", "standard deviations of latent", _sd, "", "stat.stdev", "f4", dimension),
        Column("snr", "median S/N per pixel", lambda s: s.snr, "", "stat.snr"),
        Column("chi2", "reduced chi-square of the reconstruction", lambda s: s.chi2, "", "stat.fit.chi2"),
        Column(
            "masked_fraction", "part of the pixels not used", lambda s: s.masked_fraction, "", "arith.ratio"
        ),
        Column("in_domain", "whether the model knows such stars", lambda s: s.in_domain, "", "meta.code", "?"),
        Column("warnings", "what to mind", lambda s: "; ".join(s.warnings), "", "meta.note", "O"),
        Column("ra", "right ascension (ICRS)", lambda s: s.ra, "deg", "pos.eq.ra;meta.main"),
        Column("dec", "declination (ICRS)", lambda s: s.dec, "deg", "pos.eq.dec;meta.main"),
        Column("model", "latents compare only under the same", lambda s: s.model, "", "meta.modelled", "O"),
    ]


def _sd(star: Star) -> NDArray[Any]:
    if star.covariance is None:
        return np.full(len(star.latent), np.nan)
    return np.asarray(np.sqrt(np.diag(star.covariance)))


def export(store: Store, path: Path, model: str | None, units: dict[str, str], form: str) -> int:
    """Write the rows by `model`, or by every model if None, to a table at `path`; returns how many.

    `units` are those of the further parameters that are known; `form` is one of `FORMS`.
    """
    dimension, further = 0, dict[str, str]()
    for star in _rows(store, model):
        dimension = max(dimension, len(star.latent))
        further.update({name: units.get(name, "") for name in star.others if name not in further})
    blocks = _blocks(tqdm(_rows(store, model), unit="star", desc="export", disable=None))
    partial = path.with_name(path.name + ".partial")
    try:
        count = FORMS[form](partial, columns(max(dimension, 1), further), blocks)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _rows(store: Store, model: str | None) -> Iterator[Star]:
    return (star for star, _ in store.dump() if model in (None, star.model))


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
            held = file.create_dataset(
                field.name, shape, kind, maxshape=(None, *shape[1:]), chunks=(BLOCK, *shape[1:])
            )
            held.attrs.update(description=field.description, unit=field.unit, ucd=field.ucd)
        for stars in blocks:
            for field in fields:
                held = file[field.name]
                held.resize(count + len(stars), axis=0)
                held[count:] = field.of(stars)
            count += len(stars)
    return count


def _parquet(path: Path, fields: list[Column], blocks: Iterator[list[Star]]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"O": pa.string(), "?": pa.bool_(), "f4": pa.float32(), "f8": pa.float64()}

    def kind(field: Column) -> Any:
        return pa.list_(kinds[field.dtype], field.width) if field.width else kinds[field.dtype]

    told = [{"description": f.description, "unit": f.unit, "ucd": f.ucd} for f in fields]
    schema = pa.schema(
        [pa.field(f.name, kind(f), metadata=notes) for f, notes in zip(fields, told, strict=True)]
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


def _table(fields: list[Column], blocks: Iterator[list[Star]]) -> Table:
    stars = [star for block in blocks for star in block]
    table = Table()
    for field in fields:
        values = field.of(stars)
        if field.dtype == "O":
            values = values.astype("U") if len(values) else np.zeros(0, "U1")
        table[field.name] = TableColumn(
            values, unit=field.unit or None, description=field.description, meta={"ucd": field.ucd}
        )
    return table


def _fits(path: Path, fields: list[Column], blocks: Iterator[list[Star]]) -> int:
    table = _table(fields, blocks)
    for name in ("star_id", "warnings", "model"):
        table[name] = np.char.encode(table[name], "ascii", "replace")
    hdu = fits.table_to_hdu(table)
    for number, field in enumerate(fields, 1):
        hdu.header[f"TUCD{number}"] = field.ucd
        hdu.header[f"TCOMM{number}"] = field.description
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return len(table)


def _votable(path: Path, fields: list[Column], blocks: Iterator[list[Star]]) -> int:
    table = _table(fields, blocks)
    table.write(path, format="votable", overwrite=True, tabledata_format="binary2")
    return len(table)


FORMS: dict[str, Callable[[Path, list[Column], Iterator[list[Star]]], int]] = {
    "h5": _hdf5,
    "parquet": _parquet,
    "fits": _fits,
    "vot": _votable,
}
WHOLE = ("fits", "vot")
"""Forms that are built in memory before they are written."""

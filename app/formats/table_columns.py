"""Tables of stars, twins and spectra: what their columns are, and the same table as CSV or VOTable.

Functions import astropy's tables when they first run: that takes a third of a start, and few requests need it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from index.stores.star import Star

if TYPE_CHECKING:
    from astropy.io.votable.tree import VOTableFile
    from astropy.table import Table

NAN = float("nan")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name, description
        What it is.
    value
        Its value in a row.
    unit, ucd
        Its unit and UCD1+ as VOTable writes them.
    dtype
        Its type as numpy names it, "O" for text.
    width
        Components of a vector; 0 for a scalar.
    characters
        How many characters of text a VOTable declares at least.
    """

    name: str
    description: str
    value: Callable[[Any], Any]
    unit: str = ""
    ucd: str = ""
    dtype: str = "f8"
    width: int = 0
    characters: int = 64

    def of(self, rows: Sequence[Any]) -> NDArray[Any]:
        """Its values in `rows`: (n,), or (n, width); text as objects."""
        if not self.width:
            values, unknown = [self.value(row) for row in rows], "" if self.dtype == "O" else NAN
            return np.array([unknown if value is None else value for value in values], dtype=self.dtype)
        vectors = np.full((len(rows), self.width), np.nan, dtype=self.dtype)
        for number, row in enumerate(rows):
            vector = self.value(row)
            vectors[number, : len(vector)] = vector
        return vectors


@dataclass(frozen=True)
class Fact:
    """Something that is true of a whole table."""

    name: str
    value: str | float | int | bool
    description: str
    unit: str = ""
    ucd: str = ""


STAR_ID = Column("star_id", "star", lambda s: s.star_id, ucd="meta.id;meta.main", dtype="O")
TEFF = Column("teff", "effective temperature", lambda s: s.teff, "K", "phys.temperature.effective")
LOGG = Column("logg", "log10 of surface gravity in cm/s2, dex", lambda s: s.logg, "", "phys.gravity")
FE_H = Column("fe_h", "[Fe/H], dex", lambda s: s.fe_h, "", "phys.abund.Fe")
CLUSTER = Column("cluster", "cluster or group", lambda s: s.cluster, ucd="meta.id.parent", dtype="O")
SNR = Column("snr", "median S/N per pixel", lambda s: s.snr, "", "stat.snr")


def extra_columns(extra_units: dict[str, str], of: Callable[[Any], dict[str, float]]) -> list[Column]:
    """Columns of a model's extra parameters; `of` gives their values in a row."""
    return [
        Column(name, "a parameter of the model", lambda row, n=name: of(row).get(n), unit)  # type: ignore[misc]
        for name, unit in extra_units.items()
    ]


def star_columns(latent_dim: int, extra_units: dict[str, str]) -> list[Column]:
    """The columns of stored stars.

    Parameters
    ----------
    latent_dim
        The width of the widest latent.
    extra_units
        The extra parameters of their models and their units.
    """
    return [
        STAR_ID,
        TEFF,
        LOGG,
        FE_H,
        *extra_columns(extra_units, lambda star: star.extra),
        SNR,
        Column("chi2", "reduced chi-square of the reconstruction", lambda s: s.chi2, "", "stat.fit.chi2"),
        Column(
            "masked_fraction",
            "part of the pixels not used",
            lambda s: s.masked_fraction,
            "",
            "meta.number;arith.ratio",
        ),
        Column("in_domain", "whether the model knows such stars", lambda s: s.in_domain, "", "meta.code", "?"),
        Column(
            "warnings", "what to mind", lambda s: "; ".join(s.warnings), "", "meta.note", "O", characters=256
        ),
        Column("ra", "right ascension (ICRS)", lambda s: s.ra, "deg", "pos.eq.ra;meta.main"),
        Column("dec", "declination (ICRS)", lambda s: s.dec, "deg", "pos.eq.dec;meta.main"),
        CLUSTER,
        Column(
            "model",
            "latents compare only under the same",
            lambda s: s.model,
            "",
            "meta.version;meta.software",
            "O",
        ),
        Column("latent", "latent by the model", lambda s: s.latent, "", "stat.fit.param", "f4", latent_dim),
        Column("latent_sd", "standard deviations of latent", _sd, "", "stat.stdev", "f4", latent_dim),
    ]


def _sd(star: Star) -> NDArray[Any]:
    if star.covariance is None:
        return np.full(len(star.latent), np.nan)
    return np.asarray(np.sqrt(np.diag(star.covariance)))


def table(fields: Sequence[Column], rows: Sequence[Any]) -> Table:
    """An astropy table; each column's UCD is in its `meta`."""
    from astropy.table import Column as TableColumn
    from astropy.table import Table

    made = Table()
    for field in fields:
        values = field.of(rows)
        if field.dtype == "O":
            values = values.astype("U") if len(values) else np.zeros(0, "U1")
        made[field.name] = TableColumn(
            values, unit=field.unit or None, description=field.description, meta={"ucd": field.ucd}
        )
    return made


def csv_bytes(fields: Sequence[Column], rows: Sequence[Any]) -> bytes:
    """A line of names, then a line per row; unknown values are empty, vectors one column per component."""
    names: list[str] = []
    values: list[list[Any]] = []
    for field in fields:
        column = field.of(rows)
        if field.width:
            names += [f"{field.name}_{number}" for number in range(field.width)]
            values += [_texts(component) for component in column.T]
        else:
            names.append(field.name)
            values.append(_texts(column))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*values, strict=True))
    return out.getvalue().encode()


def _texts(column: NDArray[Any]) -> list[str]:
    """Each number in the fewest digits that give it back."""
    if column.dtype.kind == "f":
        return ["" if np.isnan(value) else str(value) for value in column]
    if column.dtype.kind == "b":
        return ["true" if value else "false" for value in column]
    return [str(value) for value in column]


def votable_bytes(
    fields: Sequence[Column],
    rows: Sequence[Any],
    name: str,
    facts: Sequence[Fact] = (),
    *,
    overflow: bool = False,
    version: str = "1.4",
) -> bytes:
    """A VOTable, with a QUERY_STATUS as the Virtual Observatory's protocols want it.

    Parameters
    ----------
    fields, rows
        The table.
    name
        Its name.
    facts
        What is true of the whole table; PARAMs.
    overflow
        Whether there are more rows than these.
    version
        The version of the VOTable standard.
    """
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info, Param

    file = from_table(table(fields, rows), table_id=name)
    file.version = version
    resource = file.resources[0]
    resource.type = "results"
    resource.infos.append(Info(name="QUERY_STATUS", value="OVERFLOW" if overflow else "OK"))
    written = resource.tables[0]
    written.name = name
    for column, own in zip(written.fields, fields, strict=True):
        if own.dtype == "O":
            # bounded, or astropy reads objects, which FITS cannot store; the same whatever the rows, unless one
            # has more: clients put several responses together
            column.arraysize = f"{max(own.characters, int(column.arraysize))}*"
    for fact in facts:
        attributes = {"unit": fact.unit} if fact.unit else {}
        attributes |= {"ucd": fact.ucd} if fact.ucd else {}
        param = Param(file, name=fact.name, value=fact.value, **_datatype(fact.value), **attributes)
        param.description = fact.description
        written.params.append(param)
    return _xml(file)


def votable_error(message: str) -> bytes:
    """A VOTable that says what is wrong, as the Virtual Observatory's protocols want it."""
    from astropy.io.votable.tree import Info, Resource, VOTableFile

    file = VOTableFile(version="1.1")
    resource = Resource(type="results")
    resource.infos.append(Info(name="QUERY_STATUS", value="ERROR"))
    resource.infos.append(Info(ID="Error", name="Error", value=message))
    file.resources.append(resource)
    return _xml(file)


def _xml(file: VOTableFile) -> bytes:
    out = io.BytesIO()
    file.to_xml(out, tabledata_format="tabledata")
    return out.getvalue()


def _datatype(value: str | float | int | bool) -> dict[str, str]:
    if isinstance(value, bool):
        return {"datatype": "boolean"}
    if isinstance(value, str):
        return {"datatype": "unicodeChar", "arraysize": "*"}
    return {"datatype": "long" if isinstance(value, int) else "double"}

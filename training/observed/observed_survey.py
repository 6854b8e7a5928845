"""Writes the survey file of observed spectra: flux, inverse variance, labels with errors, groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array

UNITS = {"teff": "K", "logg": "dex", "fe_h": "dex", "ra": "deg", "dec": "deg"}


def write_observed_survey(
    path: Path,
    wavelength: Array,
    columns: Mapping[str, NDArray[Any]],
    texts: Mapping[str, Sequence[str]],
    spectra: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]],
    attributes: Mapping[str, str],
) -> None:
    """Write a survey (docs/reference/file-formats.md), whole or not at all.

    Parameters
    ----------
    path : Path
        The file to write.
    wavelength : array (P,)
        Angstrom, in vacuum.
    columns, texts : mapping
        Numbers (N,) and texts of each star, by dataset.
    spectra : iterable of (flux, ivar)
        Arrays (n, P) of the next n stars, N in all.
    attributes : mapping of str to str
        Attributes of the file.
    """
    stars = len(texts["star_id"])
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w") as file:
        file["wavelength"] = wavelength
        file["wavelength"].attrs["unit"] = "Angstrom"
        for name in ("flux", "ivar"):
            file.create_dataset(name, (stars, len(wavelength)), np.float32)
        for name, values in columns.items():
            file[name] = values
            if unit := UNITS.get(name.removesuffix("_err")):
                file[name].attrs["unit"] = unit
        for name, text in texts.items():
            file.create_dataset(name, data=list(text), dtype=h5py.string_dtype())
        file.attrs.update(attributes)
        start = 0
        for flux, ivar in spectra:
            rows = slice(start, start + len(flux))
            file["flux"][rows], file["ivar"][rows] = flux, ivar
            start = rows.stop
    partial.replace(path)

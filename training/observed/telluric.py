"""Make telluric.h5, absorption by the Earth's atmosphere as an apStar file has it.

    python -m training.observed.telluric docs/examples/apStar-r5-2M00004994+1621552.fits

The file's visits are at different velocities of the Earth: each is moved back to the Earth's frame, and their
median is taken. Source and licence are those of the file (docs/examples).
"""

from __future__ import annotations

from pathlib import Path

import click
import h5py
import numpy as np
from astropy.io import fits

from model.spectra.grid import Array, Grid
from training.surveys.observational_effects import shifted

TELLURIC = Path(__file__).with_name("telluric.h5")
HDU, COMBINED = 6, 2
"""Where an apStar file has the transmission, first for its combinations of visits, then for each visit."""

UNIT = 2**14
"""The file's number for a transmission of 1."""


def transmission_of(path: Path) -> Array:
    """Transmission (P,) of the atmosphere on the model's grid, in the Earth's frame, from an apStar file."""
    with fits.open(path) as file:
        visits = file[HDU].data[COMBINED:, Grid.apogee().apogee_pixels].astype(np.float64)
        velocity = np.array([file[0].header[f"VRAD{number + 1}"] for number in range(len(visits))])
    return np.asarray(np.median(shifted(visits, velocity, Grid.apogee().wavelength), axis=0))


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(path: Path) -> None:
    """Write telluric.h5."""
    with h5py.File(TELLURIC, "w") as file:
        file.attrs["source"] = path.name
        file.attrs["unit"] = UNIT
        values = np.round(transmission_of(path) * UNIT).astype(np.int16)
        file.create_dataset("transmission", data=values, compression="gzip", compression_opts=9)


if __name__ == "__main__":
    main()

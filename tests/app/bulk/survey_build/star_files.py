"""Folders of FITS files, each made of a real spectrum: stars of the observed giants that ship, as apStar files."""

from pathlib import Path

import h5py
import numpy as np
from astropy.io import fits

from model.spectra.grid import APOGEE_LOG_START, APOGEE_LOG_STEP
from tests.conftest import GIANTS

LABELS = ("teff", "logg", "fe_h")
COLUMNS = ("star_id", *LABELS, *(f"{name}_err" for name in LABELS))


def giants(rows: slice) -> list[dict]:
    """Datasets of some of the giants, star by star."""
    with h5py.File(GIANTS) as file:
        names = ("flux", "error", "cluster", "ra", "dec", "snr", *COLUMNS)
        found = {n: (file[n].asstr()[rows] if file[n].dtype == "O" else file[n][rows]) for n in names}
    return [{name: values[row] for name, values in found.items()} for row in range(len(found["flux"]))]


def apstar(path: Path, star_id: str, flux, error, position=(None, None)) -> Path:
    """Write an apStar file of a spectrum, scaled and tilted as raw flux is; an error of 0 marks a bad pixel."""
    primary = fits.PrimaryHDU()
    primary.header["OBJID"] = star_id
    for name, value in zip(("RA", "DEC"), position, strict=True):
        if value is not None:
            primary.header[name] = value
    slope = 300 * np.linspace(1.1, 0.9, len(flux))
    mask = np.where(error > 0, 0, 1)
    images = [
        fits.ImageHDU(flux * slope),
        fits.ImageHDU(np.where(error > 0, error, 1) * slope),
        fits.ImageHDU(mask),
    ]
    for name, value in {"CRVAL1": APOGEE_LOG_START, "CDELT1": APOGEE_LOG_STEP, "CRPIX1": 1}.items():
        images[0].header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([primary, *images]).writeto(path)
    return path


def folder_of(path: Path, stars: list[dict]) -> Path:
    """A folder with an apStar file of each star, by the name that the survey gives it."""
    for star in stars:
        apstar(path / f"apStar-r5-{star['star_id']}.fits", star["star_id"], star["flux"], star["error"])
    return path


def csv_of(path: Path, stars: list[dict], columns=COLUMNS) -> Path:
    """A table of the stars' labels."""
    lines = [",".join(columns), *(",".join(str(star[name]) for name in columns) for star in stars)]
    path.write_text("\n".join(lines) + "\n")
    return path

"""Readers of APOGEE's own files, apStar (combined visits) and aspcapStar (pseudo-normalised), and the way in to
SDSS-V's, which model/mwm.py reads.

Layout: the SDSS data model (apStar: HDU1 flux, HDU2 error, HDU3 mask, row 0 the combined spectrum;
aspcapStar: HDU1 flux, HDU2 error, HDU3 best-fitting model, HDU4 a table with the pipeline's parameters).
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from model.errors import FormatError
from model.fits_headers import sound_length
from model.grid import MAX_PIXELS, Array
from model.mwm import is_mwm, read_mwm
from model.spectrum import BAD_BITS
from model.starfile import StarFile, log_linear, number, text

METALS = 3
"""Where [M/H] stands in ASPCAP's PARAM array (Teff, logg, log vdop, [M/H], [C/M], [N/M], [alpha/M], ...)."""

FIRST_VISIT = 2
"""The row of an apStar's first visit, in the star's rest frame; before it are two combinations."""

STAR_BAD = 1 << 23
"""The bit of ASPCAPFLAG with which the pipeline disowns its own parameters."""


def read_fits(content: bytes, bad_bits: int = BAD_BITS, row: int = 0) -> StarFile:
    """Read an apStar, aspcapStar, mwmStar or mwmVisit file from its bytes.

    `bad_bits`: the bits of the pixel mask that make a pixel unusable; `row`: 0 for the combined spectrum,
    `FIRST_VISIT` and on for an apStar's visits; of a mwm file, see `read_mwm`. Raises FormatError when the
    bytes are no such file. An apStar gives no labels: those in its header are a radial-velocity template's.
    """
    if not content.startswith(b"SIMPLE  ="):
        raise FormatError("not_fits", "the body is not a FITS file (uncompressed, beginning with SIMPLE)")
    sound = content[: sound_length(content)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(io.BytesIO(sound), memmap=False, disable_image_compression=True) as hdus:
                return read_mwm(hdus, bad_bits, row) if is_mwm(hdus) else _read(hdus, bad_bits, row)
    except FormatError:
        raise
    except Exception as error:  # astropy raises nearly anything on damaged files
        raise FormatError("bad_fits", f"the FITS file cannot be read: {type(error).__name__}") from error


def _read(hdus: Any, bad_bits: int, row: int) -> StarFile:
    if len(hdus) < 4 or not all(isinstance(hdu, fits.ImageHDU) for hdu in hdus[1:4]):
        raise FormatError(
            "unknown_fits",
            "not an apStar, aspcapStar or mwmStar file: neither image extensions 1 to 3 (flux, error, mask) "
            "nor V_ASTRA and tables",
        )
    first, second, mask = (_image(hdu, row) for hdu in hdus[1:4])
    count = hdus[1].shape[0] if len(hdus[1].shape) == 2 else 1
    mask_is_integer = mask.dtype.kind in "iu"
    with np.errstate(all="ignore"):
        flux, error = first.astype(np.float64), second.astype(np.float64)
        ivar = np.where((error > 0) & np.isfinite(error) & np.isfinite(flux), 1 / error**2, 0.0)
    primary, wavelength = hdus[0].header, _wavelength(hdus[1].header, len(flux))
    if mask_is_integer:
        return StarFile(
            kind="apStar",
            flux=flux,
            ivar=ivar,
            bad=(mask.astype(np.int64) & bad_bits) != 0,
            wavelength=wavelength,
            normalized=False,
            star_id=text(primary.get("OBJID")),
            ra=number(primary.get("RA")),
            dec=number(primary.get("DEC")),
            rows=count,
        )
    labels, star_id, notes = _aspcap_labels(hdus)
    return StarFile(
        kind="aspcapStar",
        flux=flux,
        ivar=ivar,
        bad=flux == 0,
        wavelength=wavelength,
        normalized=True,
        star_id=star_id or text(primary.get("OBJ")),
        ra=number(primary.get("RA")),
        dec=number(primary.get("DEC")),
        labels=labels,
        rows=count,
        warnings=notes,
    )


def _image(hdu: Any, row: int) -> NDArray[Any]:
    """One row (n,) of an image, the only one that is read."""
    shape = hdu.shape
    if len(shape) not in (1, 2) or not 1 <= shape[-1] <= MAX_PIXELS:
        raise FormatError("unknown_fits", f"an image extension has {len(shape)} axes, not (rows, pixels)")
    rows = shape[0] if len(shape) == 2 else 1
    if not 0 <= row < rows:
        raise FormatError("no_such_row", f"an image extension has {rows} rows, none of number {row}")
    chosen: NDArray[Any] = hdu.section[row] if len(shape) == 2 else hdu.section[:]
    return chosen.astype(chosen.dtype.newbyteorder("="))


def _wavelength(header: Any, pixels: int) -> Array | None:
    """Wavelengths (n,) from a log-linear header, None where they are APOGEE's own."""
    start, step = number(header.get("CRVAL1")), number(header.get("CDELT1"))
    if start is None or step is None:
        raise FormatError("unknown_fits", "the flux extension has no CRVAL1 and CDELT1")
    return log_linear(start, step, number(header.get("CRPIX1")), pixels, "the flux extension")


def _aspcap_labels(hdus: Any) -> tuple[dict[str, float], str | None, tuple[str, ...]]:
    table = next((hdu for hdu in hdus[4:] if isinstance(hdu, fits.BinTableHDU)), None)
    if table is None or table.data is None or len(table.data) == 0:
        return {}, None, ()
    row, names = table.data[0], {name.upper() for name in table.columns.names}
    parameters = np.atleast_1d(row["PARAM"]) if "PARAM" in names else np.array([])
    notes = []

    def label(column: str, position: int) -> float | None:
        value = number(row[column]) if column in names else None
        if value is None and len(parameters) > position:
            value = number(parameters[position])
        return value

    fe_h = number(row["FE_H"]) if "FE_H" in names else None
    if fe_h is None:
        fe_h = label("M_H", METALS)
        if fe_h is not None:
            notes.append("fe_h is the file's [M/H]: it holds no [Fe/H]")
    found = {"teff": label("TEFF", 0), "logg": label("LOGG", 1), "fe_h": fe_h}
    labels = {name: value for name, value in found.items() if value is not None}
    if "ASPCAPFLAG" in names and int(row["ASPCAPFLAG"]) & STAR_BAD:
        notes.append("ASPCAPFLAG has STAR_BAD set: the pipeline does not trust these parameters")
    return labels, text(row["APOGEE_ID"]) if "APOGEE_ID" in names else None, tuple(notes)

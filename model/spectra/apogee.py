"""Read APOGEE's files: apStar (combined visits) and aspcapStar (pseudo-normalised).

Files of SDSS-V (mwmStar, mwmVisit) are recognised here and read by `model.spectra.mwm`.

Layout: the SDSS data model (apStar, and asStar of Las Campanas: HDU1 flux, HDU2 error, HDU3 mask, row 0 the
combined spectrum; aspcapStar: HDU1 flux, HDU2 error, HDU3 best-fitting model, HDU4 a table with the pipeline's
parameters). An apVisit has a row for each of three detectors, and its wavelengths are not at rest.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from model.errors import ChemtwinError, FormatError
from model.spectra.fits_headers import sound_length
from model.spectra.grid import MAX_PIXELS, Array
from model.spectra.gzipped import MAX_UNPACKED, unpacked
from model.spectra.mwm import is_mwm, read_mwm
from model.spectra.pixels import bad_pixels, ivar_of
from model.spectra.spectrum import BAD_BITS
from model.spectra.star_file import StarFile, log_linear, number, spectrum_notes, text

METALS = 3
"""Index of [M/H] in ASPCAP's PARAM array (Teff, logg, log vdop, [M/H], [C/M], [N/M], [alpha/M], ...)."""

DETECTORS = 3
"""Rows of an apVisit."""

FIRST_VISIT = 2
"""The row of an apStar's first visit, in the star's rest frame; before it are two combinations."""

STAR_BAD = 1 << 23
"""The bit of ASPCAPFLAG with which the pipeline marks its own parameters as unusable."""


def read_fits(
    content: bytes, bad_bits: int = BAD_BITS, row: int = 0, most_bytes: int = MAX_UNPACKED
) -> StarFile:
    """Read an apStar, asStar, aspcapStar, mwmStar or mwmVisit file from its bytes, which may be gzipped.

    Parameters
    ----------
    content : bytes
        The file's content.
    bad_bits : int
        The bits of the pixel mask that make a pixel unusable.
    row : int
        0 for the combined spectrum, `FIRST_VISIT` and on for an apStar's visits; of a mwm file, see `read_mwm`.
    most_bytes : int
        Most bytes that a gzipped file may unpack to.

    Returns
    -------
    StarFile
        The spectrum, the labels that may be trusted, and warnings.

    Raises
    ------
    FormatError
        When the bytes are no such file.

    Notes
    -----
    An apStar gives no labels: those in its header are a radial-velocity template's.
    """
    content = unpacked(content, most_bytes)
    if not content.startswith(b"SIMPLE  ="):
        what = (
            "not a FITS file, plain (beginning with SIMPLE) or gzipped"
            if content
            else "empty: is its path right?"
        )
        raise FormatError("not_fits", f"the file or body is {what}")
    length = sound_length(content)
    if content[length:].lstrip(b"\0 ").startswith(b"SIMPLE  ="):
        raise FormatError("several_files", "two FITS files follow one another: send each by itself")
    sound = content[:length]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(io.BytesIO(sound), memmap=False, disable_image_compression=True) as hdus:
                return read_mwm(hdus, bad_bits, row) if is_mwm(hdus) else _read(hdus, bad_bits, row)
    except ChemtwinError:
        raise
    except Exception as error:  # astropy raises nearly anything on damaged files
        raise FormatError("bad_fits", f"the FITS file cannot be read: {type(error).__name__}") from error


def _read(hdus: Any, bad_bits: int, row: int) -> StarFile:
    if len(hdus) < 4 or not all(isinstance(hdu, fits.ImageHDU) for hdu in hdus[1:4]):
        raise FormatError(
            "unknown_fits",
            "not an apStar, aspcapStar or mwmStar file: neither image extensions 1 to 3 (flux, error, mask) "
            "nor V_ASTRA and tables. Send a file with one star's observed spectrum.",
        )
    flux, error, mask = (_image(hdu, row) for hdu in hdus[1:4])
    primary, wavelength = hdus[0].header, _wavelength(hdus[1], len(flux))
    ivar = np.where(np.isfinite(flux), ivar_of(error), 0.0)
    flux = flux.astype(np.float64)
    count = hdus[1].shape[0] if len(hdus[1].shape) == 2 else 1
    if _is_mask(mask):
        return StarFile(
            kind="apStar",
            flux=flux,
            ivar=ivar,
            bad=bad_pixels(mask, bad_bits),
            wavelength=wavelength,
            normalized=False,
            star_id=text(primary.get("OBJID")),
            ra=number(primary.get("RA")),
            dec=number(primary.get("DEC")),
            rows=count,
            warnings=spectrum_notes(primary.get("STARFLAG"), "STARFLAG"),
        )
    table = _Table(hdus[4:])
    labels, notes = _aspcap_labels(table)
    return StarFile(
        kind="aspcapStar",
        flux=flux,
        ivar=ivar,
        bad=flux == 0,
        wavelength=wavelength,
        normalized=True,
        star_id=text(table.value("APOGEE_ID")) or text(primary.get("OBJ")),
        ra=number(primary.get("RA")),
        dec=number(primary.get("DEC")),
        labels=labels,
        rows=count,
        warnings=spectrum_notes(table.value("STARFLAG"), "STARFLAG"),
        label_notes=notes,
    )


def _is_mask(third: NDArray[Any]) -> bool:
    """Whether the third extension (n,) is a mask, as in an apStar, or a model spectrum, as in an aspcapStar.

    Flags may be written as floating-point numbers.
    """
    if third.dtype.kind in "iu":
        return True
    finite = third[np.isfinite(third)]
    return bool(len(finite)) and bool(np.all(finite == np.round(finite)))


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


def _wavelength(flux: Any, pixels: int) -> Array | None:
    """Wavelengths (n,) from the flux extension's log-linear scale, None where they are APOGEE's own."""
    if "AWAV" in str(flux.header.get("CTYPE1", "")).upper():
        raise FormatError("air_wavelengths", "CTYPE1 says that the wavelengths are in air: convert to vacuum")
    start, step = number(flux.header.get("CRVAL1")), number(flux.header.get("CDELT1"))
    if start is None or step is None:
        if len(flux.shape) == 2 and flux.shape[0] == DETECTORS:
            raise FormatError(
                "not_at_rest",
                "an apVisit or asVisit file: one visit, by detector, and not in the star's rest frame. "
                "Send the star's apStar, asStar, mwmStar or mwmVisit file.",
            )
        raise FormatError("unknown_fits", "the flux extension has no CRVAL1 and CDELT1")
    return log_linear(start, step, number(flux.header.get("CRPIX1")), pixels, "the flux extension")


class _Table:
    """The first row of the first table among some HDUs; where there is none, it has no columns."""

    def __init__(self, hdus: Any) -> None:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
        row: Any = tables[0].data[:1] if tables and tables[0].data is not None else ()
        self._row = row[0] if len(row) else None
        self._names = {name.upper() for name in tables[0].columns.names} if len(row) else set()

    def value(self, column: str, index: int | None = None) -> Any:
        """A column's value, or element `index` of it; None where there is no such column or element."""
        value = self._row[column] if self._row is not None and column in self._names else None
        if value is None or index is None:
            return value
        elements = np.atleast_1d(value)
        return elements[index] if index < len(elements) else None


def _aspcap_labels(table: _Table) -> tuple[dict[str, float], dict[str, tuple[str, ...]]]:
    """The pipeline's labels, and warnings by label."""

    def calibrated(column: str, index: int) -> float | None:
        value = number(table.value(column))
        return number(table.value("PARAM", index)) if value is None else value

    fe_h = number(table.value("FE_H"))
    metals = calibrated("M_H", METALS) if fe_h is None else None
    found = {
        "teff": calibrated("TEFF", 0),
        "logg": calibrated("LOGG", 1),
        "fe_h": metals if fe_h is None else fe_h,
    }
    labels = {name: value for name, value in found.items() if value is not None}
    notes = {"fe_h": ["fe_h is the file's [M/H]: it holds no [Fe/H]"]} if metals is not None else {}
    flags = number(table.value("ASPCAPFLAG"))
    if flags is not None and flags >= 0 and int(flags) & STAR_BAD:
        for name in labels:
            notes.setdefault(name, []).append(
                "ASPCAPFLAG has STAR_BAD set: the pipeline does not trust these parameters"
            )
    return labels, {name: tuple(of_label) for name, of_label in notes.items()}

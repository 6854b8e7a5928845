"""Reader of SDSS-V's mwmStar and mwmVisit files (Milky Way Mapper, by the survey's package astra).

Layout: HDU0 says which star it is (SDSS_ID, APOGEEID, GAIA3_ID, RA, DEC, V_ASTRA); then a table each for BOSS
at APO, BOSS at LCO, APOGEE at APO, APOGEE at LCO, empty where the star was not observed. A row is a spectrum in
the star's rest frame: `flux`, `ivar`, `pixel_flags` (the bits of the apStar file's mask) and `snr`, on the
log-linear scale that the header's CRVAL, CDELT and NPIXELS give, or failing that the column `wavelength`.
mwmStar has a row per telescope, the combined spectrum; mwmVisit a row per visit, with `mjd`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from model.errors import FormatError
from model.spectra.grid import APOGEE_PIXELS, Array
from model.spectra.pixels import bad_pixels
from model.spectra.star_file import StarFile, log_linear, number, spectrum_notes, text

LABELS = ("teff", "logg", "fe_h")
TableRow = tuple[Any, int]
"""A table's HDU and a row of it."""


def is_mwm(hdus: Any) -> bool:
    """Whether an open FITS file is of this kind, going by its first HDU and its tables."""
    tables = [hdu for hdu in hdus[1:] if isinstance(hdu, fits.BinTableHDU)]
    return "V_ASTRA" in hdus[0].header and len(tables) == len(hdus) - 1 > 0


def read_mwm(hdus: Any, bad_bits: int, row: int) -> StarFile:
    """The APOGEE spectrum number `row` of an open file, in falling order of S/N over both observatories.

    Raises FormatError where there is no such spectrum. Labels are those of the columns `teff`, `logg` and
    `fe_h`, which a pipeline's results have and astra's mwmStar files have not: their `doppler_teff` and so on
    are of the template that fitted the radial velocity.
    """
    spectra = _spectra(hdus)
    if not spectra:
        raise FormatError("no_apogee_spectrum", "the file holds no APOGEE spectrum in the star's rest frame")
    if not 0 <= row < len(spectra):
        raise FormatError("no_such_row", f"the file has {len(spectra)} APOGEE spectra, none of number {row}")
    hdu, chosen = spectra[row]
    flux, ivar = (_pixels(hdu, chosen, name).astype(np.float64) for name in ("flux", "ivar"))
    flags = _pixels(hdu, chosen, "pixel_flags")
    if not len(flux) == len(ivar) == len(flags):
        raise FormatError("unknown_fits", "flux, ivar and pixel_flags differ in length")
    header = hdus[0].header
    visits = _has(hdu, "mjd")
    found = {name: _value(hdu, chosen, name) for name in LABELS}
    labels = {name: value for name, value in found.items() if value is not None}
    return StarFile(
        kind="mwmVisit" if visits else "mwmStar",
        flux=flux,
        ivar=np.where((ivar > 0) & np.isfinite(ivar) & np.isfinite(flux), ivar, 0.0),
        bad=bad_pixels(flags, bad_bits),  # astra writes floating point, NaN where a flag is not known
        wavelength=_wavelength(hdu, chosen, len(flux)),
        normalized=False,
        star_id=_star_id(hdus, hdu, chosen),
        ra=number(header.get("RA")),
        dec=number(header.get("DEC")),
        labels=labels,
        errors={name: error for name in LABELS if (error := _value(hdu, chosen, f"e_{name}") or 0.0) > 0},
        rows=len(spectra),
        warnings=_notes(spectra, row, visits),
        label_notes=dict.fromkeys(labels, _pipeline_notes(hdu, chosen)),
    )


def _spectra(hdus: Any) -> list[TableRow]:
    """Every usable APOGEE spectrum, highest S/N first, APO before LCO.

    Visits that are not in the stack were resampled without a radial velocity: they are not at rest.
    """
    found = [
        (hdu, row)
        for hdu in hdus[1:]
        if _is_apogee(hdu) and hdu.header.get("NAXIS2", 0) and hdu.data is not None
        for row in range(len(hdu.data))
        if not _has(hdu, "in_stack") or bool(hdu.data["in_stack"][row])
    ]
    return sorted(found, key=lambda spectrum: -(_value(spectrum[0], spectrum[1], "snr") or 0.0))


def _is_apogee(hdu: Any) -> bool:
    names = f"{hdu.header.get('INSTRMNT', '')} {hdu.header.get('EXTNAME', '')}".upper()
    return "APOGEE" in names


def _has(hdu: Any, column: str) -> bool:
    return column in {name.lower() for name in hdu.columns.names}


def _pixels(hdu: Any, row: int, column: str) -> NDArray[Any]:
    """A row (n,) of a column of spectra, in the machine's byte order."""
    if not _has(hdu, column):
        if column == "flux":
            raise FormatError(
                "no_observed_spectrum",
                "an astraStar or summary file: a pipeline's parameters and best-fitting models, without the "
                "observed spectrum. Send the star's mwmStar file, with these parameters beside it.",
            )
        raise FormatError("unknown_fits", f"the APOGEE table has no column {column}")
    values = hdu.data[column]
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise FormatError("unknown_fits", f"the column {column} does not hold spectra")
    if not 1 <= values.shape[1] <= 10 * APOGEE_PIXELS:
        raise FormatError("unknown_fits", f"the column {column} holds {values.shape[1]} pixels")
    chosen: NDArray[Any] = values[row]
    return chosen.astype(values.dtype.newbyteorder("="))


def _value(hdu: Any, row: int, column: str) -> float | None:
    return number(hdu.data[column][row]) if _has(hdu, column) else None


def _wavelength(hdu: Any, row: int, pixels: int) -> Array | None:
    """Wavelengths (n,), None where they are APOGEE's own; by the header: the column has single precision."""
    start, step = number(hdu.header.get("CRVAL")), number(hdu.header.get("CDELT"))
    if start is None or step is None:
        if not _has(hdu, "wavelength"):
            raise FormatError("unknown_fits", "the APOGEE table has neither CRVAL and CDELT nor wavelengths")
        wavelength = _pixels(hdu, row, "wavelength").astype(np.float64)
        if len(wavelength) != pixels:
            raise FormatError("unknown_fits", "flux and wavelength differ in length")
        return wavelength
    return log_linear(start, step, number(hdu.header.get("CRPIX")), pixels, "the APOGEE table")


def _star_id(hdus: Any, hdu: Any, row: int) -> str | None:
    """The APOGEE id, the catalogue's or the spectrum's own, failing that the SDSS id."""
    header = hdus[0].header
    named = [header.get("APOGEEID")]
    named += [hdu.data[name][row] for name in ("sdss4_apogee_id", "obj") if _has(hdu, name)]
    named.append(header.get("SDSS_ID"))
    return next((star_id for value in named if (star_id := text(value)) is not None), None)


def _notes(spectra: list[TableRow], row: int, visits: bool) -> tuple[str, ...]:
    hdu, chosen = spectra[row]
    notes = []
    if len(spectra) > 1 and visits:
        notes.append(f"one visit of {len(spectra)}: the mwmStar file of this star has them combined")
    elif len(spectra) > 1:
        where = text(hdu.header.get("OBSRVTRY")) or "one telescope"
        notes.append(f"one spectrum of {len(spectra)}, from {where}: the other telescope's is not used")
    if _has(hdu, "spectrum_flags"):
        notes += spectrum_notes(hdu.data["spectrum_flags"][chosen], "spectrum_flags")
    return tuple(notes)


def _pipeline_notes(hdu: Any, row: int) -> tuple[str, ...]:
    """Warnings of a pipeline's labels."""
    if _has(hdu, "flag_bad") and bool(hdu.data["flag_bad"][row]):
        return ("flag_bad is set: the pipeline does not trust these parameters",)
    return ()

"""A spectrum, recast or observed, as a FITS file: an image on a log-linear wavelength scale and a table.

The image is what specutils opens by itself (`Spectrum.read(path)`): primary HDU flux, STD its standard
deviation, MASK 1 in the gaps between detectors and in masked pixels. The table SPECTRUM holds the model's own
pixels, whatever their scale.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from app.formats.table_columns import Column, table

LOG_LINEAR = 1e-7
"""Relative difference of a wavelength from a log-linear scale up to which it is on the scale."""

UNITS = {"teff": "[K]", "logg": "[dex (cgs)]", "fe_h": "[dex]"}


def recast_fits(recast: dict[str, Any], columns: list[Column], rows: list[Any]) -> bytes:
    """The file of a recast.

    Parameters
    ----------
    recast
        The response as `app.inference.recasts` makes it.
    columns, rows
        Those of the table SPECTRUM.
    """
    return _file(recast, _recast_header(recast), columns, rows)


def observed_fits(content: dict[str, Any], columns: list[Column], rows: list[Any]) -> bytes:
    """The file of a star's observed spectrum.

    Parameters
    ----------
    content
        The response as `app.inference.spectra` makes it.
    columns, rows
        Those of the table SPECTRUM.
    """
    header = _header(content)
    for name, unit in UNITS.items():
        header[name.upper()] = (content[name], unit)
    for name, value in content.get("parameters", {}).items():
        header[f"HIERARCH {name}"] = value
    _add_warnings(header, content)
    return _file({**content, "flux_sd": content["error"]}, header, columns, rows)


def _file(spectra: dict[str, Any], header: fits.Header, columns: list[Column], rows: list[Any]) -> bytes:
    """The file of `wavelength`, `flux` and `flux_sd` (P,), the last may be None, and of a table."""
    scale = _log_scale(spectra["wavelength"])
    images = [fits.PrimaryHDU()] if scale is None else _images(spectra, *scale)
    images[0].header.update(header)
    spectrum = fits.table_to_hdu(table(columns, rows))
    spectrum.name = "SPECTRUM"
    for number, column in enumerate(columns, 1):
        spectrum.header[f"TUCD{number}"] = column.ucd
        spectrum.header[f"TCOMM{number}"] = column.description
    out = io.BytesIO()
    fits.HDUList([*images, spectrum]).writeto(out, checksum=True)
    return out.getvalue()


def _header(content: dict[str, Any]) -> fits.Header:
    """What the headers of all spectra have."""
    header = fits.Header()
    if content["star_id"] is not None:
        header["OBJECT"] = (content["star_id"], "star id")
    model = content["model"]
    header["MODEL"] = (model["name"], "model on whose pixels the spectrum is")
    header["MODELVER"] = (model["version"], "its version")
    header["METHOD"] = (model["method"], "its method")
    header["INDOMAIN"] = (content["in_domain"], "within the model's domain")
    header["VACUUM"] = (True, "wavelengths are in vacuum")
    header["SPECSYS"] = ("SOURCE", "wavelengths are in the rest frame")
    return header


def _recast_header(recast: dict[str, Any]) -> fits.Header:
    header = _header(recast)
    header["RESIDUAL"] = (recast["residual"], "the star's own residual is included")
    for what, key, comment in (
        ("from", "FR", "own parameter"),
        ("to", "TO", "recast to"),
        ("computed_at", "AT", "of the flux"),
    ):
        for name, unit in UNITS.items():
            header[f"{key}_{name.upper()}"] = (recast[what][name], f"{unit} {comment}")
        for name, value in recast[what].get("parameters", {}).items():
            header[f"HIERARCH {key}_{name}"] = value
    _add_warnings(header, recast)
    return header


def _add_warnings(header: fits.Header, content: dict[str, Any]) -> None:
    for warning in content["warnings"]:
        header.add_comment(warning.encode("ascii", "replace").decode())


def _log_scale(wavelength: NDArray[Any]) -> tuple[NDArray[np.int64], float] | None:
    """The indices of the pixels on a log-linear scale from first to last, and its step in ln lambda."""
    logs = np.log(wavelength)
    step = float(np.median(np.diff(logs)))
    indices = np.rint((logs - logs[0]) / step).astype(np.int64)
    step = float((logs[-1] - logs[0]) / indices[-1])
    on_it = np.all(np.abs(logs - logs[0] - step * indices) < LOG_LINEAR) and np.all(np.diff(indices) > 0)
    return (indices, step) if on_it else None


def _images(recast: dict[str, Any], indices: NDArray[np.int64], step: float) -> list[Any]:
    flux = fits.PrimaryHDU(_spread(recast["flux"], indices))
    mask = fits.ImageHDU(np.ones(indices[-1] + 1, dtype=np.uint8), name="MASK")
    mask.data[indices] = ~np.isfinite(recast["flux"])
    mask.header["BFORM"] = ("L", "boolean: 1 is a pixel without flux")
    images = [flux, mask]
    if recast["flux_sd"] is not None:
        images.insert(1, fits.ImageHDU(_spread(recast["flux_sd"], indices), name="STD"))
    first = float(recast["wavelength"][0])
    for image in images:
        image.header["CTYPE1"] = ("WAVE-LOG", "vacuum wavelength, logarithmic")
        image.header["CUNIT1"] = "Angstrom"
        image.header["CRPIX1"] = 1.0
        image.header["CRVAL1"] = first
        image.header["CDELT1"] = (first * step, "d lambda / d pixel at CRPIX1")
    for image in images[:-1]:
        image.header["BUNIT"] = ("", "relative to the continuum")
    return images


def _spread(values: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[np.float32]:
    spread = np.full(indices[-1] + 1, np.nan, dtype=np.float32)
    spread[indices] = values
    return spread

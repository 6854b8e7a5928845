"""A star's observed spectrum as JSON, CSV, VOTable or FITS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import Response

from app.formats.file_response import file_name, file_response, varying
from app.formats.recast_responses import FLUX, LABELS, VO_ANGSTROM, WAVELENGTH
from app.formats.table_columns import Column, Fact, csv_bytes, votable_bytes
from app.formats.table_responses import csv_facts, identity, warning_facts
from app.json_response import json_response

ERROR = Column("error", "1-sigma error of flux", lambda row: row[2], "", "stat.error;phot.flux.density", "f4")
RECONSTRUCTION = Column(
    "reconstruction", "the model's spectrum of the star", lambda row: row[3], "", "phot.flux.density", "f4"
)


def spectrum_response(form: str, content: dict[str, Any]) -> Response:
    """A stored star's spectrum, as `app.inference.spectra` makes it, in a `form` json, csv, votable or fits.

    In tables a masked pixel has no flux; every pixel has no error for a star that came without errors.
    """
    if form == "json":
        return varying(json_response(content))
    columns = [WAVELENGTH, FLUX, ERROR, RECONSTRUCTION]
    error = content["error"] if content["error"] is not None else np.full(len(content["wavelength"]), np.nan)
    spectra = (content["wavelength"], content["flux"], error, content["reconstruction"])
    rows = list(zip(*(np.asarray(spectrum).tolist() for spectrum in spectra), strict=True))
    name = file_name("spectrum", content["star_id"])
    if form == "fits":
        from app.formats.spectrum_fits import observed_fits  # astropy's sixth of a second, for such files only

        return file_response(observed_fits(content, columns, rows), form, name)
    if form == "csv":
        return file_response(csv_bytes([*columns, *csv_facts(content)], rows), form, name)
    columns[0] = replace(WAVELENGTH, unit=VO_ANGSTROM)
    facts = [
        Fact("star_id", content["star_id"], "the star", ucd="meta.id"),
        Fact("model", identity(content), "the model on whose pixels the spectrum is"),
        Fact("in_domain", content["in_domain"], "whether the model knows such stars"),
        *(Fact(name, float(content[name]), "the star's own", *known) for name, known in LABELS.items()),
        *(Fact(name, float(value), "the star's own") for name, value in content.get("parameters", {}).items()),
        *warning_facts(content),
    ]
    return file_response(votable_bytes(columns, rows, "spectrum", facts), form, name)

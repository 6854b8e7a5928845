"""A recast as JSON, CSV, VOTable, FITS or PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import Response

from app.formats.file_response import file_name, file_response, varying
from app.formats.table_columns import Column, Fact, csv_bytes, votable_bytes
from app.formats.table_responses import csv_facts, identity, warning_facts
from app.json_response import json_response

VO_ANGSTROM = "0.1nm"
"""The unit as VOTables have it: the standard's readers warn of an Angstrom by its name."""

WAVELENGTH = Column("wavelength", "vacuum wavelength, rest frame", lambda row: row[0], "Angstrom", "em.wl")
FLUX = Column("flux", "flux over the continuum", lambda row: row[1], "", "phot.flux.density;em.IR.H", "f4")

LABELS = {
    "teff": ("K", "phys.temperature.effective"),
    "logg": ("", "phys.gravity"),
    "fe_h": ("", "phys.abund.Fe"),
}
"""Unit and UCD of the parameters that every model has."""


def recast_response(form: str, content: dict[str, Any]) -> Response:
    """A recast, as `app.inference.recasts` makes it, in a `form` json, csv, votable or fits."""
    if form == "json":
        return varying(json_response(content))
    name = _name(content)
    columns = [WAVELENGTH, FLUX]
    spectra = [content["wavelength"], content["flux"]]
    if content["flux_sd"] is not None:
        noise = " and the noise" if content["residual"] else ""
        description = f"standard deviation of flux by that of the latent{noise}"
        columns.append(
            Column("flux_sd", description, lambda row: row[2], "", "stat.stdev;phot.flux.density", "f4")
        )
        spectra.append(content["flux_sd"])
    rows = list(zip(*(np.asarray(spectrum).tolist() for spectrum in spectra), strict=True))
    if form == "fits":
        from app.formats.spectrum_fits import recast_fits  # astropy's sixth of a second, for such files only

        return file_response(recast_fits(content, columns, rows), form, name)
    if form == "csv":
        return file_response(csv_bytes([*columns, *csv_facts(content)], rows), form, name)
    columns[0] = replace(columns[0], unit=VO_ANGSTROM)
    return file_response(votable_bytes(columns, rows, "recast", _facts(content)), form, name)


def recast_picture(
    own: dict[str, Any], content: dict[str, Any], detectors: Sequence[slice], extra_units: dict[str, str]
) -> Response:
    """A recast as PNG; see `app.formats.plot.recast_png`."""
    from app.formats.plot import recast_png

    return file_response(recast_png(own, content, detectors, extra_units), "png", _name(content))


def _facts(content: dict[str, Any]) -> list[Fact]:
    facts = [
        Fact("star_id", content["star_id"] or "", "the star", ucd="meta.id"),
        Fact("model", identity(content), "the model that made the spectrum"),
        Fact("in_domain", content["in_domain"], "whether the recast is within the training range"),
        Fact("residual", content["residual"], "whether the star's own residual is included"),
    ]
    for what, meaning in (("from", "the star's own"), ("to", "recast to"), ("computed_at", "of the flux")):
        for name, (unit, ucd) in LABELS.items():
            facts.append(Fact(f"{what}_{name}", float(content[what][name]), meaning, unit, ucd))
        facts += [
            Fact(f"{what}_{name}", float(value), meaning)
            for name, value in content[what].get("parameters", {}).items()
        ]
    return facts + warning_facts(content)


def _name(content: dict[str, Any]) -> str:
    """Names the star and the parameters that were changed."""
    own, to = (part | part.get("parameters", {}) for part in (content["from"], content["to"]))
    changed = [
        f"{name}{value:g}" for name, value in to.items() if name != "parameters" and value != own.get(name)
    ]
    return file_name("recast", content["star_id"] or "", *changed)

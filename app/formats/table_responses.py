"""The service's answers in the form that was asked for: JSON, tables, FITS files, pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import Response
from starlette.concurrency import run_in_threadpool

from app.errors import answer_json
from app.formats.negotiation import MEDIA
from app.formats.recast_fits import recast_fits
from app.formats.tables import Column, Fact, csv_bytes, further_columns, star_columns, votable_bytes
from app.inference.service import Service, Source
from app.schemas.requests import StarsQuery, To
from index.stores.star import Star

TABLE = ("json", "csv", "votable")
RECAST = ("json", "csv", "fits", "png", "votable")
DRAWING = CapacityLimiter(1)
"""Pictures are drawn one at a time, in a thread that other requests do not wait for."""

VO_ANGSTROM = "0.1nm"
"""The unit as VOTables have it: the standard's readers warn of an Angstrom by its name."""

RATE = "fraction of random pairs this close; null below 1,000 stars"
"""Short enough to stand on one line of a VOTable."""

SUFFIX = {"csv": "csv", "votable": "vot", "fits": "fits", "png": "png"}


def _field(name: str, description: str, unit: str = "", ucd: str = "", dtype: str = "f8") -> Column:
    """A column of rows that are dictionaries."""
    return Column(name, description, lambda row: row[name], unit, ucd, dtype)


def _twin_columns(further: dict[str, str], by_likelihood: bool) -> list[Column]:
    ratio = _field(
        "log_likelihood_ratio", "ln likelihood of same chemistry over different", "", "stat.likelihood"
    )
    return [
        _field("star_id", "the twin", "", "meta.id;meta.main", "O"),
        _field("distance", "Euclidean distance of the latents", "", "stat.value;arith.diff"),
        _field("p_same", "how often identical stars lie at least this far apart", "", "stat.probability"),
        *([ratio] if by_likelihood else []),
        _field("doppelganger_rate", RATE, "", "stat.probability"),
        _field("teff", "effective temperature of the twin", "K", "phys.temperature.effective"),
        _field("logg", "log10 of surface gravity in cm/s2, dex", "", "phys.gravity"),
        _field("fe_h", "[Fe/H], dex", "", "phys.abund.Fe"),
        *further_columns(further, lambda twin: twin.get("parameters", {})),
        _field("snr", "median S/N per pixel", "", "stat.snr"),
        _field("in_domain", "whether the model knows such stars", "", "meta.code", "?"),
        _field("ra", "right ascension (ICRS)", "deg", "pos.eq.ra;meta.main"),
        _field("dec", "declination (ICRS)", "deg", "pos.eq.dec;meta.main"),
    ]


def _model(model: str) -> Column:
    """What a CSV, which has no other place for it, says of the model in every row."""
    told = "distances and spectra compare only under the same"
    return Column("model", told, lambda _: model, "", "meta.version;meta.software", "O")


def _identity(answer: dict[str, Any]) -> str:
    return f"{answer['model']['name']}@{answer['model']['version']}"


def answer_twins(form: str, answer: dict[str, Any], further: dict[str, str]) -> Response:
    """The twins of one star; `further` are the model's further parameters and their units."""
    if form == "json":
        return varying(answer_json(answer))
    by_likelihood = any("log_likelihood_ratio" in twin for twin in answer["twins"])
    columns = _twin_columns(further, by_likelihood)
    name = _name("twins", answer["star_id"] or "")
    if form == "csv":
        return _file(csv_bytes([*columns, _model(_identity(answer))], answer["twins"]), form, name)
    facts = [
        Fact("asked_star_id", answer["star_id"] or "", "the star whose twins these are", ucd="meta.id"),
        Fact("model", _identity(answer), "distances compare only under the same model"),
        Fact("metric", answer["metric"], "what distance is measured in"),
        Fact("k", answer["k"], "twins asked for"),
        Fact("searched", answer["searched"], "stars searched", ucd="meta.number"),
        Fact("exact", answer["exact"], "no nearer star can have been missed"),
    ]
    if "in_domain" in answer:
        facts.append(Fact("in_domain", answer["in_domain"], "whether the model knows such stars"))
        facts += _warnings(answer)
    return _file(votable_bytes(columns, answer["twins"], "twins", facts), form, name)


def answer_abundances(form: str, answer: dict[str, Any]) -> Response:
    """A star's abundances."""
    if form == "json":
        return varying(answer_json(answer))
    columns = [
        _field("element", "X", "", "phys.atmol.element", "O"),
        _field("x_fe", "[X/Fe], dex", "", "phys.abund"),
        _field("x_fe_err", "standard deviation of x_fe, dex", "", "stat.stdev;phys.abund"),
    ]
    rows, name = answer["abundances"], _name("abundances", answer["star_id"])
    if form == "csv":
        return _file(csv_bytes([*columns, _model(_identity(answer))], rows), form, name)
    facts = [
        Fact("star_id", answer["star_id"], "the star", ucd="meta.id"),
        Fact("model", _identity(answer), "the model of the latent and its readout"),
        Fact("in_domain", answer["in_domain"], "whether the model knows such stars"),
        *_warnings(answer),
    ]
    return _file(votable_bytes(columns, rows, "abundances", facts), form, name)


def stars_page(service: Service, query: StarsQuery) -> list[Star]:
    """The stars of a page of GET /stars, and one more where there are more."""
    store, model = service.store, service.model.card.identity
    if query.star_ids is None:
        return store.page(query.after, query.limit + 1, model, query.prefix)
    asked = {
        star_id
        for star_id in query.star_ids.split(",")
        if star_id > query.after and star_id.startswith(query.prefix)
    }
    found = store.get(sorted(asked), model)
    return [found[star_id] for star_id in sorted(found)][: query.limit + 1]


def answer_stars(
    form: str, stars: Sequence[Star], query: StarsQuery, more: bool, dimension: int, further: dict[str, str]
) -> Response:
    """A page of stored stars as a table; where there are `more`, the header Link leads to the next.

    Latents are `dimension` wide, or as wide as the widest of another model.
    """
    columns = star_columns(max(dimension, *(len(star.latent) for star in stars), 1), further)
    if form == "csv":
        content = csv_bytes(columns, stars)
    else:
        content = votable_bytes(columns, stars, "stars", overflow=more)
    headers = {}
    if more:
        told = query.model_dump(include={"prefix", "star_ids"}, exclude_defaults=True)
        following = urlencode({"after": stars[-1].star_id, "limit": query.limit, "format": form, **told})
        headers["Link"] = f'</stars?{following}>; rel="next"'
    return _file(content, form, _name("stars", f"after-{query.after}" if query.after else ""), headers)


async def answer_recast(form: str, service: Service, source: Source, to: To) -> Response:
    """A recast of `source` to other parameters. Raises what `Service.recast` does."""
    if form == "png":
        return await to_thread.run_sync(_picture, service, source, to, limiter=DRAWING)
    return await run_in_threadpool(_recast_file, form, service, source, to)


def _recast_file(form: str, service: Service, source: Source, to: To) -> Response:
    answer = service.recast(source, to)
    if form == "json":
        return varying(answer_json(answer | {"wavelength": service.wavelength_json}))
    name = _recast_name(answer)
    columns = [
        Column("wavelength", "vacuum wavelength, rest frame", lambda row: row[0], "Angstrom", "em.wl"),
        Column("flux", "flux over the continuum", lambda row: row[1], "", "phot.flux.density;em.IR.H", "f4"),
    ]
    spectra = [answer["wavelength"], answer["flux"]]
    if answer["flux_sd"] is not None:
        told = "standard deviation of flux by that of the latent"
        columns.append(Column("flux_sd", told, lambda row: row[2], "", "stat.stdev;phot.flux.density", "f4"))
        spectra.append(answer["flux_sd"])
    rows = list(zip(*(np.asarray(spectrum).tolist() for spectrum in spectra), strict=True))
    if form == "fits":
        return _file(recast_fits(answer, columns, rows), form, name)
    if form == "csv":
        return _file(csv_bytes([*columns, _model(_identity(answer))], rows), form, name)
    columns[0] = replace(columns[0], unit=VO_ANGSTROM)
    return _file(votable_bytes(columns, rows, "recast", _recast_facts(answer)), form, name)


def _picture(service: Service, source: Source, to: To) -> Response:
    from app.formats.plot import recast_png

    recast, own = service.recast(source, to), service.recast(source, To())
    picture = recast_png(own, recast, service.model.grid.detectors, service.further_units)
    return _file(picture, "png", _recast_name(recast))


def _recast_facts(answer: dict[str, Any]) -> list[Fact]:
    facts = [
        Fact("star_id", answer["star_id"] or "", "the star", ucd="meta.id"),
        Fact("model", _identity(answer), "the model that made the spectrum"),
        Fact("in_domain", answer["in_domain"], "whether the recast is within the training range"),
    ]
    told = {
        "teff": ("K", "phys.temperature.effective"),
        "logg": ("", "phys.gravity"),
        "fe_h": ("", "phys.abund.Fe"),
    }
    for what, meaning in (("from", "the star's own"), ("to", "recast to")):
        for name, (unit, ucd) in told.items():
            facts.append(Fact(f"{what}_{name}", float(answer[what][name]), meaning, unit, ucd))
        facts += [
            Fact(f"{what}_{name}", float(value), meaning)
            for name, value in answer[what].get("parameters", {}).items()
        ]
    return facts + _warnings(answer)


def _warnings(answer: dict[str, Any]) -> list[Fact]:
    return [
        Fact(f"warning_{number}", text, "what to mind") for number, text in enumerate(answer["warnings"], 1)
    ]


def _recast_name(answer: dict[str, Any]) -> str:
    """Names the star and the parameters that were changed."""
    own, to = (part | part.get("parameters", {}) for part in (answer["from"], answer["to"]))
    changed = [f"{n}{v:g}" for n, v in to.items() if n != "parameters" and v != own.get(n)]
    return _name("recast", answer["star_id"] or "", *changed)


def _name(*parts: str) -> str:
    """A file's name that every system takes."""
    return re.sub(r"[^A-Za-z0-9+._-]", "_", "-".join(part for part in parts if part))


def _file(content: bytes, form: str, name: str, headers: Mapping[str, str] | None = None) -> Response:
    kind = MEDIA[form][0] + ("; charset=utf-8; header=present" if form == "csv" else "")
    place = "inline" if form == "png" else "attachment"
    told = {"Content-Disposition": f'{place}; filename="{name}.{SUFFIX[form]}"', **(headers or {})}
    response = Response(content, headers=told)
    response.headers["Content-Type"] = kind
    return varying(response)


def votable_file(content: bytes, name: str) -> Response:
    """A VOTable to be saved as `name`."""
    return _file(content, "votable", _name(name))


def varying(response: Response) -> Response:
    """The response, with word to caches that another Accept gets another."""
    response.headers["Vary"] = "Accept"
    return response

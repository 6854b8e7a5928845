"""Twins, abundances and stars as JSON, CSV or VOTable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import Response

from app.formats.file_response import file_name, file_response, varying
from app.formats.table_columns import Column, Fact, csv_bytes, extra_columns, star_columns, votable_bytes
from app.json_response import json_response
from app.schemas.queries import StarsQuery
from index.stores.star import Star

RATE = "fraction of random pairs this close; null below 1,000 stars"
"""Short enough to stand on one line of a VOTable."""


def field(name: str, description: str, unit: str = "", ucd: str = "", dtype: str = "f8") -> Column:
    """A column of rows that are dictionaries; see `Column`."""
    return Column(name, description, lambda row: row[name], unit, ucd, dtype)


def model_column(content: dict[str, Any]) -> Column:
    """The model in every row, for a CSV, which has no header for it."""
    model, description = identity(content), "distances and spectra compare only under the same"
    return Column("model", description, lambda _: model, "", "meta.version;meta.software", "O")


def csv_facts(content: dict[str, Any]) -> list[Column]:
    """What is true of all rows, in every row of a CSV: the model, `in_domain` and the warnings."""
    inside, texts = content["in_domain"], "; ".join(content["warnings"])
    return [
        model_column(content),
        Column("in_domain", "whether the model knows such stars", lambda _: inside, "", "meta.code", "?"),
        Column("warnings", "what to mind", lambda _: texts, "", "meta.note", "O"),
    ]


def identity(content: dict[str, Any]) -> str:
    """The model of a response: name@version."""
    return f"{content['model']['name']}@{content['model']['version']}"


def warning_facts(content: dict[str, Any]) -> list[Fact]:
    """The warnings of a response."""
    return [
        Fact(f"warning_{number}", text, "what to mind") for number, text in enumerate(content["warnings"], 1)
    ]


def _twin_columns(extra_units: dict[str, str], by_likelihood: bool) -> list[Column]:
    ratio = field(
        "log_likelihood_ratio", "ln likelihood of same chemistry over different", "", "stat.likelihood"
    )
    return [
        field("star_id", "the twin", "", "meta.id;meta.main", "O"),
        field("distance", "Euclidean distance of the latents", "", "stat.value;arith.diff"),
        field("p_same", "how often identical stars lie at least this far apart", "", "stat.probability"),
        field("verdict", "same within noise, different, or cannot tell", "", "meta.code.class", "O"),
        *([ratio] if by_likelihood else []),
        field("doppelganger_rate", RATE, "", "stat.probability"),
        field("teff", "effective temperature of the twin", "K", "phys.temperature.effective"),
        field("logg", "log10 of surface gravity in cm/s2, dex", "", "phys.gravity"),
        field("fe_h", "[Fe/H], dex", "", "phys.abund.Fe"),
        field("fe_h_err", "1-sigma error of fe_h, dex", "", "stat.error;phys.abund.Fe"),
        *extra_columns(extra_units, lambda twin: twin.get("parameters", {})),
        field("snr", "median S/N per pixel", "", "stat.snr"),
        field("in_domain", "whether the model knows such stars", "", "meta.code", "?"),
        field("ra", "right ascension (ICRS)", "deg", "pos.eq.ra;meta.main"),
        field("dec", "declination (ICRS)", "deg", "pos.eq.dec;meta.main"),
        field("cluster", "cluster or group", "", "meta.id.parent", "O"),
    ]


def twins_response(form: str, content: dict[str, Any], extra_units: dict[str, str]) -> Response:
    """The twins of one star.

    Parameters
    ----------
    form
        One of json, csv and votable.
    content
        The response as `app.inference.twins` makes it.
    extra_units
        The model's extra parameters and their units.
    """
    if form == "json":
        return varying(json_response(content))
    by_likelihood = any("log_likelihood_ratio" in twin for twin in content["twins"])
    columns = _twin_columns(extra_units, by_likelihood)
    name = file_name("twins", content["star_id"] or "")
    if form == "csv":
        return file_response(csv_bytes([*columns, model_column(content)], content["twins"]), form, name)
    within = content["fe_h_within"]
    fe_h_within = [] if within is None else [Fact("fe_h_within", within, "largest difference of [Fe/H], dex")]
    facts = [
        Fact("asked_star_id", content["star_id"] or "", "the star whose twins these are", ucd="meta.id"),
        Fact("model", identity(content), "distances compare only under the same model"),
        Fact("metric", content["metric"], "what distance is measured in"),
        Fact("k", content["k"], "twins asked for"),
        Fact("searched", content["searched"], "stars searched", ucd="meta.number"),
        *fe_h_within,
        Fact("exact", content["exact"], "no nearer star can have been missed"),
        Fact("in_domain", content["in_domain"], "whether the model knows such stars"),
        *warning_facts(content),
    ]
    return file_response(votable_bytes(columns, content["twins"], "twins", facts), form, name)


def abundances_response(form: str, content: dict[str, Any]) -> Response:
    """A star's abundances, as `app.inference.abundances` makes them, in a `form` json, csv or votable."""
    if form == "json":
        return varying(json_response(content))
    columns = [
        field("element", "X", "", "phys.atmol.element", "O"),
        field("x_fe", "[X/Fe], dex", "", "phys.abund"),
        field("x_fe_err", "standard deviation of x_fe, dex", "", "stat.stdev;phys.abund"),
    ]
    rows, name = content["abundances"], file_name("abundances", content["star_id"])
    if form == "csv":
        return file_response(csv_bytes([*columns, *csv_facts(content)], rows), form, name)
    facts = [
        Fact("star_id", content["star_id"], "the star", ucd="meta.id"),
        Fact("model", identity(content), "the model of the latent and its readout"),
        Fact("in_domain", content["in_domain"], "whether the model knows such stars"),
        *warning_facts(content),
    ]
    return file_response(votable_bytes(columns, rows, "abundances", facts), form, name)


def stars_response(
    form: str,
    stars: Sequence[Star],
    query: StarsQuery,
    more: bool,
    latent_dim: int,
    extra_units: dict[str, str],
) -> Response:
    """A page of stored stars as a table.

    Parameters
    ----------
    form
        Either csv or votable.
    stars
        The page.
    query
        What was asked for.
    more
        Whether more stars follow: the header Link then leads to the next page.
    latent_dim
        The width of a latent; wider ones of other models widen the column.
    extra_units
        The model's extra parameters and their units.
    """
    columns = star_columns(max(latent_dim, *(len(star.latent) for star in stars), 1), extra_units)
    if form == "csv":
        content = csv_bytes(columns, stars)
    else:
        content = votable_bytes(columns, stars, "stars", overflow=more)
    headers = {}
    if more:
        same = query.model_dump(include={"prefix", "star_ids", "cluster"}, exclude_defaults=True)
        following = urlencode({"after": stars[-1].star_id, "limit": query.limit, "format": form, **same})
        headers["Link"] = f'</stars?{following}>; rel="next"'
    return file_response(
        content, form, file_name("stars", f"after-{query.after}" if query.after else ""), headers
    )

"""`chemtwin twins`: the twins of a stored star or of a spectrum in a file, without a service."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.options import example, on_store
from app.cli.twins_table import twins_table
from model.errors import InputError

if TYPE_CHECKING:
    from app.inference.embedder import Job
    from app.inference.service import Service
    from app.schemas.queries import TwinQuery
    from app.settings import Settings
    from index.stores.star import Star

Response = dict[str, Any]


UNITS = {"teff": "K", "ra": "deg", "dec": "deg"}


@click.command(epilog=example("twins apStar-r5-2M00004994+1621552.fits --teff 4705 --logg 2.58 --fe-h 0.05"))
@click.argument("star", metavar="STAR_OR_FILE")
@click.option("--teff", metavar="K", help="effective temperature")
@click.option("--logg", metavar="DEX", help="log10 of the surface gravity in cm/s2")
@click.option("--fe-h", metavar="DEX", help="[Fe/H]")
@click.option(
    "--parameter",
    "extra",
    multiple=True,
    metavar="NAME=VALUE",
    help="an extra parameter of the model, or an error such as teff_err=60; repeatable",
)
@click.option("-k", "--k", default=10, show_default=True, type=click.IntRange(1, 1000), help="how many twins")
@click.option(
    "--query",
    "queries",
    multiple=True,
    metavar="NAME=VALUE",
    help="what GET /twins takes, such as rank=likelihood, fe_h_within=any or cluster=M67; repeatable",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "ecsv", "json"]),
    default="table",
    show_default=True,
    help="a table to read, or ECSV or JSON for a program",
)
@on_store
def twins(
    star: str,
    teff: str | None,
    logg: str | None,
    fe_h: str | None,
    extra: tuple[str, ...],
    k: int,
    queries: tuple[str, ...],
    form: str,
    settings: Settings,
) -> None:
    """Print the twins of a stored star, or of the spectrum in a file.

    STAR_OR_FILE is the id of a star of the store, or a survey's FITS file: apStar, aspcapStar or mwmStar.
    Labels that are not given come from the file, if it has any. The twins are the chemically nearest stars of
    the store; the spectrum itself is not stored. No service is needed, and one may run on the same store.
    """
    labels = {"teff": teff, "logg": logg, "fe_h": fe_h, **dict(_named("--parameter", text) for text in extra)}
    query = _query(k, dict(_named("--query", text) for text in queries))
    given = {name: value for name, value in labels.items() if value is not None}
    file = Path(star)
    if given and not file.is_file():
        raise click.UsageError(f"there is no file {star}: labels go with a file, a stored star has its own")
    found, response = find_twins(file if file.is_file() else star, given, query, settings)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(twins_table(found, response) if form == "table" else FORMS[form](response))


def _named(option: str, text: str) -> tuple[str, str]:
    """The name and the value of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"{option} {text}: write NAME=VALUE")
    return name, value


def _query(k: int, given: dict[str, str]) -> TwinQuery:
    """What is asked of /twins. Raises ServiceError for a name or value that it does not take."""
    from pydantic import ValidationError

    from app.error_responses import as_service_error
    from app.schemas.queries import TwinQuery

    if taken := {"k", "format"} & set(given):
        raise click.UsageError(f"--query {taken.pop()}: there is an option of that name")
    try:
        return TwinQuery.model_validate({"k": k, **given})
    except ValidationError as error:
        raise (as_service_error(error) or error) from None


def find_twins(
    source: Path | str, labels: dict[str, str], query: TwinQuery, settings: Settings
) -> tuple[Star, Response]:
    """A star, and what /twins responds with for it.

    Parameters
    ----------
    source
        An apStar, aspcapStar or mwmStar file; or the id of a stored star.
    labels
        With a file: values of teff, logg, fe_h, their errors, and extra parameters, as in a query string.
    query
        How many twins, of which stars, and how they are ranked.
    settings
        They name the model and the store.

    Raises
    ------
    ChemtwinError
        The file, its spectrum or a label cannot be used, or there is no such star.
    ServiceError
        A label has no possible value, or another model embedded the star.
    StoreError
        The store cannot be read, or there is none.
    """
    from app.inference.service import Service
    from app.inference.twins import twins_of_one
    from index.stores.open_store import open_store

    open_store(settings.store_address, create=False).close()
    service = Service(settings, wait=True)
    try:
        star = _stored(source, service) if isinstance(source, str) else _unstored(source, labels, service)
        return star, twins_of_one(service, star, query)
    finally:
        service.close()


def _stored(star_id: str, service: Service) -> Star:
    """A star of the store. Raises InputError or ModelMismatch."""
    from app.errors import NotFound

    try:
        return service.comparable(star_id)
    except NotFound:
        raise InputError(
            f"{star_id} is neither a file nor a star of {service.store.name}: GET /stars and "
            "chemtwin catalogue export list its stars"
        ) from None


def _unstored(file: Path, labels: dict[str, str], service: Service) -> Star:
    """The star of the spectrum in a file, which is not stored. Raises ChemtwinError or ServiceError."""
    job = _job(file, labels, service)
    (done,) = service.embedder.embed([replace(job, star_id=None)])
    if isinstance(done, Exception):
        raise done
    return replace(done.star, star_id=job.star_id or "")


def _job(file: Path, labels: dict[str, str], service: Service) -> Job:
    """The spectrum and the labels to embed. Raises ChemtwinError or ServiceError."""
    from pydantic import ValidationError

    from app.error_responses import as_service_error
    from app.errors import Invalid
    from app.formats.bodies import fits_job
    from app.schemas.queries import FitsQuery

    try:
        query = FitsQuery.model_validate(labels)
        return fits_job(file.read_bytes(), query, service.settings, service.extra, named=False)
    except ValidationError as error:
        raise (as_service_error(error) or error) from None
    except Invalid as error:
        if error.code != "missing_labels":
            raise
        options = " and ".join(f"--{name.replace('_', '-')}" for name in error.detail)
        raise InputError(f"{file} does not give all labels: give {options} too") from None


def _ecsv(response: Response) -> str:
    """An ECSV table of the twins; the rest of the response is in its `meta`."""
    import io

    from astropy.table import MaskedColumn, Table

    twins = [{**twin, **twin.get("parameters", {})} for twin in response["twins"]]
    table = Table(meta={name: value for name, value in response.items() if name != "twins"})
    for name in twins[0] if twins else ():
        values = [twin[name] for twin in twins]
        if name != "parameters":
            unknown = [value is None for value in values]
            filled = [0.0 if value is None else value for value in values]
            table[name] = MaskedColumn(filled, mask=unknown, unit=UNITS.get(name))
    out = io.StringIO()
    table.write(out, format="ascii.ecsv")
    return out.getvalue().rstrip()


def _json(response: Response) -> str:
    return json.dumps(response, indent=1)


FORMS: dict[str, Callable[[Response], str]] = {"ecsv": _ecsv, "json": _json}

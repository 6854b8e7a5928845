"""`chemtwin plot`: figures for a paper, drawn from the store, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.options import OUT, example, on_store
from model.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings


@click.group(epilog=example("plot twins 2M08512618+1153520 --out twins.pdf"))
def plot() -> None:
    """Draw figures for a paper."""


@plot.command(epilog=example("plot twins 2M08512618+1153520 --out twins.pdf"))
@click.argument("star")
@click.option("--out", type=OUT, help="PDF or PNG file, by its suffix; twins-STAR.pdf by default")
@click.option("-k", "--k", default=3, show_default=True, type=click.IntRange(1, 6), help="how many twins")
@click.option(
    "--columns",
    default=2,
    show_default=True,
    type=click.IntRange(1, 2),
    help="width of the figure in columns of a journal",
)
@on_store
def twins(star: str, out: Path | None, k: int, columns: int, settings: Settings) -> None:
    """Draw STAR and its twins, recast to its Teff and log g, and the residuals.

    STAR is the id of a stored star. Spectra are the observed ones if the store has those of the star and of
    all its twins; otherwise the model draws them. A caption is printed. No service is needed, and one may run
    on the same store.
    """
    from app.errors import NotFound
    from app.formats.file_response import file_name
    from app.formats.twins_figure import caption, draw_twins
    from app.inference.service import Service
    from app.inference.twin_comparison import compare_twins
    from index.stores.open_store import open_store

    out = out or Path(file_name("twins", star) + ".pdf")
    if out.suffix not in (".pdf", ".png"):
        raise click.UsageError(f"{out}: the suffix must be .pdf or .png")
    open_store(settings.store_address, create=False).close()
    service = Service(settings, wait=True)
    try:
        comparison = compare_twins(service, star, k)
    except NotFound:
        raise InputError(
            f"{star} is no star of {service.store.name}: chemtwin plot twins takes the id of a stored star, "
            "and chemtwin catalogue ingest or POST /embed stores one"
        ) from None
    finally:
        service.close()
    if not comparison.twins:
        raise InputError(f"no other star of the catalogue is near {star} in [Fe/H]: there is no twin to draw")
    for warning in comparison.star.warnings:
        click.echo(f"warning: {star}: {warning}", err=True)
    draw_twins(comparison, out, columns)
    click.echo(f"{out}\n{caption(comparison)}")

"""The commands on the store as a whole (docs/bulk.md)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from app.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DATA_DIR = click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="instead of CHEMTWIN_DATA_DIR"
)


def _settings(data_dir: Path | None) -> Settings:
    from app.settings import Settings

    return Settings() if data_dir is None else Settings(data_dir=data_dir)


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--labels", type=FILE, help="CSV, FITS table or VOTable of a folder's stars")
@click.option(
    "--workers", type=click.IntRange(1), help="processes that read and embed; one per core by default"
)
@click.option("--scheduler", help="address of a dask scheduler whose workers do the work instead")
@DATA_DIR
def ingest(
    source: Path, labels: Path | None, workers: int | None, scheduler: str | None, data_dir: Path | None
) -> None:
    """Embed SOURCE's stars into the store: a survey.h5, an npz, or a folder of FITS files with --labels.

    A running service sees them at once. Stopped, it goes on where it was when it is run again.
    """
    from app.ingest import ingest as run

    settings = _settings(data_dir)
    report = run(source, settings, labels, workers or len(os.sched_getaffinity(0)), scheduler)
    for star in report.shown:
        click.echo(f"{star.star_id}: {star.reason}", err=True)
    if report.failed > len(report.shown):
        click.echo(f"and {report.failed - len(report.shown)} more", err=True)
    click.echo(f"{report.stored} stars stored, {report.there} already there, {report.failed} refused")
    if report.failed:
        raise SystemExit(1)


COMMANDS = (ingest,)

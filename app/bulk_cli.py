"""The commands on the store as a whole (docs/bulk.md)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from app.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(dir_okay=False, path_type=Path)
FORMS = ("h5", "parquet", "fits", "vot")
SHOWN = 20
"""Refused stars that are named; the others are counted."""

DATA_DIR = click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="instead of CHEMTWIN_DATA_DIR"
)


def _settings(data_dir: Path | None) -> Settings:
    from app.settings import Settings

    return Settings() if data_dir is None else Settings(data_dir=data_dir)


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--labels", type=FILE, help="CSV, ECSV, FITS, VOTable or Parquet table of a folder's stars")
@click.option(
    "--meta", multiple=True, metavar="COLUMN", help="an extra column to store in each star's meta; repeatable"
)
@click.option(
    "--report", type=OUT, help="CSV of stars to be looked at; ingest.csv in the data folder by default"
)
@click.option(
    "--workers", type=click.IntRange(1), help="processes that read and embed; one per core by default"
)
@click.option("--scheduler", help="address of a dask scheduler whose workers do the work instead")
@DATA_DIR
def ingest(
    source: Path,
    labels: Path | None,
    meta: tuple[str, ...],
    report: Path | None,
    workers: int | None,
    scheduler: str | None,
    data_dir: Path | None,
) -> None:
    """Embed SOURCE's stars into the store: a survey.h5, an npz, or a folder of FITS files with --labels.

    A running service sees them at once. Stopped, it goes on where it was when it is run again. Extra columns go
    into each star's meta, all if they are few, or those named by --meta.
    """
    from app import processes

    if scheduler is None:
        processes.get_ready("app.ingest", "model.gaussdis")
    from app.ingest import ingest as run
    from app.sources import Place

    place = Place.of(source, labels, meta or None)
    done = run(place, _settings(data_dir), workers or len(os.sched_getaffinity(0)), scheduler, report)
    total = done.report
    failed = total.refused + total.repeated
    _name_failed([str(note) for note in done.shown], failed)
    repeated = f", {total.repeated} repeat an id" if total.repeated else ""
    click.echo(f"{total.stored} stars stored, {total.there} already there, {total.refused} refused{repeated}")
    if total.outside or total.warned:
        click.echo(
            f"of these in the catalogue {total.outside} are outside the model's domain, "
            f"{total.warned} others have warnings"
        )
    if done.listed is not None:
        click.echo(f"each of them is listed in {done.listed}")
    if done.extra:
        click.echo(f"stored in meta: {', '.join(done.extra)}")
    if done.ignored:
        names, more = (
            ", ".join(done.ignored[:10]),
            f" and {len(done.ignored) - 10} more" * (len(done.ignored) > 10),
        )
        click.echo(f"not stored: {names}{more}; --meta COLUMN stores one")
    if failed:
        raise SystemExit(1)


@click.command()
@click.option("--model", type=FILE, required=True, help="the model file to embed with")
@click.option("--drop-old", is_flag=True, help="then delete other models' rows of stars that have the new one")
@DATA_DIR
def reindex(model: Path, drop_old: bool, data_dir: Path | None) -> None:
    """Embed the kept spectra with another MODEL, beside what is there; a running service goes on.

    Stopped, it goes on where it was when it is run again.
    """
    from app.reindex import reindex as run

    settings = _settings(data_dir).model_copy(update={"model": model, "keep_spectra": False})
    done = run(settings, drop_old)
    _name_failed(
        [f"{star.star_id}: {star.reason}" for star in list(done.refused.values())[:SHOWN]], len(done.refused)
    )
    click.echo(
        f"{done.written} stars embedded with {done.model}, {len(done.refused)} refused, "
        f"{done.without} without a kept spectrum, {done.dropped} rows of other models deleted"
    )
    if done.refused:
        raise SystemExit(1)


@click.command()
@click.argument("out", type=OUT)
@click.option("--format", "form", type=click.Choice(FORMS), help="instead of what OUT's suffix says")
@click.option("--all-models", is_flag=True, help="rows of every model, not only CHEMTWIN_MODEL's")
@DATA_DIR
def export(out: Path, form: str | None, all_models: bool, data_dir: Path | None) -> None:
    """Write the catalogue to a table OUT: HDF5 (.h5), Parquet, FITS (.fits) or VOTable (.vot)."""
    from app.export import WHOLE
    from app.export import export as run
    from index.store import open_store
    from model.bundle import load_model

    form = form or out.suffix[1:]
    if form not in FORMS:
        raise click.ClickException(f"{out}: the suffix, or --format, must be one of {', '.join(FORMS)}")
    settings = _settings(data_dir)
    card, store = load_model(settings.model).card, open_store(settings.place)
    if form in WHOLE:
        click.echo(f"{form} is built whole in memory; h5 and parquet are not", err=True)
    try:
        count = run(store, out, None if all_models else card.identity, card.units, form)
    finally:
        store.close()
    click.echo(f"{count} rows written to {out}")


@click.command()
@click.argument("file", type=OUT)
@DATA_DIR
def backup(file: Path, data_dir: Path | None) -> None:
    """Write the whole store, with kept spectra, to a new FILE, while services run on it."""
    from app.backup import backup as run
    from index.store import open_store

    store = open_store(_settings(data_dir).place)
    try:
        click.echo(f"{run(store, file)} rows of {store.name} written to {file}")
    finally:
        store.close()


@click.command()
@click.argument("file", type=FILE)
@DATA_DIR
def restore(file: Path, data_dir: Path | None) -> None:
    """Put the rows of a backup FILE in the place of the whole store; running services see it at once."""
    from app.backup import restore as run
    from index.store import open_store

    store = open_store(_settings(data_dir).place)
    try:
        click.echo(f"{run(store, file)} rows of {file} are now {store.name}")
    finally:
        store.close()


def _name_failed(shown: Sequence[str], failed: int) -> None:
    for line in shown:
        click.echo(line, err=True)
    if failed > len(shown):
        click.echo(f"and {failed - len(shown)} more", err=True)


COMMANDS = (ingest, reindex, export, backup, restore)

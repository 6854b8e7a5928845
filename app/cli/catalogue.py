"""`chemtwin catalogue`: the commands on the store as a whole (docs/how-to/fill-a-catalogue.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.options import FILE, OUT, example, on_store
from model.errors import InputError

if TYPE_CHECKING:
    from app.bulk.ingest import Done
    from app.settings import Settings
    from model.methods.base import Card

FORMS = ("h5", "parquet", "fits", "vot")

KINDS_SHOWN = 5
"""How many kinds of warnings the summary of an ingest has, the most frequent ones."""


@click.group(epilog=example("catalogue ingest survey.h5"))
def catalogue() -> None:
    """Fill, export and back up the store of stars (docs/how-to/fill-a-catalogue.md)."""


@catalogue.command(epilog=example("catalogue ingest survey.h5"))
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--labels", type=FILE, help="CSV, ECSV, FITS, VOTable or Parquet table of a folder's stars")
@click.option(
    "--meta", multiple=True, metavar="COLUMN", help="an extra column to store in each star's meta; repeatable"
)
@click.option(
    "--report", type=OUT, help="CSV of stars to look at, ingest-report.csv beside the store by default"
)
@click.option(
    "--workers", type=click.IntRange(1), help="processes that read and embed; one per core by default"
)
@click.option("--scheduler", help="address of a dask scheduler whose workers do the work instead")
@on_store
def ingest(
    source: Path,
    labels: Path | None,
    meta: tuple[str, ...],
    report: Path | None,
    workers: int | None,
    scheduler: str | None,
    settings: Settings,
) -> None:
    """Embed the stars of SOURCE into the store.

    SOURCE is a survey.h5, an npz, or a folder of FITS files with --labels.

    A running service finds them at once. After a stop the same command goes on where it was. Extra columns
    go into each star's meta, all if they are few, or those named by --meta.
    """
    from app.operations import processes
    from app.operations.cores import cores

    workers = workers or cores()
    if scheduler is None and workers > 1:
        processes.get_ready("app.bulk.ingest", "model.methods.gaussdis")
    from app.bulk.ingest import ingest as run
    from app.bulk.readers.star_reader import InputFiles
    from model.bundle import load_card

    files = InputFiles.of(source, labels, meta or None)
    done = run(files, settings, workers, scheduler, report)
    failed = done.report.refused + done.report.repeated
    _print_failed([str(note) for note in done.shown], failed)
    for line in _summary(done, load_card(settings.model)):
        click.echo(line)
    if failed:
        raise SystemExit(1)


@catalogue.command(epilog=example("catalogue reindex --model new.safetensors"))
@click.option("--model", type=FILE, required=True, help="the model file to embed with")
@click.option("--drop-old", is_flag=True, help="then delete other models' rows of stars that have the new one")
@on_store
def reindex(model: Path, drop_old: bool, settings: Settings) -> None:
    """Embed the stored spectra with another MODEL, beside the old rows.

    Services may run meanwhile. After a stop the same command goes on where it was.
    """
    from app.bulk.ingest_report import SHOWN
    from app.bulk.reindex import reindex as run

    done = run(settings.model_copy(update={"model": model, "store_spectra": False}), drop_old)
    refused = list(done.refused.values())
    _print_failed([f"{star.star_id}: {star.reason}" for star in refused[:SHOWN]], len(refused))
    click.echo(
        f"{_stars(done.written)} embedded with {done.model}, {len(refused)} refused, "
        f"{done.without_spectrum} without a stored spectrum, {done.dropped} rows of other models deleted"
    )
    if refused:
        raise SystemExit(1)


@catalogue.command(epilog=example("catalogue export catalogue.parquet"))
@click.argument("out", type=OUT)
@click.option("--format", "form", type=click.Choice(FORMS), help="instead of what OUT's suffix says")
@click.option("--all-models", is_flag=True, help="rows of every model, not only CHEMTWIN_MODEL's")
@click.option("--replace", is_flag=True, help="replace OUT if it exists")
@on_store
def export(out: Path, form: str | None, all_models: bool, replace: bool, settings: Settings) -> None:
    """Write the catalogue to a table.

    OUT is HDF5 (.h5), Parquet, FITS (.fits) or VOTable (.vot).
    """
    from app.bulk.export import WHOLE
    from app.bulk.export import export as run
    from index.stores.open_store import open_store
    from model.bundle import load_model

    form = form or out.suffix[1:]
    if form not in FORMS:
        raise click.ClickException(f"{out}: the suffix, or --format, must be one of {', '.join(FORMS)}")
    if out.exists() and not replace:
        raise InputError(f"{out} exists: --replace replaces it")
    if out.exists() and "://" not in settings.store_address and out.samefile(settings.store_address):
        raise InputError(f"{out} is the store itself")
    card, store = load_model(settings.model).card, open_store(settings.store_address, create=False)
    if form in WHOLE:
        click.echo(f"{form} is built whole in memory; h5 and parquet are not", err=True)
    try:
        count = run(store, out, None if all_models else card.identity, card.units, form)
    finally:
        store.close()
    click.echo(f"{count} rows written to {out}")
    if not count and not all_models:
        click.echo(
            f"no star was embedded with {card.identity}: set CHEMTWIN_MODEL, or give --all-models", err=True
        )


@catalogue.command(epilog=example("catalogue backup stars.backup.sqlite"))
@click.argument("file", type=OUT)
@on_store
def backup(file: Path, settings: Settings) -> None:
    """Write the whole store, with its spectra, to a new FILE.

    Services may run meanwhile.
    """
    from app.bulk.backup import backup as run
    from index.stores.open_store import open_store

    store = open_store(settings.store_address, create=False)
    try:
        click.echo(f"{run(store, file)} rows of {store.name} written to {file}")
    finally:
        store.close()


@catalogue.command(epilog=example("catalogue restore stars.backup.sqlite --to data/stars.sqlite"))
@click.argument("file", type=FILE, metavar="BACKUP")
@click.option(
    "--to", "target", required=True, metavar="TARGET", help="the store: a path, or a postgresql:// URL"
)
@click.option("--replace", is_flag=True, help="if TARGET has stars: save them to a file, then replace them")
def restore(file: Path, target: str, replace: bool) -> None:
    """Make the rows of a BACKUP the content of the store TARGET.

    Running services find them at once.

    BACKUP is only read. TARGET changes as a whole, once the new rows have been read back, or not at all.
    """
    from app.bulk.backup import restore as run

    done = run(file, target, replace)
    click.echo(f"{done.rows} rows restored from {file} to {done.store}")
    if done.previous is not None:
        click.echo(f"the rows before are in {done.previous}: delete that file when you do not need them")


def _summary(done: Done, card: Card) -> Iterator[str]:
    """Lines of text on the outcome of an ingest by the card's model."""
    total, ignored = done.report, done.ignored_columns
    repeated = f", {total.repeated} repeat an id" if total.repeated else ""
    yield f"{_stars(total.stored)} stored, {total.unchanged} already stored, {total.refused} refused{repeated}"
    if total.replaced:
        yield f"of those stored {total.replaced} replaced an earlier star of the same id"
    if total.of_others:
        yield (
            f"with {card.identity} {total.of_others} took the place of stars of another model: a service that "
            "runs with that has them no longer (CHEMTWIN_MODEL names the model; catalogue reindex keeps both)"
        )
    if total.outside or total.warned:
        yield f"of these: {total.outside} outside the model's domain, {total.warned} more with warnings"
        kinds = sorted(total.kinds.items(), key=lambda item: (-item[1], item[0]))
        for kind, count in kinds[:KINDS_SHOWN]:
            yield f"  {_stars(count)}: {kind}"
    if done.listed is not None:
        yield f"stars refused, replaced, outside the domain or with warnings are listed in {done.listed}"
    if total.spectra_deleted:
        yield (
            f"{_stars(total.spectra_deleted)} lost the spectrum stored before: CHEMTWIN_STORE_SPECTRA=true "
            "stores those of the same command again"
        )
    if total.typical:
        yield (
            f"{_stars(total.typical)} came without errors of some parameters: the model's typical errors were "
            f"used ({card.errors_text(card.typical_errors)}); 0 means exact"
        )
    if done.meta_columns:
        yield f"stored in meta: {', '.join(done.meta_columns)}"
    if ignored:
        more = f" and {len(ignored) - 10} more" if len(ignored) > 10 else ""
        yield f"not stored: {', '.join(ignored[:10])}{more}; --meta COLUMN stores one"


def _stars(count: int) -> str:
    return f"{count} star" if count == 1 else f"{count} stars"


def _print_failed(shown: Sequence[str], failed: int) -> None:
    for line in shown:
        click.echo(line, err=True)
    if failed > len(shown):
        click.echo(f"and {failed - len(shown)} more", err=True)

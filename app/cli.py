"""The command line: chemtwin serve, ingest, synthesize, train, evaluate, emulator, turbospectrum."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import click

from model.errors import ChemtwinError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(dir_okay=False, path_type=Path)


class Lazy(click.Group):
    """A group whose training commands are imported only when they are asked for."""

    lazy = {  # noqa: RUF012
        "emulator": ("training.fit_emulator", ("fit", "evaluate", "validation"), "emulator_"),
        "turbospectrum": ("training.turbospectrum.grid", ("grid", "responses"), ""),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        import importlib

        module_name, names, prefix = self.lazy[cmd_name]
        module = importlib.import_module(module_name)
        group = click.Group(cmd_name, help=(module.__doc__ or "").partition("\n")[0])
        for name in names:
            group.add_command(getattr(module, prefix + name), name)
        return group


@click.group(cls=Lazy)
def cli() -> None:
    """Find the chemical twins of a star straight from its spectrum."""


@cli.command()
def serve() -> None:
    """Run the service; settings are environment variables CHEMTWIN_... (docs/settings.md)."""
    import uvicorn

    from app.api import create_app
    from app.settings import Settings, keys

    settings = Settings()
    if not settings.loopback and not keys(settings.api_keys):
        raise click.ClickException(
            f"refusing to listen on {settings.host} without keys: set CHEMTWIN_API_KEYS, "
            "or leave CHEMTWIN_HOST at 127.0.0.1"
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, access_log=False)


@cli.command()
@click.argument("survey", type=FILE)
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="instead of CHEMTWIN_DATA_DIR"
)
def ingest(survey: Path, data_dir: Path | None) -> None:
    """Embed a survey file's stars into the store; a running service sees them at once."""
    from app.ingest import ingest_survey
    from app.settings import Settings

    settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    click.echo(f"{ingest_survey(survey, settings)} stars in {settings.store}")


@cli.command()
@click.argument("out", type=OUT)
@click.option("--pairs", default=25_000, show_default=True, type=click.IntRange(1), help="twin pairs")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option(
    "--snr", default=float("inf"), show_default=True, type=click.FloatRange(1), help="noise of 1/snr per pixel"
)
def synthesize(out: Path, pairs: int, seed: int, snr: float) -> None:
    """Draw a twin survey (paper, section 4.1) into an HDF5 file."""
    from training import survey
    from training.emulator import Emulator

    survey.synthesize(out, Emulator.load(), pairs, seed, snr)


@cli.command()
@click.argument("survey", type=FILE)
@click.option("--out", type=OUT, required=True, help="the model file to write")
@click.option("--method", type=click.Choice(["polydis"]), default="polydis", show_default=True)
@click.option("--name", default=None, help="the model's name; the method's by default")
@click.option(
    "--remove", default="teff,logg,fe_h", show_default=True, help="parameters to remove from the latent"
)
@click.option(
    "--snr", default=float("inf"), show_default=True, type=click.FloatRange(1), help="noise for training"
)
@click.option("--degree", default=4, show_default=True, type=click.IntRange(1, 8))
@click.option("--components", default=50, show_default=True, type=click.IntRange(1, 500))
@click.option(
    "--true-continuum", is_flag=True, help="keep the survey's continuum (for comparison with the paper)"
)
@click.option(
    "--error-floor", default=0.02, show_default=True, type=float, help="rms of real against synthetic spectra"
)
def train(
    survey: Path,
    out: Path,
    method: str,
    name: str | None,
    remove: str,
    snr: float,
    degree: int,
    components: int,
    true_continuum: bool,
    error_floor: float,
) -> None:
    """Fit a model on a survey file."""
    import resource
    import time

    from model.bundle import load_model, save_model
    from training import polydis
    from training.survey import Survey

    parameters = tuple(remove.split(","))
    unknown = set(parameters) - set(polydis.PARAMETERS)
    if unknown:
        raise click.BadParameter(f"unknown parameters: {', '.join(sorted(unknown))}", param_hint="--remove")
    started = time.monotonic()
    model = polydis.fit(
        Survey.open(survey),
        name=name or method,
        parameters=parameters,
        degree=degree,
        components=components,
        snr=snr,
        normalise=not true_continuum,
        error_floor=error_floor,
    )
    save_model(model, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    click.echo(f"{load_model(out).card.identity} written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    click.echo(f"{time.monotonic() - started:.0f} s, peak memory {peak:.1f} GB")


@cli.command()
@click.argument("model", type=FILE)
@click.option("--survey", type=FILE, required=True, help="a test survey without noise, not used in fitting")
@click.option("--snr", default="inf,100,50,30", show_default=True, help="noise levels, comma-separated")
@click.option("--json", "json_out", type=OUT, help="write the figures here too")
def evaluate(model: Path, survey: Path, snr: str, json_out: Path | None) -> None:
    """Measure twin recovery and recasting on a test survey (paper, figure 3, tables 3 and 4)."""
    from dataclasses import asdict

    from model.bundle import load_model
    from training.evaluate import recast_errors, twin_recovery
    from training.survey import Survey

    loaded, test = load_model(model), Survey.open(survey)
    if test.seed is not None and test.seed == loaded.card.training.get("survey_seed"):
        raise click.ClickException("this survey has the seed of the training survey: draw another")
    recovery = [twin_recovery(loaded, test, float(level)) for level in snr.split(",")]
    recasts = recast_errors(loaded, test)
    click.echo(f"\n{loaded.card.identity} on {len(test)} stars of {survey.name}")
    click.echo("| S/N | twin is nearest | fewer than 10 doppelgangers | ROC area |\n|---|---|---|---|")
    for row in recovery:
        click.echo(f"| {row.snr:g} | {row.recovered:.3f} | {row.within_ten:.3f} | {row.auc:.4f} |")
    click.echo("\n| twins recast | from | mean absolute residual | mean squared residual |\n|---|---|---|---|")
    for recast in recasts:
        click.echo(f"| {recast.pairs} | {recast.way} | {recast.residual:.5f} | {recast.squared:.3g} |")
    if json_out is not None:
        figures: dict[str, Any] = {
            "model": loaded.card.identity,
            "stars": len(test),
            "recovery": [asdict(row) for row in recovery],
            "recast": [asdict(recast) for recast in recasts],
        }
        json_out.write_text(json.dumps(figures, indent=1) + "\n")


def main() -> None:
    """Entry point; an error of ours becomes one line."""
    from index.store import StoreError

    try:
        cli()
    except (ChemtwinError, StoreError, ValueError, OSError) as error:
        click.echo(f"chemtwin: {error}", err=True)
        sys.exit(1)

"""The command line: see `chemtwin --help`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app.cli import catalogue as bulk_cli
from app.cli.path_options import FILE, OUT
from model.errors import InputError


class Lazy(click.Group):
    """A group whose training commands are imported only when they are asked for."""

    lazy = {  # noqa: RUF012
        "emulator": ("training.emulator.fit_emulator", ("fit", "evaluate", "validation"), "emulator_"),
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
@click.option("--debug", is_flag=True, help="show the traceback of every error")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Find the chemical twins of a star straight from its spectrum."""
    context.ensure_object(dict)["debug"] = debug


@cli.command()
def serve() -> None:
    """Run the service; settings are environment variables CHEMTWIN_... (docs/settings.md)."""
    import os
    import tempfile
    from contextlib import ExitStack

    import uvicorn

    from app.metrics import FOLDER
    from app.operations import logs
    from app.settings import keys, read_settings
    from index.stores.open_store import open_store

    settings = read_settings()
    if not settings.loopback and not keys(settings.api_keys):
        raise click.ClickException(
            f"refusing to listen on {settings.host} without keys: set CHEMTWIN_API_KEYS, "
            "or leave CHEMTWIN_HOST at 127.0.0.1"
        )
    open_store(settings.place).close()
    logs.configure(settings.log_format, settings.log_level)
    with ExitStack() as stack:
        if settings.workers > 1:
            folder = tempfile.TemporaryDirectory(prefix="chemtwin-metrics-")
            os.environ[FOLDER] = stack.enter_context(folder)
        uvicorn.run(
            "app.application:create_app",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=settings.stop_timeout_s,
        )


@cli.command()
def doctor() -> None:
    """Check settings, model, data folder, store and search, and say what to do about what is wrong."""
    from app.cli.doctor import examine

    failed = False
    for finding in examine():
        click.echo(f"{finding.level:4}  {finding.subject:9} {finding.message}")
        failed = failed or finding.level == "FAIL"
    if failed:
        raise SystemExit(1)


@cli.command()
@click.argument("labels", type=FILE)
@click.option("--out", type=OUT, required=True, help="the chemistry file to write")
def chemistry(labels: Path, out: Path) -> None:
    """Fit the distribution of real giants' labels to a CSV table (docs/realistic-survey.md)."""
    from training.emulator.emulator import Emulator
    from training.surveys.chemistry import fit_chemistry
    from training.surveys.synthetic_survey import TABLE_1

    emulator = Emulator.load()
    iron = emulator.labels.index("fe_h")
    fitted = fit_chemistry(labels, {**TABLE_1, "fe_h": (float(emulator.lo[iron]), float(emulator.hi[iron]))})
    fitted.save(out)
    click.echo(fitted.table())


@cli.command()
@click.argument("out", type=OUT)
@click.option(
    "--pairs", default=25_000, show_default=True, type=click.IntRange(1), help="twin pairs, or groups"
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option(
    "--snr", default=float("inf"), show_default=True, type=click.FloatRange(1), help="noise of 1/snr per pixel"
)
@click.option(
    "--members", default=2, show_default=True, type=click.IntRange(1, 26), help="stars that share a chemistry"
)
@click.option("--own-fe-h", is_flag=True, help="twins share [X/Fe] only, each star has its own [Fe/H]")
@click.option(
    "--chemistry",
    type=click.Choice(["paper", "realistic"]),
    default="paper",
    show_default=True,
    help="independent Gaussians, or the distribution of real giants",
)
@click.option(
    "--broadening",
    type=(float, float),
    metavar="LOW HIGH",
    help="each star's own Gaussian line broadening, standard deviation in km/s, as dataset vbroad",
)
def synthesize(
    out: Path,
    pairs: int,
    seed: int,
    snr: float,
    members: int,
    own_fe_h: bool,
    chemistry: str,
    broadening: tuple[float, float] | None,
) -> None:
    """Draw a twin survey (paper, section 4.1) into an HDF5 file."""
    from training.emulator.emulator import Emulator
    from training.surveys import synthetic_survey
    from training.surveys.chemistry import Chemistry

    drawn_from = Chemistry.load() if chemistry == "realistic" else None
    synthetic_survey.synthesize(
        out,
        Emulator.load(),
        pairs,
        seed,
        snr,
        members=members,
        own_fe_h=own_fe_h,
        chemistry=drawn_from,
        broadening=broadening,
    )


@cli.command()
@click.argument("survey", type=FILE)
@click.option("--out", type=OUT, required=True, help="the model file to write")
@click.option(
    "--method", type=click.Choice(["polydis", "factordis", "faderdis"]), default="faderdis", show_default=True
)
@click.option("--preset", type=click.Choice(["compact", "paper"]), default="compact", show_default=True)
@click.option("--config", "config_file", type=FILE, help="a TOML file instead of a preset")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="change one key, e.g. --set kl=0.5; repeatable"
)
@click.option("--validation", type=FILE, help="a survey of pairs that decides when to stop")
@click.option("--name", default=None, help="the model's name; the method's by default")
@click.option("--device", default=None, help="cuda or cpu; the best there is by default")
def train(
    survey: Path,
    out: Path,
    method: str,
    preset: str,
    config_file: Path | None,
    changes: tuple[str, ...],
    validation: Path | None,
    name: str | None,
    device: str | None,
) -> None:
    """Fit a model on a survey file; a stopped run goes on where it was (docs/training.md)."""
    from training.config import PRESETS, read_config
    from training.train import train_model

    config = read_config(config_file or PRESETS / f"{method}-{preset}.toml", changes)
    click.echo(train_model(survey, validation, config, out, name=name or config.method, device=device))


@cli.command()
@click.argument("survey", type=FILE)
@click.option("--validation", type=FILE, required=True, help="the survey of pairs that judges")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="for the trials"
)
@click.option("--method", type=click.Choice(["factordis", "faderdis"]), default="faderdis", show_default=True)
@click.option("--preset", type=click.Choice(["compact", "paper"]), default="compact", show_default=True)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="change one key of the preset")
@click.option("--weights", default="disentangle", show_default=True, help="keys to search, comma-separated")
@click.option("--trials", default=20, show_default=True, type=click.IntRange(1))
@click.option("--device", default=None, help="cuda or cpu; the best there is by default")
def search(
    survey: Path,
    validation: Path,
    folder: Path,
    method: str,
    preset: str,
    changes: tuple[str, ...],
    weights: str,
    trials: int,
    device: str | None,
) -> None:
    """Search a network's loss weights on a validation survey."""
    from training.config import PRESETS, NetworkConfig, read_config
    from training.networks.weight_search import search as run
    from training.surveys.survey import Survey
    from training.train import choose_device

    config = read_config(PRESETS / f"{method}-{preset}.toml", changes)
    assert isinstance(config, NetworkConfig)
    surveys = Survey.open(survey), Survey.open(validation)
    keys = tuple(weights.split(","))
    click.echo(run(*surveys, config, folder, keys=keys, trials=trials, device=choose_device(device)))


@cli.command()
@click.argument("start", type=FILE)
@click.argument("survey", type=FILE)
@click.option("--out", type=OUT, required=True, help="the model file to write")
@click.option("--name", default="gaussdis", show_default=True, help="the model's name")
def refine(start: Path, survey: Path, out: Path, name: str) -> None:
    """Make GaussDis, noise-aware, of the compact FaderDis or FactorDis START, on its training survey."""
    from model.bundle import load_model, save_model
    from model.methods.autoencoder import Autoencoder
    from training.fitting import gaussdis
    from training.surveys.survey import Survey

    model = load_model(start)
    if not isinstance(model, Autoencoder):
        raise InputError(f"{start} is a {model.card.method}: refine takes a faderdis or factordis")
    save_model(gaussdis.refine(model, Survey.open(survey), name), out)
    click.echo(f"{load_model(out).card.identity} written to {out}")


@cli.command()
@click.argument("model", type=FILE)
@click.argument("survey", type=FILE)
@click.option("--pairs", type=FILE, required=True, help="CSV of known pairs: star_id, twin_id")
@click.option("--find", is_flag=True, help="fit the response to the twins that the model then finds in SURVEY")
@click.option("--out", type=OUT, required=True, help="the model file to write")
@click.option("--name", default="gaussdis", show_default=True, help="the model's name")
def calibrate(model: Path, survey: Path, pairs: Path, find: bool, out: Path, name: str) -> None:
    """Calibrate a GaussDis MODEL on known pairs of chemically identical stars in SURVEY."""
    from model.bundle import load_model, save_model
    from model.methods.gaussdis import GaussDis
    from training.fitting.calibrate import calibrate as calibrate_model
    from training.surveys.pairs import read_pairs
    from training.surveys.survey import Survey

    given = load_model(model)
    if not isinstance(given, GaussDis):
        raise InputError(f"{model} is a {given.card.method}: calibrate takes a gaussdis")
    stars = Survey.open(survey)
    known = read_pairs(pairs, stars)
    calibrated = calibrate_model(given, stars, known, name, find)
    save_model(calibrated, out)
    found = calibrated.card.training.get("found_pairs", 0)
    beside = f" and {found} that it found" if found else ""
    click.echo(f"{load_model(out).card.identity} written to {out}, calibrated on {len(known)} pairs{beside}")


@cli.command()
@click.argument("models", type=FILE, nargs=-1, required=True)
@click.option(
    "--survey",
    "pairs",
    type=FILE,
    multiple=True,
    required=True,
    help="pairs without noise, not used in training",
)
@click.option("--groups", type=FILE, help="a survey of groups, for group finding")
@click.option("--abundances", type=FILE, help="a survey that teaches the map from latents to abundances")
@click.option(
    "--report", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of the report"
)
def evaluate(
    models: tuple[Path, ...],
    pairs: tuple[Path, ...],
    groups: Path | None,
    abundances: Path | None,
    report: Path,
) -> None:
    """Measure models on test surveys and write a report (the paper's figures 2 to 6, tables 3 and 4)."""
    from training.evaluation import report as reports
    from training.surveys.survey import Survey

    surveys = reports.Surveys.sorted(
        [Survey.open(path) for path in pairs],
        None if groups is None else Survey.open(groups),
        None if abundances is None else Survey.open(abundances),
    )
    click.echo(reports.evaluate(models, surveys, report))


@cli.command()
@click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@click.option("--survey", type=FILE, required=True, help="pairs without noise, not used in training")
@click.option(
    "--report", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of a report"
)
@click.option("--stars", type=click.IntRange(2), help="use the survey's first stars only")
def robustness(models: tuple[Path, ...], survey: Path, report: Path, stars: int | None) -> None:
    """Measure how many twins models find in spectra perturbed as real ones are."""
    from training.evaluation.report import measure_robustness
    from training.surveys.survey import Survey

    click.echo(measure_robustness(models, Survey.open(survey), report, stars))


@cli.command()
@click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@click.option("--groups", type=FILE, required=True, help="a survey of groups without noise")
@click.option(
    "--report", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of a report"
)
def rates(models: tuple[Path, ...], groups: Path, report: Path) -> None:
    """Measure how many random pairs look more alike than siblings do (doppelganger rates)."""
    from training.evaluation.rates import measure_rates
    from training.surveys.survey import Survey

    click.echo(measure_rates(models, Survey.open(groups), report))


@cli.command()
@click.argument("surveys", type=FILE, nargs=-1, required=True, metavar="SURVEY...")
@click.option(
    "--report", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of the report"
)
@click.option(
    "--pairs", default=5000, show_default=True, type=click.IntRange(1), help="twin pairs picked at random"
)
def limit(surveys: tuple[Path, ...], report: Path, pairs: int) -> None:
    """Measure how many twins the noise lets one find who knows the generator (docs/limit.md)."""
    from training.evaluation.limit import measure

    click.echo(measure(surveys, report, pairs))


@cli.command()
@click.argument("model", type=FILE)
@click.option(
    "--report",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="a report's folder",
)
@click.option("--out", type=OUT, required=True, help="the model file to write")
def card(model: Path, report: Path, out: Path) -> None:
    """Write a model with a report's figures in its card."""
    from training.evaluation.report import describe

    describe(model, report, out)


@cli.command()
@click.argument("model", type=FILE)
@click.argument("survey", type=FILE)
@click.argument("test", type=FILE)
@click.option("--out", type=OUT, required=True, help="the model file to write")
def readout(model: Path, survey: Path, test: Path, out: Path) -> None:
    """Write a model with a linear readout of SURVEY's abundances, and print its errors on TEST.

    Both are noiseless surveys with known abundances. No latent changes: the model keeps its version.
    """
    from training.fitting.abundance_readout import add_readout

    click.echo(add_readout(model, survey, test, out))


@cli.command()
@click.argument("model", type=FILE)
@click.argument("stars", type=FILE)
@click.option(
    "--report", type=click.Path(file_okay=False, path_type=Path), help="folder of visits.md and .html"
)
def visits(model: Path, stars: Path, report: Path | None) -> None:
    """Compare a model's latents of real stars: visits of one star, its files, and different stars.

    STARS is a CSV with columns star, file, teff, logg, fe_h.
    """
    from model.bundle import load_model
    from training.evaluation.visits import visits as compared

    text = compared(stars, load_model(model))
    if report is not None:
        from training.reports.html_page import publish

        report.mkdir(parents=True, exist_ok=True)
        publish(report, "visits", text)
    click.echo(text)


for command in bulk_cli.COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Entry point; `app.cli.errors` says what is printed of an error."""
    options: dict[str, bool] = {}
    try:
        cli(obj=options)
    except Exception as error:
        from app.cli.errors import report

        report(error, options.get("debug", False))
        sys.exit(1)

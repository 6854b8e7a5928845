"""`chemtwin model`: make and judge model files (docs/reference/training.md)."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli import observed
from app.cli.options import CHANGES, DEVICE, FILE, MODEL_OUT, MODELS, NAME, OUT, PRESET, REPORT, example
from model.errors import InputError


@click.group(epilog=example("model train survey.h5 --out model.safetensors"))
def model() -> None:
    """Train, calibrate and evaluate models."""


@model.command(epilog=example("model train survey.h5 --out model.safetensors"))
@click.argument("survey", type=FILE)
@MODEL_OUT
@click.option(
    "--method",
    type=click.Choice(["gaussdis", "polydis", "factordis", "faderdis"]),
    default="gaussdis",
    show_default=True,
    help="how to train; gaussdis takes groups of stars of one chemistry, with noise or without",
)
@click.option(
    "--start",
    type=FILE,
    help="for gaussdis and a survey with noise: the model to start from; that of the giant branch by default",
)
@PRESET
@click.option("--config", "config_file", type=FILE, help="a TOML file instead of a preset")
@CHANGES
@click.option(
    "--validation",
    type=FILE,
    help="a survey of pairs that decides when to stop; for gaussdis it measures the errors",
)
@click.option("--name", default=None, help="the model's name; the method's by default")
@DEVICE
def train(
    survey: Path,
    out: Path,
    method: str,
    start: Path | None,
    preset: str,
    config_file: Path | None,
    changes: tuple[str, ...],
    validation: Path | None,
    name: str | None,
    device: str | None,
) -> None:
    """Train a model on a survey (docs/reference/training.md).

    After a stop the same command goes on where it was.
    """
    from training.config import preset_path, read_config
    from training.train import train_gaussdis_model, train_model

    if method == "gaussdis":
        if config_file or changes:
            raise click.UsageError("gaussdis takes no --config and no --set")
        click.echo(train_gaussdis_model(survey, start, validation, out, name=name or method, device=device))
        return
    if start is not None:
        raise click.UsageError(f"{method} takes no --start")
    config = read_config(config_file or preset_path(method, preset), changes)
    click.echo(train_model(survey, validation, config, out, name=name or config.method, device=device))


@model.command(epilog=example("model refine faderdis.safetensors survey.h5 --out gaussdis.safetensors"))
@click.argument("start", type=FILE)
@click.argument("survey", type=FILE)
@MODEL_OUT
@NAME
def refine(start: Path, survey: Path, out: Path, name: str) -> None:
    """Make a noise-aware GaussDis from the compact FaderDis or FactorDis START.

    SURVEY is the survey that START was trained on.
    """
    from model.bundle import load_model, save_model
    from model.methods.autoencoder import Autoencoder
    from training.fitting import gaussdis
    from training.surveys.survey import Survey

    model = load_model(start)
    if not isinstance(model, Autoencoder):
        raise InputError(f"{start} is a {model.card.method}: refine takes a faderdis or factordis")
    save_model(gaussdis.refine(model, Survey.open(survey), name), out)
    click.echo(f"{load_model(out).card.identity} written to {out}")


@model.command(
    epilog=example("model calibrate free.safetensors survey.h5 --pairs pairs.csv --out calibrated.safetensors")
)
@click.argument("model", type=FILE)
@click.argument("survey", type=FILE)
@click.option("--pairs", type=FILE, required=True, help="CSV of known pairs: star_id, twin_id")
@click.option("--find", is_flag=True, help="fit the response to the twins that the model then finds in SURVEY")
@MODEL_OUT
@NAME
def calibrate(model: Path, survey: Path, pairs: Path, find: bool, out: Path, name: str) -> None:
    """Calibrate a GaussDis MODEL on pairs known as twins.

    The pairs are of chemically identical stars in SURVEY.
    """
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


@model.command(epilog=example("model readout model.safetensors train.h5 groups.h5 --out mine.safetensors"))
@click.argument("model", type=FILE)
@click.argument("survey", type=FILE)
@click.argument("test", type=FILE)
@MODEL_OUT
def readout(model: Path, survey: Path, test: Path, out: Path) -> None:
    """Write a copy of MODEL with a linear readout of abundances.

    It is fitted to SURVEY, and its errors on TEST are printed.

    Both are noiseless surveys with known abundances. No latent changes: the model keeps its version.
    """
    from training.fitting.abundance_readout import add_readout

    click.echo(add_readout(model, survey, test, out))


@model.command(epilog=example("model evaluate model.safetensors --survey test.h5 --report report"))
@MODELS
@click.option(
    "--survey",
    "pairs",
    type=FILE,
    multiple=True,
    required=True,
    help="pairs without noise, not used in training",
)
@click.option("--groups", type=FILE, help="a survey of groups, to measure how well groups are found")
@click.option("--abundances", type=FILE, help="a survey to fit the map from latents to abundances to")
@REPORT
def evaluate(
    models: tuple[Path, ...],
    pairs: tuple[Path, ...],
    groups: Path | None,
    abundances: Path | None,
    report: Path,
) -> None:
    """Measure models on test surveys, and write a report.

    It has the paper's figures 2 to 6 and tables 3 and 4.
    """
    from training.evaluation import report as reports
    from training.surveys.survey import Survey

    surveys = reports.Surveys.sorted(
        [Survey.open(path) for path in pairs],
        None if groups is None else Survey.open(groups),
        None if abundances is None else Survey.open(abundances),
    )
    click.echo(reports.evaluate(models, surveys, report))


@model.command(epilog=example("model card model.safetensors"))
@click.argument("model", type=FILE)
@click.option(
    "--report", type=click.Path(exists=True, file_okay=False, path_type=Path), help="a report's folder"
)
@click.option("--out", type=OUT, help="write a copy of MODEL with the report's figures in its card")
def card(model: Path, report: Path | None, out: Path | None) -> None:
    """Print MODEL's card: its domain, its training and its measured quality, as GET /model has them."""
    if (report is None) != (out is None):
        raise click.UsageError("--report and --out go together")
    if report is not None and out is not None:
        from training.evaluation.report import describe

        describe(model, report, out)
        return
    import orjson

    from app.inference.model_card import described
    from model.bundle import load_model

    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    click.echo(orjson.dumps(described(load_model(model)), option=options))


model.add_command(observed.adapt)
model.add_command(observed.siblings)

"""`chemtwin lab`: measurements of methods, surveys and the emulator, for those who change them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import click

from app.cli.options import CHANGES, DEVICE, FILE, FOLDER, MODELS, OUT, PRESET, REPORT, example


class LazyGroup(click.Group):
    """A group whose module is imported when one of its commands is needed.

    Parameters
    ----------
    name, help, epilog
        As of every group of click.
    module
        The name of the module.
    commands
        The names of the commands in the module.
    """

    def __init__(self, name: str, help: str, epilog: str, module: str, commands: Sequence[str]) -> None:
        super().__init__(name, help=help, epilog=epilog)
        self._module, self._attributes = module, commands

    def _load(self) -> None:
        if not self.commands:
            module = importlib.import_module(self._module)
            for attribute in self._attributes:
                self.add_command(getattr(module, attribute))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        self._load()
        return super().get_command(ctx, cmd_name)


@click.group(epilog=example("lab rates model.safetensors --groups groups.h5 --report report"))
def lab() -> None:
    """Measure methods, surveys and the emulator; for research."""


lab.add_command(
    LazyGroup(
        "emulator",
        "Fit and measure the spectral emulator.",
        example("lab emulator evaluate --report report"),
        "training.emulator.fit_emulator",
        ("emulator_fit", "emulator_evaluate", "emulator_validation"),
    )
)
lab.add_command(
    LazyGroup(
        "turbospectrum",
        "Compute spectra with Turbospectrum.",
        example("lab turbospectrum grid --out grid.h5 --turbospectrum build"),
        "training.turbospectrum.grid",
        ("grid", "responses"),
    )
)


@lab.command(epilog=example("lab limit test.h5 groups.h5 --report limit"))
@click.argument("surveys", type=FILE, nargs=-1, required=True, metavar="SURVEY...")
@REPORT
@click.option(
    "--pairs", default=5000, show_default=True, type=click.IntRange(1), help="twin pairs picked at random"
)
def limit(surveys: tuple[Path, ...], report: Path, pairs: int) -> None:
    """Measure the most twins that can be found (docs/explanation/limit.md)."""
    from training.evaluation.limit import measure

    click.echo(measure(surveys, report, pairs))


@lab.command(epilog=example("lab rates model.safetensors --groups groups.h5 --report report"))
@MODELS
@click.option("--groups", type=FILE, required=True, help="a survey of groups without noise")
@REPORT
def rates(models: tuple[Path, ...], groups: Path, report: Path) -> None:
    """Measure doppelganger rates.

    They are the fractions of random pairs at least as alike as siblings.
    """
    from training.evaluation.rates import measure_rates
    from training.surveys.survey import Survey

    click.echo(measure_rates(models, Survey.open(groups), report))


@lab.command(epilog=example("lab robustness model.safetensors --survey test.h5 --report report"))
@MODELS
@click.option("--survey", type=FILE, required=True, help="pairs without noise, not used in training")
@REPORT
@click.option("--stars", type=click.IntRange(2), help="use the survey's first stars only")
def robustness(models: tuple[Path, ...], survey: Path, report: Path, stars: int | None) -> None:
    """Measure twins found in spectra perturbed as real ones are."""
    from training.evaluation.robustness import measure_robustness
    from training.surveys.survey import Survey

    click.echo(measure_robustness(models, Survey.open(survey), report, stars))


@lab.command(epilog=example("lab visits model.safetensors stars.csv"))
@click.argument("model", type=FILE)
@click.argument("stars", type=FILE)
@click.option("--report", type=FOLDER, help="folder of visits.md and .html")
def visits(model: Path, stars: Path, report: Path | None) -> None:
    """Compare the latents of repeat observations of real stars.

    They are compared by visits of one star, by its files, and with different stars.

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


@lab.command(
    "search-weights", epilog=example("lab search-weights train.h5 --validation pairs.h5 --folder search")
)
@click.argument("survey", type=FILE)
@click.option(
    "--validation", type=FILE, required=True, help="the survey of pairs that the trials are judged by"
)
@click.option("--folder", type=FOLDER, required=True, help="folder of the trials")
@click.option(
    "--method",
    type=click.Choice(["factordis", "faderdis"]),
    default="faderdis",
    show_default=True,
    help="how to train",
)
@PRESET
@CHANGES
@click.option("--weights", default="disentangle", show_default=True, help="keys to search, comma-separated")
@click.option("--trials", default=20, show_default=True, type=click.IntRange(1), help="how many trials")
@DEVICE
def search_weights(
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
    from training.config import NetworkConfig, preset_path, read_config
    from training.networks.weight_search import search as run
    from training.surveys.survey import Survey
    from training.train import choose_device

    config = read_config(preset_path(method, preset), changes)
    assert isinstance(config, NetworkConfig)
    surveys = Survey.open(survey), Survey.open(validation)
    keys = tuple(weights.split(","))
    click.echo(run(*surveys, config, folder, keys=keys, trials=trials, device=choose_device(device)))


@lab.command(epilog=example("lab chemistry labels.csv --out chemistry.json"))
@click.argument("labels", type=FILE)
@click.option("--out", type=OUT, required=True, help="the chemistry file to write")
@click.option("--branch", is_flag=True, help="of the whole giant branch, not of the paper's ranges")
def chemistry(labels: Path, out: Path, branch: bool) -> None:
    """Fit the distribution of labels of real giants.

    LABELS is a CSV table (research/realistic-survey.md).
    """
    from training.emulator.emulator import Emulator
    from training.surveys.branch import RANGES
    from training.surveys.chemistry import fit_chemistry
    from training.surveys.paper_tables import TABLE_1

    emulator = Emulator.load()
    iron = emulator.labels.index("fe_h")
    paper = {**TABLE_1, "fe_h": (float(emulator.lo[iron]), float(emulator.hi[iron]))}
    fitted = fit_chemistry(labels, RANGES if branch else paper)
    fitted.save(out)
    click.echo(fitted.table())


@lab.command(
    "evaluate-latents",
    epilog=example("lab evaluate-latents mine.npz --survey test.h5 --limit research/report/limit.json"),
)
@click.argument("latents", type=FILE)
@click.option("--survey", type=FILE, required=True, help="pairs or groups without noise")
@click.option(
    "--removed",
    type=click.Choice(["teff,logg,fe_h", "teff,logg"]),
    default="teff,logg,fe_h",
    show_default=True,
    help="the parameters that the method was given",
)
@click.option("--limit", type=FILE, help="limit.json of chemtwin lab limit, to compare with")
@click.option("--out", type=OUT, help="a JSON file for the figures")
def evaluate_latents(latents: Path, survey: Path, removed: str, limit: Path | None, out: Path | None) -> None:
    """Measure any method's latents exactly as a model's (research/benchmark.md).

    LATENTS is an npz file with star_id, and latent_inf, latent_100 and so on for each noise level.
    """
    import json

    from training.evaluation.latent_file import latents_report, measure_latents
    from training.surveys.survey import Survey

    limits = {} if limit is None else json.loads(limit.read_text())
    found = measure_latents(latents, Survey.open(survey), tuple(removed.split(",")), limits)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    click.echo(latents_report(found))


@lab.command(epilog=example("lab checksums test.h5"))
@click.argument("surveys", type=FILE, nargs=-1, required=True, metavar="SURVEY...")
def checksums(surveys: tuple[Path, ...]) -> None:
    """Print what tells a reference survey from another (research/benchmark.md).

    It is a digest of the first stars' labels, and some of their fluxes.
    """
    from training.surveys.checksums import checksums as computed
    from training.surveys.survey import Survey

    for path in surveys:
        click.echo(f"{path.stem}: {computed(Survey.open(path))}")

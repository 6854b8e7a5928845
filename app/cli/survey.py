"""`chemtwin survey`: make and check survey files (docs/file-formats.md)."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.options import FILE, OUT, example


@click.group(epilog=example("survey synthesize survey.h5 --pairs 1000"))
def survey() -> None:
    """Make and check surveys, files of many spectra with labels."""


@survey.command(epilog=example("survey synthesize survey.h5 --pairs 1000 --snr 100"))
@click.argument("out", type=OUT)
@click.option(
    "--pairs", default=25_000, show_default=True, type=click.IntRange(1), help="twin pairs, or groups"
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="of every random draw")
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
    from training.surveys.chemistry import Chemistry
    from training.surveys.synthetic_survey import synthesize as run

    run(
        out,
        Emulator.load(),
        pairs,
        seed,
        snr,
        members=members,
        own_fe_h=own_fe_h,
        chemistry=Chemistry.load() if chemistry == "realistic" else None,
        broadening=broadening,
    )


@survey.command(epilog=example("survey check survey.h5"))
@click.argument("surveys", type=FILE, nargs=-1, required=True, metavar="SURVEY...")
def check(surveys: tuple[Path, ...]) -> None:
    """Print what surveys have, or all that is wrong with one.

    A group whose members are too far apart in [Fe/H] is named too.
    """
    from training.surveys.survey_description import describe
    from training.surveys.survey import Survey

    for path in surveys:
        click.echo("\n".join(describe(Survey.open(path))))

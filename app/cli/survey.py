"""`chemtwin survey`: make and check survey files (docs/reference/file-formats.md)."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.options import FILE, FOLDER, OUT, example


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
    type=click.Choice(["paper", "realistic", "branch", "realistic-branch"]),
    default="paper",
    show_default=True,
    help="independent Gaussians or real giants, in the paper's ranges or along the giant branch",
)
@click.option(
    "--broadening",
    type=(float, float),
    metavar="LOW HIGH",
    help="each star's own Gaussian line broadening, standard deviation in km/s, as dataset vbroad",
)
@click.option(
    "--clusters",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="also draw so many clusters of 3 to 15",
)
@click.option("--observed", is_flag=True, help="noise, masks and errors of labels as APOGEE has them")
@click.option("--unmasked", is_flag=True, help="with --observed: no pixel is masked")
def synthesize(
    out: Path,
    pairs: int,
    seed: int,
    snr: float,
    members: int,
    own_fe_h: bool,
    chemistry: str,
    broadening: tuple[float, float] | None,
    clusters: int,
    observed: bool,
    unmasked: bool,
) -> None:
    """Draw a twin survey (paper, section 4.1) into an HDF5 file."""
    from training.emulator.emulator import BRANCH_PATH, DEFAULT_PATH, Emulator
    from training.surveys.branch import BRANCH_CHEMISTRY
    from training.surveys.chemistry import SHIPPED, Chemistry
    from training.surveys.synthetic_survey import synthesize as run

    if unmasked and not observed:
        raise click.UsageError("--unmasked is for --observed: without it no pixel is masked")
    branch = chemistry.endswith("branch")
    run(
        out,
        Emulator.load(BRANCH_PATH if branch else DEFAULT_PATH),
        pairs,
        seed,
        snr,
        members=members,
        own_fe_h=own_fe_h,
        chemistry=(
            Chemistry.load(BRANCH_CHEMISTRY if branch else SHIPPED)
            if chemistry.startswith("realistic")
            else None
        ),
        branch=branch,
        broadening=broadening,
        clusters=clusters,
        observed=observed,
        unmasked=unmasked,
    )


@survey.command(epilog=example("survey build spectra --labels allStar.fits --out survey.h5"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--labels", type=FILE, help="the table of the stars, such as allStar.fits")
@click.option("--out", type=OUT, required=True, help="the survey to write")
@click.option(
    "--groups",
    type=FILE,
    help="CSV of stars of one chemistry, instead of their clusters: star_id, group or star_id, twin_id",
)
@click.option(
    "--min-snr", default=1.0, show_default=True, type=click.FloatRange(1), help="lowest S/N per pixel"
)
@click.option(
    "--flags",
    multiple=True,
    metavar="COLUMN:BIT,...",
    help="flags that exclude a star, instead of STAR_BAD and those of bad spectra; or none; repeatable",
)
@click.option("--report", type=FOLDER, help="folder of the report; beside the survey by default")
@click.option("--workers", type=click.IntRange(1), help="processes that read; one a core by default")
def build(
    folder: Path,
    labels: Path | None,
    out: Path,
    groups: Path | None,
    min_snr: float,
    flags: tuple[str, ...],
    report: Path | None,
    workers: int | None,
) -> None:
    """Build a survey from the spectra in FOLDER and the archive's table of labels.

    FOLDER and its subfolders hold apStar, aspcapStar or mwmStar files, npz or HDF5. After a stop the same
    command goes on where it was. The tutorial is docs/tutorials/your-own-survey.md.
    """
    from app.bulk.readers.array_reader import HDF5
    from app.bulk.survey_build.build import build as run
    from app.bulk.survey_build.flags import chosen_flags
    from app.bulk.survey_build.messages import messages
    from app.bulk.survey_build.stored_block import BuildOptions
    from app.bulk.survey_build.working_folder import working_folder
    from app.operations.cores import cores
    from app.settings import read_settings
    from model.bundle import SHIPPED
    from model.errors import InputError

    if out.suffix not in HDF5:
        raise InputError(f"{out}: a survey is an HDF5 file, so its name ends in {' or '.join(HDF5)}")
    settings = read_settings(None, None).model_copy(update={"model": SHIPPED})
    chosen = chosen_flags(flags)
    if chosen and labels is None:
        raise InputError("--flags names columns of the table of labels: give --labels")
    options = BuildOptions(folder.resolve(), working_folder(out), labels, chosen, min_snr, settings)
    report = report or out.with_name(f"{out.stem}-report")
    built = run(options, out, groups, report, workers or cores())
    for line in messages(built, report):
        click.echo(line)


@survey.command(epilog=example("survey check survey.h5"))
@click.argument("surveys", type=FILE, nargs=-1, required=True, metavar="SURVEY...")
def check(surveys: tuple[Path, ...]) -> None:
    """Print what surveys have, or all that is wrong with one.

    A group whose members are too far apart in [Fe/H] is named too.
    """
    from training.surveys.survey import Survey
    from training.surveys.survey_description import describe

    for path in surveys:
        click.echo("\n".join(describe(Survey.open(path))))

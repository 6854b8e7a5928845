"""`chemtwin model adapt` and `siblings`: a model meets observed stars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.options import FILE, MODEL_OUT, example
from model.errors import ChemtwinError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.methods.gaussdis import GaussDis
    from model.spectra.spectrum import Spectrum

READ_AT_ONCE = 256


def _stars(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.argument("model", type=FILE),
            click.argument("stars", type=click.Path(exists=True, path_type=Path)),
            click.option("--labels", type=FILE, help="the table of the stars, where STARS is a folder"),
        ]
    ):
        command = option(command)
    return command


@click.command(
    epilog=example(
        "model adapt model/reference.safetensors stars.h5 --siblings siblings.csv --out adapted.safetensors"
    )
)
@_stars
@click.option("--siblings", type=FILE, help="CSV of stars known to share their chemistry: star_id, group")
@MODEL_OUT
@click.option("--name", default=None, help="the model's name; the old one and -adapted by default")
def adapt(
    model: Path, stars: Path, labels: Path | None, siblings: Path | None, out: Path, name: str | None
) -> None:
    """Adapt a GaussDis MODEL to observed STARS.

    STARS are a survey (.h5), an npz, or a folder of FITS files, all with errors. With siblings each group is
    also left out once, and the scores before and after are printed.
    """
    from model.bundle import load_model, save_model
    from training.evaluation.siblings import always, by_model, scores, table
    from training.fitting.adapt import adapt as adapt_model
    from training.fitting.adapt import adapted_without

    given = _gaussdis(model)
    star_ids, spectra = _read(given, stars, labels)
    group = _groups(siblings, star_ids)
    if (group >= 0).any():
        members = _members(star_ids, spectra, group)
        before, _ = scores(members, always(*by_model(members, given)))
        after, _ = scores(members, adapted_without(given, members, spectra, group))
        click.echo(table({"before": before, "adapted, group left out": after}))
        if after.auc < before.auc and after.nearest < before.nearest:
            raise InputError("the adapted model is worse on groups that it did not see: it was not written")
    adapted = adapt_model(given, spectra, group, name or f"{given.card.name}-adapted", stars.name)
    save_model(adapted, out)
    used = adapted.card.training["adapted"]
    click.echo(
        f"{load_model(out).card.identity} written to {out}, adapted to {used['stars']} stars, "
        f"{used['siblings']} of them in {used['groups']} groups"
    )


@click.command(epilog=example("model siblings model/reference.safetensors stars.h5 --siblings siblings.csv"))
@_stars
@click.option(
    "--siblings", type=FILE, required=True, help="CSV of stars known to share their chemistry: star_id, group"
)
@click.option("--adapt", "adapted", is_flag=True, help="also adapt MODEL, leaving out each group in turn")
def siblings(model: Path, stars: Path, labels: Path | None, siblings: Path, adapted: bool) -> None:
    """Measure how well siblings among STARS find each other with MODEL.

    Raw flux, flux less a polynomial of the parameters, PolyDis and, where STARS has them, abundances stand
    beside it.
    """
    import h5py
    import numpy as np

    from training.evaluation import siblings as scoring
    from training.fitting.adapt import adapted_without

    given = _gaussdis(model)
    star_ids, spectra = _read(given, stars, labels)
    group = _groups(siblings, star_ids)
    members = _members(star_ids, spectra, group)
    rows, same = {}, None
    for name, distance in scoring.by_flux(members, given).items():
        rows[name], _ = scoring.scores(members, scoring.always(distance))
    if stars.suffix == ".h5":
        with h5py.File(stars) as file:
            if "abundances" in file:
                number = {name: row for row, name in enumerate(np.asarray(file["star_id"]).astype(str))}
                values = np.array([file["abundances"][number[name]] for name in members.star_ids])
                values = np.column_stack([values, members.fe_h[0]])
                if np.isfinite(values).all():
                    rows["abundances"], _ = scoring.scores(members, scoring.by_abundances(members, values))
    ways = {given.card.name: scoring.always(*scoring.by_model(members, given))}
    if adapted:
        ways["adapted, group left out"] = adapted_without(given, members, spectra, group)
    for name, distances in ways.items():
        rows[f"{name}, by distance"], same = scoring.scores(members, distances)
        rows[f"{name}, by p_same"], _ = scoring.scores(members, scoring.by_p_same(distances))
    click.echo(scoring.table(rows))
    if same is not None and (alone := scoring.lonely(members, same)):
        click.echo(f"no sibling accepts: {', '.join(alone)}")


def _gaussdis(path: Path) -> GaussDis:
    from model.bundle import load_model
    from model.methods.gaussdis import GaussDis

    model = load_model(path)
    if not isinstance(model, GaussDis):
        raise InputError(f"{path} is a {model.card.method}: only a gaussdis can be adapted")
    return model


def _read(model: GaussDis, path: Path, labels: Path | None) -> tuple[list[str], list[Spectrum]]:
    """Ids and prepared spectra of the stars that can be used; the others are named."""
    from app.bulk.readers.open_stars import open_stars
    from app.bulk.readers.star_reader import InputFiles, RejectedStar
    from app.settings import read_settings
    from model.spectra.spectrum import prepare_all

    reader = open_stars(InputFiles.of(path, labels), read_settings(None, None), model.card.units)
    star_ids, spectra = [], []
    for start in range(0, len(reader), READ_AT_ONCE):
        read = reader.read(slice(start, start + READ_AT_ONCE))
        for bad in (star for star in read if isinstance(star, RejectedStar)):
            click.echo(f"{bad.star_id or 'a star without id'}: {bad.reason}", err=True)
        jobs = [star.job for star in read if not isinstance(star, RejectedStar)]
        found = prepare_all([job.observation for job in jobs], model.grid, model.normaliser)
        for job, spectrum in zip(jobs, found, strict=True):
            if isinstance(spectrum, ChemtwinError):
                click.echo(f"{job.star_id}: {spectrum}", err=True)
            else:
                star_ids.append(job.star_id or "")
                spectra.append(spectrum)
    return star_ids, spectra


def _groups(path: Path | None, star_ids: list[str]) -> NDArray[np.int64]:
    """The group (N,) of each star, -1 for those that the CSV does not name."""
    import numpy as np

    from training.surveys.csv_file import read_csv

    named: dict[str, str] = {}
    if path is not None:
        named = {line.cells["star_id"]: line.cells["group"] for line in read_csv(path, ("star_id", "group"))}
        if missing := sorted(set(named) - set(star_ids)):
            raise InputError(f"{path}: {len(missing)} stars are not among the spectra, {missing[0]} for one")
    names = sorted(set(named.values()))
    return np.array([names.index(named[s]) if s in named else -1 for s in star_ids], dtype=np.int64)


def _members(star_ids: list[str], spectra: list[Spectrum], group: NDArray[np.int64]) -> Any:
    import numpy as np

    from training.evaluation.siblings import Members

    rows = np.flatnonzero(group >= 0)
    if len(np.unique(group[rows])) < 3:
        raise InputError("leaving one group out takes at least three groups of siblings")
    return Members([spectra[r] for r in rows], [star_ids[r] for r in rows], group[rows])

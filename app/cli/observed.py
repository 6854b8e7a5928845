"""`chemtwin model adapt` and `siblings`: a model meets observed stars."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.options import FILE, FOLDER, MODEL_OUT, example
from model.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.bulk.observed_stars import Grouped, ObservedStars
    from model.methods.base import Card
    from model.methods.gaussdis import GaussDis
    from model.spectra.grid import Array
    from model.spectra.spectrum import Spectrum
    from training.evaluation.siblings import Distances, Members, Scores

STARS = click.Path(exists=True, path_type=Path)
LABELS = click.option("--labels", type=FILE, help="the table of the stars, where STARS is a folder")
SIBLINGS = click.option(
    "--siblings", type=FILE, help="CSV of stars known to share their chemistry: star_id, group"
)
CLUSTERS = click.option(
    "--clusters", is_flag=True, help="the stars of one cluster are siblings, as STARS or the catalogue has them"
)

FEWEST_ACCEPTED = 0.85
"""A fraction of siblings with `p_same` above 0.01 that is no longer usual."""

MOST_FAR_ACCEPTED, LARGEST_MEDIAN = 0.03, 0.75
"""The same for groups that are certainly different, and the median `p_same` of siblings: more is too much."""


@click.command(
    epilog=example(
        "model adapt model/reference.safetensors stars.h5 --siblings siblings.csv --out adapted.safetensors"
    )
)
@click.argument("model", type=FILE)
@click.argument("stars", type=STARS, required=False)
@LABELS
@click.option(
    "--catalogue", metavar="DATA_DIR_OR_STORE", help="instead of STARS: the spectra that a catalogue stores"
)
@SIBLINGS
@CLUSTERS
@MODEL_OUT
@click.option("--name", default=None, help="the model's name; the old one and -adapted by default")
def adapt(
    model: Path,
    stars: Path | None,
    labels: Path | None,
    catalogue: str | None,
    siblings: Path | None,
    clusters: bool,
    out: Path,
    name: str | None,
) -> None:
    """Adapt a GaussDis MODEL to observed STARS.

    STARS are a survey (.h5), an npz, or a folder of FITS files, with errors of the flux. With siblings each
    group is also left out once, and the scores before and after are printed.
    """
    from threadpoolctl import threadpool_limits

    from model.bundle import load_model, save_model
    from training.fitting.adapt import MOST
    from training.fitting.adapt import adapt as adapt_model

    if (stars is None) == (catalogue is None):
        raise click.UsageError("give STARS or --catalogue")
    if clusters and siblings is not None:
        raise click.UsageError("--clusters and --siblings both name groups: give one")
    threadpool_limits(1, user_api="blas")  # the threads that adapt share the cores
    given = _gaussdis(model)
    named = {} if siblings is None else _named(siblings)

    def grouped(star_id: str, cluster: str | None) -> bool:
        return star_id in named or (clusters and cluster is not None)

    if stars is not None:
        found = _read(given, stars, labels, grouped, MOST)
        source = stars.name
    else:
        found = _read_catalogue(given, str(catalogue), grouped, MOST)
        source = f"{len(found.star_ids)} stars of a catalogue"
    if clusters:
        found, named = _of_clusters(found, source)
    elif siblings is None and (of_clusters := sum(name is not None for name in found.clusters)):
        click.echo(
            f"{of_clusters} stars have a cluster, which is not used: --clusters takes the stars of one for "
            "siblings, and leaves globular clusters out",
            err=True,
        )
    star_ids, spectra = found.star_ids, found.spectra
    group = _groups(named, star_ids, siblings)
    quality = _left_out(given, star_ids, spectra, group) if (group >= 0).any() else {}
    adapted = adapt_model(given, spectra, group, name or f"{given.card.name}-adapted", source)
    adapted.card = replace(adapted.card, quality=quality)
    save_model(adapted, out)
    used = adapted.card.training["adapted"]
    click.echo(
        f"{load_model(out).card.identity} written to {out}, adapted to {used['stars']} stars, "
        f"{used['siblings']} of them in {used['groups']} groups"
    )
    if compared := _compared(given.card, quality):
        click.echo(compared)


@click.command(epilog=example("model siblings model/reference.safetensors stars.h5 --siblings siblings.csv"))
@click.argument("model", type=FILE)
@click.argument("stars", type=STARS)
@LABELS
@SIBLINGS
@CLUSTERS
@click.option("--adapt", "adapted", is_flag=True, help="also adapt MODEL, leaving out each group in turn")
@click.option("--report", type=FOLDER, help="also write a page with the table and figures to this folder")
def siblings(
    model: Path,
    stars: Path,
    labels: Path | None,
    siblings: Path | None,
    clusters: bool,
    adapted: bool,
    report: Path | None,
) -> None:
    """Measure how well siblings among STARS find each other with MODEL.

    Raw flux, flux less a polynomial of the parameters, PolyDis and, where STARS has them, abundances stand
    beside it.
    """
    import h5py
    import numpy as np
    from threadpoolctl import threadpool_limits

    from training.evaluation import siblings as scoring
    from training.evaluation import siblings_report
    from training.fitting.adapt import adapted_without

    if clusters == (siblings is not None):
        raise click.UsageError("give --siblings or --clusters: one of them names the groups")
    threadpool_limits(1, user_api="blas")  # the threads that adapt share the cores
    given = _gaussdis(model)
    found = _read(given, stars, labels, lambda *_: True, None)
    found, named = _of_clusters(found, stars.name) if siblings is None else (found, _named(siblings))
    star_ids, spectra = found.star_ids, found.spectra
    group = _groups(named, star_ids, siblings)
    members = _members(given, star_ids, spectra, group, adapting=adapted)
    rows = {}
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
        ways["adapted, group left out"] = adapted_without(given, members, spectra, group, _Progress(0))
    of_models, same = _scored(members, ways)
    rows |= of_models
    click.echo(scoring.table(rows))
    if known := given.card.training.get("adapted"):
        click.echo(
            f"{given.card.name} was adapted to {known['stars']} stars ({known['source']}): "
            "if these are among them, its own scores are too good; compare with --adapt"
        )
    _say_by_teff(members, same)
    _say_lonely(members, same)
    if report is not None:
        click.echo(siblings_report.write(report, stars.name, members, named, rows, same))


class _Progress:
    """Says after each adaptation how long those that remain may take: `more` follow those without a group."""

    def __init__(self, more: int) -> None:
        self._more, self._start = more, time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """After `done` `of` them."""
        seconds = (time.monotonic() - self._start) / done
        remaining = seconds * (of + self._more - done)
        click.echo(
            f"adapted {done} of {of + self._more} times, {seconds:.0f} s each; {remaining / 60:.1f} min to go",
            err=True,
        )


def _left_out(
    given: GaussDis, star_ids: list[str], spectra: list[Spectrum], group: NDArray[np.int64]
) -> dict[str, Any]:
    """Judge what adapting gives by leaving each group out once; what a card has of it, as `_judge`."""
    from training.evaluation.siblings import always, by_model
    from training.fitting.adapt import adapted_without, unadapted

    members = _members(given, star_ids, spectra, group, adapting=True)
    ways = {"before it was ever adapted": always(*by_model(members, unadapted(given)))}
    if "adapted" in given.card.training:
        ways = {"as it is (too good if it saw these)": always(*by_model(members, given))} | ways
    ways["adapted, group left out"] = adapted_without(given, members, spectra, group, _Progress(1))
    return _judge(members, ways, given.card)


def _judge(members: Members, ways: dict[str, Distances], card: Card) -> dict[str, Any]:
    """Print how well siblings find each other in each of the `ways`, and return what the last does for a card.

    The last are models that did not see them; the way before it is theirs before they were adapted. `card` is
    of the model that was given. Raises InputError if they are worse than before.
    """
    from training.evaluation.siblings import Scores, table

    rows, same = _scored(members, ways)
    *_, first, by_distance, last = rows.values()
    if known := card.quality.get("siblings_left_out"):
        own = f"{card.name} on its own {known['siblings']}, group left out, by p_same"
        rows[own] = Scores(**known["by_p_same"])
    click.echo(table(rows))
    _say_lonely(members, dict([*same.items()][-1:]))
    if last.auc < first.auc or last.nearest < first.nearest:
        raise InputError(
            "not written: the adapted model is worse on groups that it did not see (by p_same nearest "
            f"{last.nearest:.3f}, before {first.nearest:.3f}; AUC {last.auc:.3f}, before {first.auc:.3f}). "
            "Are all stars of a group of one chemistry? For giants of APOGEE take model/default.safetensors or "
            "model/branch.safetensors as it is: they are adapted already"
        )
    if doubts := _doubts(last):
        click.echo(
            f"warning: {'; '.join(doubts)}. Are all stars of a group of one chemistry, and no others of a "
            "globular cluster? For giants of APOGEE prefer a model that ships",
            err=True,
        )
    return {
        "siblings_left_out": {
            "siblings": len(members.star_ids),
            "groups": len(set(members.group.tolist())),
            "fe_h": [round(float(edge), 2) for edge in (members.fe_h[0].min(), members.fe_h[0].max())],
            "by_distance": _rounded(by_distance),
            "by_p_same": _rounded(last),
        }
    }


def _doubts(scores: Scores) -> list[str]:
    """What is unusual about scores of siblings left out."""
    doubts = []
    if scores.accepted is not None and scores.accepted < FEWEST_ACCEPTED:
        doubts.append(
            f"only {scores.accepted:.2f} of the siblings accept each other, 0.91 with the shipped model"
        )
    if scores.far_accepted is not None and scores.far_accepted > MOST_FAR_ACCEPTED:
        doubts.append(f"{scores.far_accepted:.3f} of groups 0.15 dex apart do, 0.003 with the shipped model")
    if scores.median is not None and scores.median > LARGEST_MEDIAN:
        doubts.append(f"the median p_same is {scores.median:.2f}: errors are too large")
    return doubts


def _compared(card: Card, quality: dict[str, Any]) -> str:
    """Whether a model of this `quality` is better than the one that it was made from; "" if not known."""
    from training.evaluation.siblings import Scores

    scores = [known.get("siblings_left_out", {}).get("by_p_same") for known in (card.quality, quality)]
    if None in scores:
        return ""
    own, new = (Scores(**one) for one in scores)
    better = new.nearest >= own.nearest and new.auc >= own.auc and not _doubts(new)
    if better and new.doppelganger_rate <= own.doppelganger_rate:
        return f"better than {card.name} on its own siblings left out: nearest, AUC and doppelgangers by p_same"
    return (
        f"no better than {card.name} on its own siblings left out, in nearest, AUC, doppelgangers or errors: "
        "use that, unless your spectra are unlike those that it was made for"
    )


def _rounded(scores: Scores) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in asdict(scores).items()}


def _scored(members: Members, ways: dict[str, Distances]) -> tuple[dict[str, Scores], dict[str, Array]]:
    """Scores of each way to compare stars, by distance and by p_same, and its p_same (N, N) if it has one."""
    from training.evaluation.siblings import by_p_same, scores

    rows, same = {}, {}
    for name, distances in ways.items():
        rows[f"{name}, by distance"], probability = scores(members, distances)
        rows[f"{name}, by p_same"], _ = scores(members, by_p_same(distances))
        if probability is not None:
            same[name] = probability
    return rows, same


def _say_by_teff(members: Members, same: dict[str, Array]) -> None:
    """Print how many pairs of siblings accept each other, by their difference in Teff."""
    from training.evaluation.siblings import accepted_by_teff

    for way, probability in same.items():
        steps = (
            f"{f'to {most:.0f} K' if most < float('inf') else 'more'} {accepted:.3f} of {pairs}"
            for most, pairs, accepted in accepted_by_teff(members, probability)
        )
        click.echo(f"{way}, pairs of siblings accepted by their difference in Teff: {', '.join(steps)}")


def _say_lonely(members: Members, same: dict[str, Array]) -> None:
    """Name the stars that no sibling accepts: they may be no members."""
    from training.evaluation.siblings import lonely

    for name, probability in same.items():
        if alone := lonely(members, probability):
            click.echo(f"{name}, no sibling accepts: {', '.join(alone)}")


def _gaussdis(path: Path) -> GaussDis:
    from model.bundle import load_model
    from model.methods.gaussdis import GaussDis

    model = load_model(path)
    if not isinstance(model, GaussDis):
        raise InputError(f"{path} is a {model.card.method}: only a gaussdis can be adapted")
    return model


def _read(
    model: GaussDis, path: Path, labels: Path | None, grouped: Grouped, most: int | None
) -> ObservedStars:
    """The stars of files that can be used; the others are named."""
    from app.bulk.observed_stars import stars_of_files

    return _named_unusable(stars_of_files(path, labels, model, grouped, most))


def _read_catalogue(model: GaussDis, address: str, grouped: Grouped, most: int) -> ObservedStars:
    """The stars whose spectra a catalogue stores, as `_read`."""
    from app.bulk.observed_stars import stars_of_catalogue
    from app.settings import read_settings

    settings = read_settings(Path(address), None) if Path(address).is_dir() else read_settings(None, address)
    return _named_unusable(stars_of_catalogue(settings.store_address, model, grouped, most))


def _named_unusable(found: ObservedStars) -> ObservedStars:
    for star_id, reason in found.unusable.items():
        click.echo(f"{star_id}: {reason}", err=True)
    return found


def _of_clusters(found: ObservedStars, source: str) -> tuple[ObservedStars, dict[str, str]]:
    """The `adaptable` stars, and the cluster of each that has one.

    Raises InputError if none has.
    """
    import numpy as np

    from training.observed.globular import METAL_POOR, WHY, adaptable, globular_groups

    names = sorted({name for name in found.clusters if name is not None})
    group = np.array([-1 if name is None else names.index(name) for name in found.clusters], np.int64)
    fe_h = np.array([one.parameters.fe_h for one in found.spectra])
    good = adaptable(fe_h, group)
    rows = np.flatnonzero(good).tolist()
    if globular := globular_groups(fe_h, group):
        said = ", ".join(names[number] for number in globular)
        click.echo(f"{said}: {WHY}: {(~good & (group >= 0)).sum()} stars left out", err=True)
    if single := int((~good & (group < 0)).sum()):
        click.echo(f"stars of no cluster below [Fe/H] {METAL_POOR}: {single} left out", err=True)
    kept = found._replace(
        star_ids=[found.star_ids[row] for row in rows],
        spectra=[found.spectra[row] for row in rows],
        clusters=[found.clusters[row] for row in rows],
    )
    named = {star: name for star, name in zip(kept.star_ids, kept.clusters, strict=True) if name is not None}
    if not named:
        raise InputError(f"{source}: no star has a cluster that may be of one chemistry")
    return kept, named


def _groups(named: dict[str, str], star_ids: list[str], path: Path | None) -> NDArray[np.int64]:
    """The number (N,) of each star's group, -1 for stars not `named`, in the CSV `path` if it is one."""
    import numpy as np

    if missing := sorted(set(named) - set(star_ids)):
        raise InputError(f"{path}: {len(missing)} stars are not among the spectra, {missing[0]} for one")
    names = sorted(set(named.values()))
    numbers = [names.index(named[star_id]) if star_id in named else -1 for star_id in star_ids]
    return np.array(numbers, dtype=np.int64)


def _named(path: Path) -> dict[str, str]:
    """The group of each star in a CSV."""
    from training.surveys.csv_file import read_csv

    return {line.cells["star_id"]: line.cells["group"] for line in read_csv(path, ("star_id", "group"))}


def _members(
    model: GaussDis, star_ids: list[str], spectra: list[Spectrum], group: NDArray[np.int64], *, adapting: bool
) -> Members:
    """The members of groups that can be used. Raises InputError where these are too few to be left out in turn.

    If `adapting`, so it does where too few stars remain.
    """
    import numpy as np

    from training.evaluation.siblings import Members
    from training.observed.enough_to_adapt import EnoughToAdapt

    has_errors = np.array([one.has_errors for one in spectra], np.bool_)
    usable = has_errors & np.array([not model.outside(one.parameters) for one in spectra], np.bool_)
    enough = EnoughToAdapt.of(usable, group)
    if problem := enough.problem_without_a_group() if adapting else enough.problem_of_groups():
        raise InputError(problem)
    known = np.where(usable, group, -1)
    rows = np.flatnonzero((known >= 0) & (np.bincount(known + 1)[known + 1] > 1))
    exact, beyond = (int(((group >= 0) & kind).sum()) for kind in (~has_errors, has_errors & ~usable))
    click.echo(
        f"scores of {len(rows)} siblings in {enough.groups} groups; without {exact} that have no errors of the "
        f"flux, {beyond} outside the model's range and {(known >= 0).sum() - len(rows)} alone in it"
    )
    return Members([spectra[r] for r in rows], [star_ids[r] for r in rows], group[rows])

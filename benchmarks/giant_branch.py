"""Twin search along the giant branch: what a model finds of what can be found, by region of u.

    chemtwin survey synthesize branch.h5 --pairs 5000 --seed 32 --chemistry realistic-branch
    python -m benchmarks.giant_branch MODEL... --survey branch.h5

For 2,000 stars: is the nearest star of [Fe/H] within 0.1 dex the twin, and is the most likely one, as
`rank=likelihood` has it? The limit is the most likely one of the ideal observer, with the same candidates.
Chi-square per dimension is that of true twins (1 is right). The recast error is the mean absolute residual of
the twin recast to the star's parameters, without noise.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from model.bundle import load_model
from model.methods.gaussdis import GaussDis
from model.similarity.likelihood_ratio import Likelihood
from training.emulator.derivatives import information
from training.emulator.emulator import BRANCH_PATH, Emulator
from training.evaluation.evaluate import twin_rows
from training.evaluation.ideal_observer import IdealObserver, emulator_labels, varied
from training.evaluation.posteriors import likelihoods, posteriors
from training.surveys.survey import Survey

Array = NDArray[np.float64]

QUERIES = 2000
WITHIN = 0.1
LEVELS = (100.0, 50.0)


def regions(u: Array) -> dict[str, NDArray[np.bool_]]:
    """Which stars (N,) at Teff, log g and [Fe/H] (N, 3) are in each region."""
    teff, logg, iron = u.T
    return {
        "all": teff > 0,
        "Teff below 4000 K, [Fe/H] above 0": (teff < 4000) & (iron > 0),
        "Teff above 5000 K, [Fe/H] below -1": (teff > 5000) & (iron < -1),
        "[Fe/H] below -1.04": iron < -1.04,
        "[Fe/H] -1.04 to 0": (iron >= -1.04) & (iron < 0),
        "[Fe/H] above 0": iron >= 0,
        "log g below 1": logg < 1,
        "log g above 3.2": logg > 3.2,
        "the paper's range": (teff >= 4000) & (teff <= 5000) & (logg >= 1.5) & (logg <= 3) & (iron >= -1.04),
    }


def candidates(iron: Array, row: int) -> NDArray[np.int64]:
    """Other stars (C,) whose [Fe/H] (N,) is within `WITHIN` of that of `row`."""
    near = np.flatnonzero(np.abs(iron - iron[row]) <= WITHIN)
    return near[near != row]


def most_likely(stars: Likelihood, survey: Survey, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the star of the largest likelihood ratio is the twin of each of `queries` (Q,)."""
    twin, iron = twin_rows(survey), survey.parameters[:, 2]
    found = []
    for row in queries:
        near = candidates(iron, row)
        found.append(bool(near[np.argmax(stars.ratio(stars[row : row + 1], near))] == twin[row]))
    return np.array(found)


def limit(survey: Survey, queries: NDArray[np.int64], snr: float) -> NDArray[np.bool_]:
    """Whether the ideal observer finds the twin of each of `queries` (Q,)."""
    emulator = Emulator.load(BRANCH_PATH)
    labels = emulator_labels(survey, emulator)
    columns = [column for column in varied(labels, emulator) if emulator.labels[column] != "fe_h"]
    observer = IdealObserver.of(labels[:, columns], information(emulator, labels, columns))
    return most_likely(observer.draw(snr), survey, queries)


def measured(
    model: GaussDis, survey: Survey, queries: NDArray[np.int64], snr: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Array]:
    """Whether the nearest star and the most likely one are the twin of each of `queries` (Q,), and chi-square.

    The chi-square is the twins', per dimension.
    """
    twin, iron = twin_rows(survey), survey.parameters[:, 2]
    means, covariances = posteriors(model, survey, snr)
    found = []
    for row in queries:
        near = candidates(iron, row)
        found.append(bool(near[np.argmin(np.square(means[near] - means[row]).sum(axis=1))] == twin[row]))
    gap = means[queries] - means[twin[queries]]
    expected = model.pair_covariance(covariances[queries], covariances[twin[queries]])
    chi2 = np.einsum("ni,ni->n", gap, np.linalg.solve(expected, gap[:, :, None])[:, :, 0]) / gap.shape[1]
    likely = most_likely(likelihoods(model, means, covariances), survey, queries)
    return np.array(found), likely, chi2


def recast_error(model: GaussDis, survey: Survey, queries: NDArray[np.int64]) -> Array:
    """Mean absolute residual (Q,) of each star's twin recast to the star's parameters, without noise."""
    twin, u = twin_rows(survey), survey.parameters
    means, _ = posteriors(model, survey)
    wanted, errors = set(queries.tolist()), np.zeros(len(survey))
    for rows, flux in survey.blocks("recast"):
        some = np.array([row for row in range(rows.start, rows.stop) if row in wanted])
        if len(some):
            own = (
                flux[some - rows.start]
                if model.normaliser is None
                else model.normaliser.batch(flux[some - rows.start])
            )
            errors[some] = np.abs(model.decode(means[twin[some]], u[some]) - own).mean(axis=1)
    return errors[queries]


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--survey", "path", required=True, type=click.Path(exists=True, path_type=Path))
def main(models: tuple[Path, ...], path: Path) -> None:
    """Print a table of each model at each noise level."""
    survey = Survey.open(path)
    queries = np.flatnonzero(np.arange(len(survey)) < twin_rows(survey))[:QUERIES]
    own = regions(survey.parameters[queries])
    limits = {snr: limit(survey, queries, snr) for snr in LEVELS}
    for name in models:
        model = load_model(name)
        if not isinstance(model, GaussDis):
            raise click.UsageError(f"{name} is no GaussDis model")
        recast = recast_error(model, survey, queries)
        found = {snr: measured(model, survey, queries, snr) for snr in LEVELS}
        shown = ("nearest", "most likely", "limit", "of it", "chi-square")
        columns = [f"{what} at S/N {snr:g}" for snr in LEVELS for what in shown]
        print(f"\n{model.card.identity}\n\n| | stars | {' | '.join(columns)} | recast error |")
        print("|---" * (len(columns) + 3) + "|")
        for region, used in own.items():
            if not used.any():
                continue
            cells = []
            for snr in LEVELS:
                nearest, likely, chi2 = (values[used].mean() for values in found[snr])
                most = limits[snr][used].mean()
                cells += [
                    f"{nearest:.3f}",
                    f"{likely:.3f}",
                    f"{most:.3f}",
                    f"{likely / most:.2f}",
                    f"{chi2:.2f}",
                ]
            print(f"| {region} | {used.sum()} | {' | '.join(cells)} | {recast[used].mean():.5f} |")


if __name__ == "__main__":
    main()

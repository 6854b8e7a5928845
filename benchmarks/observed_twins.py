"""How well twins in observed spectra find each other: noise, masks and errors of labels as they come.

chemtwin survey synthesize test.h5 --pairs 3000 --chemistry realistic --observed --snr 100
python -m benchmarks.observed_twins model.safetensors test.h5
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

from app.cli.options import FILE
from model.bundle import load_model
from model.errors import ChemtwinError
from model.methods.gaussdis import GaussDis
from model.similarity.likelihood_ratio import Likelihood
from model.similarity.p_same import p_same
from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum
from training.surveys.observations import prepared
from training.surveys.survey import Survey

QUERIES = 2000
WITHIN = 0.15
"""Twins are searched among stars with [Fe/H] within this, dex: both have errors."""

SHORTLIST = 1000
"""Candidates whose exact likelihood ratio is computed, the nearest in units of the query's errors."""


@click.command()
@click.argument("model", type=FILE)
@click.argument("surveys", type=FILE, nargs=-1, required=True)
def main(model: Path, surveys: tuple[Path, ...]) -> None:
    """Print a table of how well MODEL does on SURVEYS of pairs, each with ivar and errors of labels."""
    loaded = load_model(model)
    if not isinstance(loaded, GaussDis):
        raise click.UsageError(f"{model} is a {loaded.card.method}, not a gaussdis")
    print(
        "| survey | stars | twin nearest | most likely | chi-square | p_same > 0.01 "
        "| distance of p_same from uniform |"
    )
    print("|---|---|---|---|---|---|---|")
    for path in surveys:
        survey = Survey.open(path)
        if survey.twin is None:
            raise click.UsageError(f"{path} has no twins")
        latents, covariances = embedded(loaded, survey)
        twin = survey.twin
        pair = loaded.pair_covariance(covariances, covariances[twin])
        gap = latents - latents[twin]
        squares = np.einsum("ni,nij,nj->n", gap, np.linalg.inv(pair), gap)
        same = np.array([p_same(np.linalg.norm(gap[i]), pair[i : i + 1])[0] for i in range(len(gap))])
        likelihood = Likelihood.of(loaded.unit(latents), loaded.unit_covariance(covariances))
        nearest, likeliest = [], []
        for row in range(min(QUERIES, len(latents))):
            near = candidates(survey.parameters[:, 2], row)
            nearest.append(near[np.square(latents[near] - latents[row]).sum(axis=1).argmin()] == twin[row])
            query = likelihood[row : row + 1]
            apart = likelihood.mean[near] - query.mean
            order = np.einsum("ni,ij,nj->n", apart, query.precision[0], apart, optimize=True).argsort()
            short = near[order[:SHORTLIST]]
            likeliest.append(short[likelihood.ratio(query, short).argmax()] == twin[row])
        print(
            f"| {path.name} | {len(latents)} | {np.mean(nearest):.3f} | {np.mean(likeliest):.3f} "
            f"| {squares.mean() / gap.shape[1]:.2f} "
            f"| {np.mean(same > 0.01):.3f} | {kstest(same, 'uniform').statistic:.3f} |",
            flush=True,
        )


def candidates(fe_h: Array, row: int) -> NDArray[np.int64]:
    """The rows (C,) of other stars with about the [Fe/H] of `row`, of all (N,)."""
    near = np.flatnonzero(np.abs(fe_h - fe_h[row]) <= WITHIN)
    return near[near != row]


def embedded(model: GaussDis, survey: Survey) -> tuple[Array, Array]:
    """Latents (N, D) of a survey's stars, and their covariances (N, D, D)."""
    found = [one for block in _usable(model, survey) for one in model.infer(block)]
    return np.stack([one.latent for one in found]), np.stack([np.asarray(one.covariance) for one in found])


def _usable(model: GaussDis, survey: Survey) -> Iterator[list[Spectrum]]:
    """A survey's spectra, block by block. Raises the error of the first that cannot be used."""
    for block in prepared(survey, model, "embed"):
        spectra = []
        for _, spectrum in block:
            if isinstance(spectrum, ChemtwinError):
                raise spectrum
            spectra.append(spectrum)
        yield spectra


if __name__ == "__main__":
    main()

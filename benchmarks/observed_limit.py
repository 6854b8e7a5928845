"""How many twins in observed spectra an ideal observer finds, with and without errors of the labels.

chemtwin survey synthesize test.h5 --pairs 3000 --chemistry realistic --observed --snr 100
python -m benchmarks.observed_limit test.h5

The observer has the emulator's derivatives, each star's noise and masks, and the distributions of all that
observations do (`training.surveys.observed_effects`). What is not of the abundances is marginalised: with J
the derivatives of the spectrum, W its inverse variance and P the nuisances' prior covariance, it is the Schur
complement of J^T W J + P^-1. Twins are searched as in `benchmarks.observed_twins`.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.polynomial import legendre

from app.cli.options import FILE
from benchmarks.observed_twins import QUERIES, candidates
from model.spectra.grid import Array, Grid
from model.spectra.parameters import PARAMETER_UNITS
from training.emulator.derivatives import flux_and_slopes
from training.emulator.emulator import Emulator
from training.evaluation.ideal_observer import IdealObserver, emulator_labels, varied
from training.surveys.observational_effects import RESOLUTION, broadened, shifted
from training.surveys.observed_effects import (
    CONTINUUM_DEGREE,
    CONTINUUM_SD,
    RESOLUTIONS,
    SKY,
    SKY_SD,
    TELLURIC_SD,
    VELOCITY_SD,
    atmosphere,
)
from training.surveys.survey import Survey

BLOCK = 64
LABELS = len(PARAMETER_UNITS)


def effects(flux: Array, ivar: Array, vrad: Array, grid: Grid) -> Array:
    """What one standard deviation of each effect does to spectra (N, P), to first order: (N, E, P).

    The stars' velocities (N,) against the Earth are known.
    """
    stars = len(flux)
    spread = np.ptp(RESOLUTIONS) / np.sqrt(12)
    lower = broadened(flux, grid.wavelength, RESOLUTION, np.full((stars, 1), RESOLUTION - spread))
    changes = [shifted(flux, np.full(stars, VELOCITY_SD), grid.wavelength) - flux, lower - flux]
    changes.append(TELLURIC_SD * flux * atmosphere(vrad, grid))
    noise = np.divide(1.0, np.sqrt(ivar), out=np.zeros_like(ivar), where=ivar > 0)
    typical = np.array([np.median(row[row > 0]) for row in noise])[:, None]
    for detector in grid.detectors:
        inside = np.zeros(len(grid))
        inside[detector] = 1.0
        x = np.linspace(-1, 1, detector.stop - detector.start)
        for series in np.eye(CONTINUUM_DEGREE + 1) / np.sqrt(CONTINUUM_DEGREE + 1):
            shape = np.zeros(len(grid))
            shape[detector] = CONTINUUM_SD * legendre.legval(x, series)
            changes.append(flux * shape)
        changes.append(SKY_SD * np.where(noise > SKY * typical, noise, 0.0) * inside)
    return np.stack(changes, axis=1)


def fishers(survey: Survey, emulator: Emulator, labels: Array, columns: list[int]) -> dict[str, Array]:
    """Fisher information (N, E, E) on the labels in `columns`, under more and more that is not known."""
    grid, known = Grid(survey.wavelength), [emulator.labels.index(name) for name in PARAMETER_UNITS]
    count = len(columns)
    found: dict[str, list[Array]] = {
        "noise and masks": [],
        "and the instrument": [],
        "and errors of labels": [],
    }
    vrad = survey.column("vrad")
    for start in range(0, len(survey), BLOCK):
        rows = slice(start, start + BLOCK)
        flux, slopes = (
            values.double().numpy() for values in flux_and_slopes(emulator, labels[rows], columns + known)
        )
        slopes[:, count:] *= survey.errors[rows][:, :, None]
        ivar = survey.ivar(rows).astype(np.float64)
        every = np.concatenate([slopes, effects(flux, ivar, vrad[rows], grid)], axis=1)
        whole = np.matmul(every * ivar[:, None], every.swapaxes(1, 2))
        instrument = np.r_[0:count, count + LABELS : whole.shape[1]]
        for name, chosen in zip(found, (np.arange(count), instrument, np.arange(whole.shape[1])), strict=True):
            found[name].append(marginalised(whole[:, chosen][:, :, chosen], count))
    return {name: np.concatenate(blocks) for name, blocks in found.items()}


def marginalised(whole: Array, count: int) -> Array:
    """Information (N, E, E) on the first `count` unknowns. The others, of unit variance, are marginalised."""
    across = whole[:, :count, count:]
    others = whole[:, count:, count:] + np.eye(whole.shape[1] - count)
    return np.asarray(whole[:, :count, :count] - across @ np.linalg.solve(others, across.swapaxes(1, 2)))


@click.command()
@click.argument("surveys", type=FILE, nargs=-1, required=True)
def main(surveys: tuple[Path, ...]) -> None:
    """Print a table of the fraction of stars in SURVEYS whose twin an ideal observer finds."""
    emulator = Emulator.load()
    print("| survey | not known | twin found |\n|---|---|---|")
    for path in surveys:
        survey = Survey.open(path)
        if survey.twin is None:
            raise click.UsageError(f"{path} has no twins")
        labels = emulator_labels(survey, emulator)
        columns = [column for column in varied(labels, emulator) if emulator.labels[column] != "fe_h"]
        for name, fisher in fishers(survey, emulator, labels, columns).items():
            stars = IdealObserver.of(labels[:, columns], fisher).draw(1.0)
            hits = []
            for row in range(min(QUERIES, len(survey))):
                near = candidates(survey.parameters[:, 2], row)
                hits.append(near[stars.ratio(stars[row : row + 1], near).argmax()] == survey.twin[row])
            print(f"| {path.name} | {name} | {np.mean(hits):.3f} |", flush=True)


if __name__ == "__main__":
    main()

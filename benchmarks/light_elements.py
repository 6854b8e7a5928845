"""What a model's latents say of the light elements in globular clusters, whose stars differ in them.

    python -m benchmarks.light_elements MODEL STARS.h5 OUT.png

N goes against C, Na against O and Al against Mg where a cluster has several populations (Carretta et al. 2009).
Open clusters stand beside: their stars should differ by the errors alone, and in C and N as giants evolve.
"""

from __future__ import annotations

from pathlib import Path

import click
import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from app.cli.options import FILE, OUT
from benchmarks.observed_twins import embedded
from model.bundle import load_model
from model.methods.gaussdis import GaussDis
from model.spectra.grid import Array
from training.evaluation.figures import STYLE
from training.surveys.survey import Survey

PAIRS = (("C", "N"), ("O", "Na"), ("Mg", "Al"))
GLOBULAR = ("M13", "M3", "M5", "M107")
OPEN = ("M67", "NGC 6791")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999", "#000000")


@click.command()
@click.argument("model", type=FILE)
@click.argument("stars", type=FILE)
@click.argument("out", type=OUT)
def main(model: Path, stars: Path, out: Path) -> None:
    """Draw to OUT what the readout of MODEL gives for STARS, a survey with clusters, and print the spread."""
    cluster, abundances, errors = read(model, stars)
    print(
        "| cluster | stars | "
        + " | ".join(f"[{a}/Fe], [{b}/Fe]: spread (error), correlation" for a, b in PAIRS)
        + " |"
    )
    print("|---" * (2 + len(PAIRS)) + "|")
    for name in (*GLOBULAR, *OPEN):
        rows = cluster == name
        cells = []
        for pair in PAIRS:
            spread = ", ".join(
                f"{abundances[e][rows].std():.2f} ({np.sqrt(np.mean(errors[e][rows] ** 2)):.2f})" for e in pair
            )
            cells.append(f"{spread}, {np.corrcoef(*(abundances[e][rows] for e in pair))[0, 1]:.2f}")
        print(f"| {name} | {rows.sum()} | {' | '.join(cells)} |")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        for axes, (first, second) in zip(figure.subplots(1, len(PAIRS)), PAIRS, strict=True):
            for name, colour in zip((*GLOBULAR, *OPEN), COLOURS, strict=True):
                rows = cluster == name
                marker = "s" if name in OPEN else "o"
                axes.plot(
                    abundances[first][rows],
                    abundances[second][rows],
                    marker,
                    color=colour,
                    markersize=4,
                    label=name,
                )
            corner = [np.quantile(abundances[e], 0.01) for e in (first, second)]
            axes.errorbar(*corner, *(np.median(errors[e]) for e in (second, first)), color="black", capsize=2)
            axes.set_xlabel(f"[{first}/Fe], dex")
            axes.set_ylabel(f"[{second}/Fe], dex")
        axes.legend(fontsize="small")
        figure.savefig(out, dpi=150)


def read(model: Path, stars: Path) -> tuple[NDArray[np.str_], dict[str, Array], dict[str, Array]]:
    """Clusters (N,) of the stars; [X/Fe] (N,) and its error (N,), by element."""
    loaded = load_model(model)
    if not isinstance(loaded, GaussDis) or loaded.readout is None:
        raise click.UsageError(f"{model} is no gaussdis with a readout of abundances")
    with h5py.File(stars) as file:
        cluster = file["cluster"].asstr()[:].astype(np.str_)
    values, errors = loaded.readout(*embedded(loaded, Survey.open(stars)))
    names = loaded.readout.names
    return cluster, dict(zip(names, values.T, strict=True)), dict(zip(names, errors.T, strict=True))


if __name__ == "__main__":
    main()

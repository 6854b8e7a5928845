"""Many stars: the emulator's training grid, and the responses of spectra to each abundance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import click
import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc
from tqdm import tqdm

from model.spectra.grid import APOGEE_LOG_START, APOGEE_LOG_STEP, APOGEE_PIXELS, Array
from training.emulator.emulator import CARBON_LIMIT, LABELS
from training.random_streams import EmulatorStream, generator
from training.surveys.paper_tables import TABLE_1, TABLE_2
from training.turbospectrum.synthesis import RESOLUTION, SynthesisError, Turbospectrum

PARAMETER_BOX = {"teff": (3900.0, 5100.0), "logg": (1.3, 3.2), "fe_h": (-1.1, 0.5)}
"""Range of each stellar parameter in the training grid: beyond table 1, at least 2.6 sd of table 2."""

ELEMENT_BOX = {
    "C": (0.0, 0.32),
    "N": (0.20, 0.60),
    "O": (0.05, 0.45),
    "Na": (-0.05, 1.25),
    "Mg": (0.10, 0.45),
    "Al": (0.10, 0.60),
    "Si": (0.05, 0.35),
    "S": (0.05, 0.50),
    "K": (0.05, 0.45),
    "Ca": (0.02, 0.30),
    "Ti": (0.05, 0.45),
    "V": (0.0, 0.65),
    "Mn": (-0.02, 0.40),
    "Ni": (0.02, 0.25),
    "P": (0.0, 0.90),
    "Cr": (0.0, 0.45),
    "Co": (0.05, 0.60),
    "Rb": (0.05, 1.25),
}
"""Centre and half width (dex) of each [X/Fe] in the training grid: at least 3.2 sd of table 2."""

ELEMENTS = tuple(ELEMENT_BOX)
FILE_LABELS = ("teff", "logg", "feh", *ELEMENTS)
"""Their names in the HDF5 file."""

FE_H_MAX = PARAMETER_BOX["fe_h"][1]
HELD_OUT = 0.12
"""Fraction of a run's spectra that no fit uses."""

RESPONSE_POINTS, RESPONSE_STEP, RESPONSE_SEED = 20, 0.1, 20261123
WHITE = 65535
"""The uint16 that stands for flux 1."""

TOO_MANY_FAILURES = 10

Job = tuple[Path, Array]


@dataclass(frozen=True)
class Design:
    """A box of labels, `low` to `high` (21,), and the seed of its Sobol sequence in the shipped emulator."""

    low: Array
    high: Array
    seed: int


def _design(seed: int, **elements: tuple[float, float]) -> Design:
    boxes = np.array(list((ELEMENT_BOX | elements).values()))
    parameters = np.array(list(PARAMETER_BOX.values()))
    low = np.concatenate([parameters[:, 0], boxes[:, 0] - boxes[:, 1]])
    high = np.concatenate([parameters[:, 1], boxes[:, 0] + boxes[:, 1]])
    return Design(low, high, seed)


DESIGNS = {"narrow": _design(20210306, Na=(0.0, 0.70)), "wide": _design(20261122)}
"""They differ in [Na/Fe] only: at least 1.7 sd of table 2 on either side, and 3.2."""


def sample(design: Design, n: int, seed: int) -> Array:
    """The first `n` label vectors (n, 21) of a scrambled Sobol sequence in a box.

    Points with [C/Fe] - [O/Fe] above `CARBON_LIMIT` (C/O above 0.89) are not taken. A longer sample starts with
    the shorter ones of the same seed, so that a grid can be extended.
    """
    carbon, oxygen = LABELS.index("C"), LABELS.index("O")
    power = max(1, int(np.ceil(np.log2(max(n, 1)))))
    while True:
        unit = qmc.Sobol(len(LABELS), scramble=True, seed=seed).random_base2(power)
        labels: Array = design.low + unit * (design.high - design.low)
        labels = labels[labels[:, carbon] - labels[:, oxygen] <= CARBON_LIMIT]
        if len(labels) >= n:
            return labels[:n]
        power += 1


def held_out(n: int, seed: int) -> NDArray[np.bool_]:
    """Which of the first `n` spectra of a seed to hold out (n,); a larger n changes none of them."""
    return generator(EmulatorStream.HELD_OUT_SPECTRA, seed=seed).random(n) < HELD_OUT


def response_points(seed: int = RESPONSE_SEED, n: int = RESPONSE_POINTS) -> Array:
    """`n` label vectors (n, 21) drawn from tables 1 and 2 ([C/Fe] = 0, [Fe/H] at most +0.5)."""
    rng = generator(EmulatorStream.RESPONSE_LABELS, seed=seed)
    points = np.zeros((n, len(LABELS)))
    for point in points:
        for i, (low, high) in enumerate(TABLE_1.values()):
            point[i] = rng.uniform(low, high)
        for i, label in enumerate(LABELS):
            if label in TABLE_2:
                point[i] = rng.normal(*TABLE_2[label])
        point[2] = min(point[2], FE_H_MAX)
    return points


def response_jobs(folder: Path, points: Array) -> Iterator[Job]:
    """The spectra of central differences at `points` (n, 21): all the points, then their 38 neighbours each.

    `{point:02d}_00_1.npz` is the point itself; `{point:02d}_{i + 1:02d}_{s}.npz` has label i lower (s = 0) or
    higher (s = 2) by 0.1 dex, for i from 2 ([Fe/H]) to 20.
    """
    for p, point in enumerate(points):
        yield folder / f"{p:02d}_00_1.npz", point
    for p, point in enumerate(points):
        for i in range(2, len(LABELS)):
            for sign in (1, -1):
                labels = point.copy()
                labels[i] += RESPONSE_STEP * sign
                yield folder / f"{p:02d}_{i + 1:02d}_{sign + 1}.npz", labels


def synthesise(turbospectrum: Turbospectrum, labels: Array) -> Array:
    """The flux (8575,) of a label vector (21,). Raises what `Turbospectrum.spectrum` does."""
    teff, logg, fe_h, *x_fe = labels.tolist()
    return turbospectrum.spectrum(teff, logg, fe_h, dict(zip(ELEMENTS, x_fe, strict=True)))


def make(jobs: Iterable[Job], flux_of: Callable[[Array], Array], workers: int, title: str) -> list[str]:
    """Write the spectra that are not there yet, each as an npz of `labels` (21,) and `flux` (8575,).

    A file is there whole or not at all, so an interrupted call can be repeated. Threads are enough: the
    work is done by Turbospectrum's processes. Shows a progress bar.
    Returns a line for each spectrum that could not be made; after 10 of them it gives up.
    """
    jobs = list(jobs)
    todo = [job for job in jobs if not job[0].exists()]
    for folder in {path.parent for path, _ in todo}:
        folder.mkdir(parents=True, exist_ok=True)

    stopped = Event()

    def one(path: Path, labels: Array) -> None:
        if stopped.is_set():
            return
        flux = flux_of(labels)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, labels=labels, flux=flux)
        part.replace(path)

    failures: list[str] = []
    pool = ThreadPoolExecutor(workers)
    try:
        running = {pool.submit(one, *job): job[0] for job in todo}
        with tqdm(
            total=len(jobs), initial=len(jobs) - len(todo), desc=title, unit="spectrum", disable=None
        ) as bar:
            for future in as_completed(running):
                error = future.exception()
                if isinstance(error, SynthesisError | ValueError):
                    failures.append(f"{running[future].name}: {error}")
                    bar.write(failures[-1])
                    if len(failures) >= TOO_MANY_FAILURES:
                        break
                elif error is not None:
                    raise error
                bar.update()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
    return failures


def assemble(folder: Path, out: Path) -> int:
    """Gather the npz files of `folder`/DESIGN-SEED into one HDF5 file; returns the number of spectra.

    Datasets: `flux` (N, 8575) uint16, flux = value / 65535; `labels` (N, 21) float64 with attribute `names`;
    `design` (N,), the row of attributes `lo`, `hi` (D, 21) and `seeds` (D,); `split` (N,), 1 to hold out.
    Raises FileNotFoundError if there is no spectrum.
    """
    runs = [run for run in sorted(folder.glob("*-*")) if any(run.glob("*.npz"))]
    if not runs:
        raise FileNotFoundError(f"no spectra in {folder}")
    flux: list[NDArray[np.uint16]] = []
    labels, design, split, seeds = [], [], [], []
    for row, run in enumerate(runs):
        files = sorted(run.glob("*.npz"), key=lambda path: int(path.stem))
        seeds.append(int(run.name.rpartition("-")[2]))
        chosen = held_out(int(files[-1].stem) + 1, seeds[-1])
        for path in files:
            with np.load(path) as spectrum:
                flux.append(np.rint(np.clip(spectrum["flux"], 0, 1) * WHITE).astype(np.uint16))
                labels.append(spectrum["labels"])
            design.append(row)
            split.append(chosen[int(path.stem)])
    boxes = [DESIGNS[run.name.rpartition("-")[0]] for run in runs]
    part = out.with_name(out.name + ".part")
    with h5py.File(part, "w") as file:
        file.create_dataset(
            "flux",
            data=np.array(flux),
            chunks=(min(64, len(flux)), APOGEE_PIXELS),
            compression="gzip",
            compression_opts=9,
            shuffle=True,
        )
        file.create_dataset("labels", data=np.array(labels)).attrs["names"] = list(FILE_LABELS)
        file.create_dataset("design", data=np.array(design, np.uint8))
        file.create_dataset("split", data=np.array(split, np.uint8))
        file.attrs.update(
            flux_scale=1 / WHITE,
            lo=np.array([box.low for box in boxes]),
            hi=np.array([box.high for box in boxes]),
            seeds=np.array(seeds),
            resolution=RESOLUTION,
            vmic="2.478 - 0.325 logg km/s",
            wavelength=f"10**({APOGEE_LOG_START} + {APOGEE_LOG_STEP:g} i) Angstrom, vacuum",
        )
    part.replace(out)
    return len(flux)


def _shared_options(command: Callable[..., None]) -> Callable[..., None]:
    options: list[Any] = [
        click.option(
            "--workers",
            type=click.IntRange(1),
            default=os.cpu_count() or 1,
            show_default="one a core",
            help="Spectra to compute at a time.",
        ),
        click.option(
            "--turbospectrum",
            "root",
            type=click.Path(path_type=Path),
            envvar="CHEMTWIN_TURBOSPECTRUM",
            show_envvar=True,
            required=True,
            help="The folder that build.sh filled.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _synthesiser(root: Path) -> Callable[[Array], Array]:
    try:
        built = Turbospectrum(root)
    except SynthesisError as error:
        raise click.ClickException(str(error)) from None
    return lambda labels: synthesise(built, labels)


def _report(failures: list[str]) -> None:
    if failures:
        raise click.ClickException(f"{len(failures)} spectra failed; repeat the command to try them again")


@click.command(epilog="\b\nExample: chemtwin lab turbospectrum grid --out grid.h5 --turbospectrum build")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="HDF5 file to write."
)
@click.option(
    "--n", type=click.IntRange(1), default=1000, show_default=True, help="Spectra of this design and seed."
)
@click.option(
    "--design", type=click.Choice(list(DESIGNS)), default="wide", show_default=True, help="Box of labels."
)
@click.option(
    "--seed", type=click.IntRange(0), help="Seed of the design; by default that of the shipped emulator."
)
@_shared_options
def grid(out: Path, n: int, design: str, seed: int | None, workers: int, root: Path) -> None:
    """Make the emulator's training grid.

    Spectra gather in a folder beside OUT, one file each, so that the command can be interrupted and repeated.
    OUT gets everything in that folder: other designs and seeds with the same OUT add to it.
    """
    box = DESIGNS[design]
    seed = box.seed if seed is None else seed
    parts = out.with_name(out.name + ".parts")
    run = parts / f"{design}-{seed}"
    jobs = ((run / f"{i:05d}.npz", labels) for i, labels in enumerate(sample(box, n, seed)))
    failures = make(jobs, _synthesiser(root), workers, run.name)
    try:
        click.echo(f"{out}: {assemble(parts, out)} spectra")
    except FileNotFoundError as error:
        click.echo(str(error), err=True)
    _report(failures)


@click.command(epilog="\b\nExample: chemtwin lab turbospectrum responses --out responses --turbospectrum build")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to fill."
)
@click.option(
    "--points", type=click.IntRange(1, 100), default=RESPONSE_POINTS, show_default=True, help="Stars."
)
@click.option(
    "--seed", type=click.IntRange(0), default=RESPONSE_SEED, show_default=True, help="Seed of their labels."
)
@_shared_options
def responses(out: Path, points: int, seed: int, workers: int, root: Path) -> None:
    """Make spectra for central differences in [Fe/H] and each [X/Fe], 39 a star."""
    failures = make(response_jobs(out, response_points(seed, points)), _synthesiser(root), workers, "responses")
    click.echo(f"{out}: {len(list(out.glob('*.npz')))} spectra")
    _report(failures)

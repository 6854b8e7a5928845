"""The spectra that the emulator is made from and measured with: grids and the validation file.

chemtwin lab emulator validation GRID.h5 BRANCH.h5 RESPONSES --out training/emulator/emulator_validation.h5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import h5py
import numpy as np
import numpy.typing as npt

from model.errors import InputError
from model.spectra.grid import APOGEE_DETECTORS
from training.emulator.domain import BRANCH, Domain, box_range
from training.emulator.emulator import LABELS

Floats = npt.NDArray[np.float64]

PIXELS = np.concatenate([np.arange(*limits) for limits in APOGEE_DETECTORS])
"""Indices (7514,) of the pixels on the three detectors, in the 8575-pixel APOGEE grid (DR13-17)."""

VALIDATION_PATH = Path(__file__).with_name("emulator_validation.h5")
_FLUX_SCALE = 65535.0
_BRANCH_DESIGN = 2
_QUANTUM = 4e-6  # of a stored flux difference; Turbospectrum prints five decimals


@dataclass(frozen=True)
class TrainingSpectra:
    """Training spectra: `labels` (N, 21), `flux` (N, P), the `domain` that they fill, `held_out` (N,)."""

    labels: Floats
    flux: Floats
    domain: Domain
    held_out: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ValidationSpectra:
    """Spectra that no fit has used.

    `labels` (N, 21) and `flux` (N, P) are drawn from the box; `base_labels` (B, 21) and `base_flux` (B, P)
    from tables 1 and 2 of the paper; `difference` (B, 19, P) is the flux at +`step` minus the flux at
    -`step` dex in fe_h and each [X/Fe]. `branch_labels` (M, 21) and `branch_flux` (M, P) are drawn from the
    whole giant branch.
    """

    labels: Floats
    flux: Floats
    base_labels: Floats
    base_flux: Floats
    difference: Floats
    step: float
    branch_labels: Floats
    branch_flux: Floats


def read_grid(paths: Sequence[str | Path]) -> TrainingSpectra:
    """Read and join grids.

    A grid is an HDF5 file: `flux` (N, 8575) uint16 / 65535, `labels` (N, 21) with attribute `names`,
    attributes `lo` and `hi`, and optionally `split` (N,), 1 for spectra to hold out. Its region of the domain
    is the box, or, if `design` (N,) has a 2, the part of the box along the giant branch. Raises InputError for
    other labels.
    """
    labels, flux, held_out = [], [], []
    lo, hi, logg_range = [], [], []
    for path in paths:
        with h5py.File(path) as file:
            names = tuple("fe_h" if str(name) == "feh" else str(name) for name in file["labels"].attrs["names"])
            if names != LABELS:
                raise InputError(f"{path}: the labels are {', '.join(names)}; expected {', '.join(LABELS)}")
            labels.append(file["labels"][:])
            flux.append(file["flux"][:][:, PIXELS] / _FLUX_SCALE)
            held_out.append(file["split"][:] == 1 if "split" in file else np.zeros(len(flux[-1]), dtype=bool))
            lo.append(np.atleast_2d(file.attrs["lo"]).min(0))
            hi.append(np.atleast_2d(file.attrs["hi"]).max(0))
            along = "design" in file and _BRANCH_DESIGN in file["design"][:]
            logg_range.append(BRANCH if along else box_range(lo[-1], hi[-1]))
    domain = Domain(np.array(lo), np.array(hi), np.array(logg_range))
    return TrainingSpectra(np.concatenate(labels), np.concatenate(flux), domain, np.concatenate(held_out))


def build_validation(
    grid_path: str | Path, branch_path: str | Path, responses: str | Path, out: str | Path
) -> None:
    """Write the validation file: held-out spectra of two grids, and flux differences.

    `grid_path` is a box of labels, `branch_path` a grid along the whole giant branch.

    The folder `responses` has one `{point}_{label + 1}_{sign + 1}.npz` per spectrum (`labels` (21,),
    `flux` (8575,)): label -1 and sign 0 for a point itself, else the label moved and the direction. Raises
    FileNotFoundError if one is missing.
    """
    grid, branch, folder = read_grid([grid_path]), read_grid([branch_path]), Path(responses)
    points = sorted(int(path.name[:2]) for path in folder.glob("??_00_1.npz"))
    base = [_read_response(folder, point, 0, 1) for point in points]
    difference = np.zeros((len(points), len(LABELS) - 2, len(PIXELS)))
    steps = []
    for i, point in enumerate(points):
        for label in range(2, len(LABELS)):
            (low_labels, low), (high_labels, high) = (
                _read_response(folder, point, label + 1, s) for s in (0, 2)
            )
            steps.append((high_labels - low_labels)[label] / 2)
            difference[i, label - 2] = high - low
    if not steps or np.ptp(steps) > 1e-9:
        raise InputError(f"{folder}: no spectra, or steps that differ")
    scale = np.maximum(_QUANTUM, np.abs(difference).max(2) / 32767)
    rows = grid.held_out
    stored = {
        "labels": grid.labels[rows],
        "flux": _quantised(grid.flux[rows]),
        "base_labels": np.array([labels for labels, _ in base]),
        "base_flux": _quantised(np.array([flux for _, flux in base])),
        "difference": np.round(difference / scale[:, :, None]).astype(np.int16),
        "difference_scale": scale,
        "branch_labels": branch.labels[branch.held_out],
        "branch_flux": _quantised(branch.flux[branch.held_out]),
    }
    partial = Path(f"{out}.part")
    with h5py.File(partial, "w") as file:
        for name, value in stored.items():
            file.create_dataset(name, data=value, compression="gzip", compression_opts=9, shuffle=True)
        file.attrs["names"] = LABELS
        file.attrs["step"] = float(np.mean(steps))
    partial.replace(out)


def read_validation(path: str | Path | None = None) -> ValidationSpectra:
    """Read a validation file, the shipped one by default."""
    with h5py.File(VALIDATION_PATH if path is None else path) as file:
        return ValidationSpectra(
            file["labels"][:],
            file["flux"][:] / _FLUX_SCALE,
            file["base_labels"][:],
            file["base_flux"][:] / _FLUX_SCALE,
            file["difference"][:] * file["difference_scale"][:][:, :, None],
            float(file.attrs["step"]),
            file["branch_labels"][:],
            file["branch_flux"][:] / _FLUX_SCALE,
        )


def _quantised(flux: Floats) -> npt.NDArray[np.uint16]:
    return np.round(flux * _FLUX_SCALE).astype(np.uint16)


def _read_response(folder: Path, point: int, label: int, sign: int) -> tuple[Floats, Floats]:
    with np.load(folder / f"{point:02d}_{label:02d}_{sign}.npz") as file:
        return file["labels"], file["flux"][PIXELS]


@click.command(
    "validation",
    epilog="\b\nExample: chemtwin lab emulator validation grid.h5 branch.h5 responses --out validation.h5",
)
@click.argument("grid", type=click.Path(exists=True, dir_okay=False))
@click.argument("branch", type=click.Path(exists=True, dir_okay=False))
@click.argument("responses", type=click.Path(exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Validation file to write.")
def emulator_validation(grid: str, branch: str, responses: str, out: str) -> None:
    """Build the file that `lab emulator evaluate` measures against."""
    build_validation(grid, branch, responses, out)

"""The spectra that the emulator is made from and measured with: grids and the validation file.

chemtwin lab emulator validation GRID.h5 BRANCH.h5 RESPONSES BRANCH_RESPONSES --out validation.h5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_FILE, _FOLDER = click.Path(exists=True, dir_okay=False), click.Path(exists=True, file_okay=False)
_PREFIXES = ("", "branch_")  # of the datasets of the narrow box and of the giant branch
_QUANTUM = 4e-6  # of a stored flux difference; Turbospectrum prints five decimals


@dataclass(frozen=True)
class TrainingSpectra:
    """Training spectra: `labels` (N, 21), `flux` (N, P), the `domain` that they fill, `held_out` (N,)."""

    labels: Floats
    flux: Floats
    domain: Domain
    held_out: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Responses:
    """Spectra of B stars and how they change with each abundance.

    `labels` (B, 21), `flux` (B, P); `difference` (B, 19, P) is the flux at +`step` minus the flux at -`step`
    dex in fe_h and each [X/Fe].
    """

    labels: Floats
    flux: Floats
    difference: Floats
    step: float


@dataclass(frozen=True)
class ValidationSpectra:
    """Spectra that no fit has used.

    `labels` (N, 21) and `flux` (N, P) are drawn from the narrow box, `branch_labels` (M, 21) and `branch_flux`
    (M, P) from the whole giant branch. The stars of `survey` are drawn from tables 1 and 2 of the paper; those
    of `branch` are giants across the branch with the [X/Fe] of real ones.
    """

    labels: Floats
    flux: Floats
    branch_labels: Floats
    branch_flux: Floats
    survey: Responses
    branch: Responses


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
    grid_path: str | Path, branch_path: str | Path, folders: tuple[str | Path, str | Path], out: str | Path
) -> None:
    """Write the validation file: held-out spectra of two grids, and flux differences of two sets of stars.

    `grid_path` is a box of labels, `branch_path` a grid along the whole giant branch; the two `folders` have
    the responses of stars of tables 1 and 2 and of stars across the branch (`read_responses`).
    """
    stored: dict[str, npt.NDArray[Any]] = {}
    for prefix, path, folder in zip(_PREFIXES, (grid_path, branch_path), folders, strict=True):
        grid = read_grid([path])
        responses = read_responses(Path(folder))
        scale = np.maximum(_QUANTUM, np.abs(responses.difference).max(2) / 32767)
        stored |= {
            f"{prefix}labels": grid.labels[grid.held_out],
            f"{prefix}flux": _quantised(grid.flux[grid.held_out]),
            f"{prefix}base_labels": responses.labels,
            f"{prefix}base_flux": _quantised(responses.flux),
            f"{prefix}difference": np.round(responses.difference / scale[:, :, None]).astype(np.int16),
            f"{prefix}difference_scale": scale,
        }
    partial = Path(f"{out}.part")
    with h5py.File(partial, "w") as file:
        for name, value in stored.items():
            file.create_dataset(
                name, data=value, chunks=value.shape, compression="gzip", compression_opts=9, shuffle=True
            )
        file.attrs["names"] = LABELS
        file.attrs["step"] = responses.step
    partial.replace(out)


def read_responses(folder: Path) -> Responses:
    """Read a folder of spectra for central differences.

    It has one `{point}_{label + 1}_{sign + 1}.npz` per spectrum (`labels` (21,), `flux` (8575,)): label -1 and
    sign 0 for a point itself, else the label moved and the direction. Raises FileNotFoundError if one is
    missing and InputError for steps that differ.
    """
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
    labels, flux = (np.array(values) for values in zip(*base, strict=True))
    return Responses(labels, flux, difference, float(np.mean(steps)))


def read_validation(path: str | Path | None = None) -> ValidationSpectra:
    """Read a validation file, the shipped one by default."""
    with h5py.File(VALIDATION_PATH if path is None else path) as file:
        grids, responses = [], []
        for prefix in _PREFIXES:
            grids += [file[f"{prefix}labels"][:], file[f"{prefix}flux"][:] / _FLUX_SCALE]
            difference = file[f"{prefix}difference"][:] * file[f"{prefix}difference_scale"][:][:, :, None]
            base = file[f"{prefix}base_labels"][:], file[f"{prefix}base_flux"][:] / _FLUX_SCALE
            responses.append(Responses(*base, difference, float(file.attrs["step"])))
    return ValidationSpectra(*grids, *responses)


def _quantised(flux: Floats) -> npt.NDArray[np.uint16]:
    return np.round(flux * _FLUX_SCALE).astype(np.uint16)


def _read_response(folder: Path, point: int, label: int, sign: int) -> tuple[Floats, Floats]:
    with np.load(folder / f"{point:02d}_{label:02d}_{sign}.npz") as file:
        return file["labels"], file["flux"][PIXELS]


@click.command(
    "validation",
    epilog="\b\nExample: chemtwin lab emulator validation grid.h5 branch.h5 responses branch_responses "
    "--out validation.h5",
)
@click.argument("grid", type=_FILE)
@click.argument("branch", type=_FILE)
@click.argument("responses", type=_FOLDER)
@click.argument("branch_responses", type=_FOLDER)
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Validation file to write.")
def emulator_validation(grid: str, branch: str, responses: str, branch_responses: str, out: str) -> None:
    """Build the file that `lab emulator evaluate` measures against."""
    build_validation(grid, branch, (responses, branch_responses), out)

"""Fit the spectral emulator and measure it.

    chemtwin emulator fit GRID.h5 --out training/emulator.safetensors
    chemtwin emulator evaluate --report docs

The fit alternates between the two parts of the emulator (see `training.emulator`): Gaussian processes on
the principal components of what the lines do not explain, and per-pixel regressions, on the leave-one-out
residuals of those processes, of each line element in the pixels where an F test sees it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.stats
from safetensors.numpy import save_file
from tqdm import tqdm

from training.emulator import FORMAT, LABELS, LINE_ELEMENTS, curve_of_growth, global_inputs
from training.emulator_gp import Hyperparameters, condition, optimise
from training.emulator_grid import Floats, detector_wavelength, emulator_validation, read_grid
from training.evaluate_emulator import emulator_evaluate, evaluate

__all__ = ["Settings", "emulator_evaluate", "emulator_fit", "emulator_validation", "evaluate", "fit"]

_MASK_COLUMNS = (0, 1, 3, 20, 21, 23)  # of curve_of_growth: {[X/Fe], 10^[X/Fe]} x {1, Teff, [Fe/H]}
_HALF_FLOATS = ("components",)


@dataclass(frozen=True)
class Settings:
    """Everything the fit can be told; the emulator's provenance records it."""

    components: int = 80
    passes: int = 2
    subset: int = 600
    iterations: int = 50
    p_value: float = 1e-7
    ridge: float = 1e-4
    seed: int = 1


@dataclass
class _Lines:
    """The line part under construction: pixels, coefficients and current depth of each element."""

    growth: dict[str, Floats]
    pixels: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    coefficients: dict[str, Floats] = field(default_factory=dict)

    def depth(self, element: str, shape: tuple[int, ...]) -> Floats:
        depth = np.zeros(shape)
        if element in self.pixels:
            depth[:, self.pixels[element]] = self.growth[element] @ self.coefficients[element]
        return depth


def fit(grid_paths: Sequence[str | Path], out_path: str | Path, settings: Settings | None = None) -> None:
    """Fit the emulator to the spectra of `grid_paths` that are not held out and write it to `out_path`."""
    settings = settings or Settings()
    grid = read_grid(grid_paths)
    used = ~grid.held_out
    tensors = fit_tensors(grid.labels[used], grid.flux[used], grid.lo, grid.hi, settings)
    header = {
        "format": FORMAT,
        "labels": LABELS,
        "provenance": {
            "spectra": int(used.sum()),
            "held_out": int(grid.held_out.sum()),
            "synthesis": "Turbospectrum, LTE, plane-parallel, ATLAS9 atmospheres, R = 22500, "
            "vmic = 2.478 - 0.325 logg km/s",
            "command": "chemtwin emulator fit",
            "settings": asdict(settings),
        },
    }
    save_file(tensors, out_path, metadata={"emulator": json.dumps(header)})


def fit_tensors(labels: Floats, flux: Floats, lo: Floats, hi: Floats, settings: Settings) -> dict[str, Any]:
    """The tensors of an emulator of `flux` (N, P) at `labels` (N, 21)."""
    depth = -np.log(flux)
    raw = global_inputs(labels, 0.0, 1.0)
    centre, span = (raw.max(0) + raw.min(0)) / 2, (raw.max(0) - raw.min(0)) / 2
    inputs = (raw - centre) / span
    lines = _Lines({e: curve_of_growth(labels, e, lo, hi) for e in LINE_ELEMENTS})
    total = np.zeros_like(depth)
    start = [Hyperparameters.start(inputs.shape[1])] * settings.components
    for number in range(settings.passes + 1):
        rest = depth - total
        part, start, residual = _fit_global(inputs, rest, start, settings, f"pass {number + 1}")
        if number < settings.passes:
            total = _fit_lines(lines, residual, settings, sweeps=4 if number == 0 else 2)
    tensors = {
        "wavelength": detector_wavelength(),
        "lo": lo,
        "hi": hi,
        "centre": centre,
        "span": span,
        "inputs": inputs,
        **part,
    }
    for name in _HALF_FLOATS:
        tensors[name] = tensors[name].astype(np.float16)
    for element in LINE_ELEMENTS:
        tensors[f"pixels_{element}"] = lines.pixels[element].astype(np.int32)
        tensors[f"lines_{element}"] = lines.coefficients[element].astype(np.float32)
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _fit_global(
    inputs: Floats, rest: Floats, start: list[Hyperparameters], settings: Settings, title: str
) -> tuple[dict[str, Floats], list[Hyperparameters], Floats]:
    """Gaussian processes of the principal components of `rest` (N, P), and leave-one-out residuals (N, P)."""
    mean = rest.mean(0)
    components = scipy.linalg.svd(rest - mean, full_matrices=False)[2][: settings.components]
    coefficients = (rest - mean) @ components.T
    spread = coefficients.std(0)
    chosen = np.random.default_rng(settings.seed).permutation(len(rest))[: settings.subset]
    hypers, regressions = [], []
    for k in tqdm(range(settings.components), desc=title, unit="component"):
        target = coefficients[:, k] / spread[k]
        hypers.append(optimise(inputs[chosen], target[chosen], start[k], settings.iterations))
        regressions.append(condition(inputs, target, hypers[-1]))
    loo = np.stack([r.loo for r in regressions], axis=1) * spread
    part = {
        "mean": mean,
        "components": components,
        "scales": np.stack([r.scale for r in regressions]),
        "weights": np.stack([r.weights * s for r, s in zip(regressions, spread, strict=True)]),
    }
    return part, hypers, rest - mean - (coefficients - loo) @ components


def _fit_lines(lines: _Lines, residual: Floats, settings: Settings, sweeps: int) -> Floats:
    """Make the line part explain what it did before plus `residual` (N, P); return its depth (N, P)."""
    depth = {e: lines.depth(e, residual.shape) for e in LINE_ELEMENTS}
    total = np.sum(list(depth.values()), axis=0)
    goal = residual + total
    for element in LINE_ELEMENTS:
        lines.pixels[element] = _significant(lines.growth[element], residual + depth[element], settings.p_value)
    for _ in range(sweeps):
        for element in LINE_ELEMENTS:
            pixels = lines.pixels[element]
            target = (goal - total + depth[element])[:, pixels]
            lines.coefficients[element] = _ridge(lines.growth[element], target, settings.ridge)
            new = lines.depth(element, residual.shape)
            total += new - depth[element]
            depth[element] = new
    return total


def _significant(growth: Floats, target: Floats, p_value: float) -> npt.NDArray[np.int64]:
    """Pixels of `target` (N, P) in which the element of `growth` (N, 30) shows, by an F test."""
    basis = growth[:, _MASK_COLUMNS]
    basis = scipy.linalg.qr(basis - basis.mean(0), mode="economic")[0]
    target = target - target.mean(0)
    explained = ((basis.T @ target) ** 2).sum(0)
    unexplained = (target**2).sum(0) - explained
    k, n = len(_MASK_COLUMNS), len(target)
    statistic = (explained / k) / (unexplained / (n - k - 1))
    return np.flatnonzero(scipy.stats.f.sf(statistic, k, n - k - 1) < p_value)


def _ridge(growth: Floats, target: Floats, ridge: float) -> Floats:
    """Coefficients (30, P) of `target` (N, P) on `growth` (N, 30), with a constant that is thrown away."""
    spread = growth.std(0)
    scaled = (growth - growth.mean(0)) / spread
    normal = scaled.T @ scaled + ridge * len(growth) * np.eye(growth.shape[1])
    solution: Floats = scipy.linalg.solve(normal, scaled.T @ (target - target.mean(0)), assume_a="pos")
    return solution / spread[:, None]


@click.command("fit")
@click.argument("grids", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Emulator file to write.")
@click.option("--components", default=Settings.components, show_default=True, help="Principal components.")
@click.option("--seed", default=Settings.seed, show_default=True)
def emulator_fit(grids: Sequence[str], out: str, components: int, seed: int) -> None:
    """Fit the spectral emulator to one or more grids of Turbospectrum spectra."""
    fit(grids, out, Settings(components=components, seed=seed))

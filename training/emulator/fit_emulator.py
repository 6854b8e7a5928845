"""Fit the spectral emulator and measure it.

    chemtwin lab emulator fit GRID.h5 --out training/emulator/emulator.safetensors
    chemtwin lab emulator evaluate --report docs

The fit alternates between the two kinds of component (see `training.emulator.emulator`). Gaussian processes on
the principal components of what the lines leave over do not see the line elements. Their leave-one-out
residuals do: an F test finds each element's pixels, a ridge regression per pixel on curves of growth its
spectral shapes, and Gaussian processes of the residuals' projections on these shapes its strength.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.stats
from safetensors.numpy import save_file
from tqdm import tqdm

from model.spectra import grid as wavelengths
from training.emulator.emulator import FORMAT, LABELS, derived_inputs
from training.emulator.evaluate_emulator import emulator_evaluate, evaluate
from training.emulator.gaussian_process import Hyperparameters, condition, optimise
from training.emulator.grid import Floats, TrainingSpectra, emulator_validation, read_grid, read_validation
from training.random_streams import EmulatorStream, generator

__all__ = ["Settings", "emulator_evaluate", "emulator_fit", "emulator_validation", "evaluate", "fit"]

LINE_ELEMENTS = LABELS[LABELS.index("Na") :]
_BROAD = ("teff", "logg", "fe_h", "C", "N", "O", "Mg", "Si")
_GLOBAL = [i for i in range(len(LABELS) + 4) if i >= len(LABELS) or LABELS[i] in _BROAD]
_MASK_COLUMNS = (0, 1, 3, 20, 21, 23)  # of _curves_of_growth: {[X/Fe], 10^[X/Fe]} x {1, Teff, [Fe/H]}
_SWEEPS = 3


@dataclass(frozen=True)
class Settings:
    """Settings of the fit; the emulator's provenance records them."""

    components: int = 80
    shapes: int = 4
    passes: int = 3
    subset: int = 500
    iterations: int = 35
    p_value: float = 1e-7
    ridge: float = 1e-3
    seed: int = 1


@dataclass(frozen=True)
class _Part:
    """Shapes (K, P), inverse length scales (K, 25), weights (K, N); their depth and LOO residual (N, P)."""

    shapes: Floats
    scales: Floats
    weights: Floats
    hypers: list[Hyperparameters]
    depth: Floats
    loo: Floats


def fit(grid_paths: Sequence[str | Path], out_path: str | Path, settings: Settings | None = None) -> None:
    """Fit the emulator to the spectra of `grid_paths` and write it to `out_path`.

    Held-out spectra are not used, nor is any star of the shipped validation file: a grid that is made again
    holds out other spectra.
    """
    settings = settings or Settings()
    grid = read_grid(grid_paths)
    used = training_rows(grid)
    tensors = fit_tensors(grid.labels[used], grid.flux[used], grid.lo, grid.hi, settings)
    header = {
        "format": FORMAT,
        "labels": LABELS,
        "provenance": {
            "spectra": int(used.sum()),
            "held_out": int((~used).sum()),
            "synthesis": "Turbospectrum, LTE, plane-parallel, ATLAS9 atmospheres, R = 22500, "
            "vmic = 2.478 - 0.325 logg km/s",
            "command": "chemtwin lab emulator fit",
            "settings": asdict(settings),
        },
    }
    partial = Path(f"{out_path}.part")
    save_file(tensors, partial, metadata={"emulator": json.dumps(header)})
    partial.replace(out_path)


def training_rows(grid: TrainingSpectra) -> npt.NDArray[np.bool_]:
    """Which spectra (N,) a fit may use: not those held out, nor any star of the shipped validation file."""
    validation = {tuple(row) for row in np.round(read_validation().labels, 6)}
    return ~grid.held_out & [tuple(row) not in validation for row in np.round(grid.labels, 6)]


def fit_tensors(labels: Floats, flux: Floats, lo: Floats, hi: Floats, settings: Settings) -> dict[str, Any]:
    """The tensors of an emulator of `flux` (N, P) at `labels` (N, 21)."""
    depth = -np.log(flux)
    raw = derived_inputs(labels)
    centre, span = (raw.max(0) + raw.min(0)) / 2, (raw.max(0) - raw.min(0)) / 2
    inputs = (raw - centre) / span
    growth = {e: _curves_of_growth(inputs, labels[:, LABELS.index(e)]) for e in LINE_ELEMENTS}
    lines: dict[str, _Part] = {}
    rest: _Part | None = None
    for number in range(settings.passes):
        if rest is not None:
            lines = _fit_lines(inputs, growth, lines, rest.loo, settings, f"lines {number}")
        target = depth - sum((part.depth for part in lines.values()), np.zeros_like(depth))
        mean = target.mean(0)
        shapes = _varimax(scipy.linalg.svd(target - mean, full_matrices=False)[2][: settings.components])
        rest = _fit_part(inputs, _GLOBAL, shapes, target - mean, None, settings, f"pass {number + 1}")
    assert rest is not None
    parts = [rest, *lines.values()]
    return {
        "wavelength": wavelengths.Grid.apogee().wavelength,
        "lo": lo,
        "hi": hi,
        "centre": centre,
        "span": span,
        "inputs": inputs,
        "mean": mean.astype(np.float32),
        "components": np.concatenate([part.shapes for part in parts]).astype(np.float16),
        "scales": np.concatenate([part.scales for part in parts]),
        "weights": np.concatenate([part.weights for part in parts]),
    }


def _varimax(shapes: Floats, iterations: int = 60) -> Floats:
    """Rotate orthonormal `shapes` (K, P) towards few large pixels each (Kaiser 1958).

    The simpler a shape, the fewer labels move it, and the better a Gaussian process predicts its strength.
    """
    rotation, before = np.eye(len(shapes)), 0.0
    for _ in range(iterations):
        rotated = rotation.T @ shapes
        slope = (rotated**3 - rotated * (rotated**2).mean(1, keepdims=True)) @ shapes.T
        left, singular, right = scipy.linalg.svd(slope.T)
        rotation = left @ right
        if singular.sum() < before * (1 + 1e-6):
            break
        before = singular.sum()
    result: Floats = rotation.T @ shapes
    return result


def _fit_part(
    inputs: Floats,
    columns: list[int],
    shapes: Floats,
    target: Floats,
    before: _Part | None,
    settings: Settings,
    title: str,
) -> _Part:
    """Regress the projections of `target` (N, P) on `shapes` (K, P) on the given columns of `inputs`."""
    amplitudes = target @ shapes.T
    spread = amplitudes.std(0)
    chosen = generator(EmulatorStream.FITTED_SUBSET, seed=settings.seed).permutation(len(target))[
        : settings.subset
    ]
    used = inputs[:, columns]
    scales = np.zeros((len(shapes), inputs.shape[1]))
    weights, loo, hypers = [], [], []
    for k in tqdm(range(len(shapes)), desc=title, unit="component"):
        start = before.hypers[k] if before else Hyperparameters.start(len(columns))
        values = amplitudes[:, k] / spread[k]
        hypers.append(optimise(used[chosen], values[chosen], start, settings.iterations))
        regression = condition(used, values, hypers[-1])
        scales[k, columns] = regression.scale
        weights.append(regression.weights * spread[k])
        loo.append(regression.loo * spread[k])
    noise = np.exp([2 * hyper.log_noise - 2 * hyper.log_amplitude for hyper in hypers])
    fitted = amplitudes - np.stack(weights, axis=1) * noise
    return _Part(
        shapes,
        scales,
        np.array(weights),
        hypers,
        fitted @ shapes,
        target - (amplitudes - np.stack(loo, 1)) @ shapes,
    )


def _fit_lines(
    inputs: Floats,
    growth: dict[str, Floats],
    before: dict[str, _Part],
    residual: Floats,
    settings: Settings,
    title: str,
) -> dict[str, _Part]:
    """The line parts that explain what those of `before` did plus `residual` (N, P)."""
    depth = {e: before[e].depth if e in before else np.zeros_like(residual) for e in LINE_ELEMENTS}
    pixels = {e: _significant(growth[e], residual + depth[e], settings.p_value) for e in LINE_ELEMENTS}
    goal = residual + sum(depth.values())
    total = goal - residual
    for _ in range(_SWEEPS):
        for e in LINE_ELEMENTS:
            new = np.zeros_like(residual)
            new[:, pixels[e]] = _ridge(growth[e], (goal - total + depth[e])[:, pixels[e]], settings.ridge)
            total += new - depth[e]
            depth[e] = new
    parts = {}
    for e in LINE_ELEMENTS:
        shapes = np.zeros((settings.shapes, residual.shape[1]))
        here = depth[e][:, pixels[e]]
        shapes[:, pixels[e]] = scipy.linalg.svd(here - here.mean(0), full_matrices=False)[2][: settings.shapes]
        target = goal - total + depth[e]
        columns = [LABELS.index(name) for name in dict.fromkeys((*_BROAD, e))]
        parts[e] = _fit_part(
            inputs, columns, shapes, target - target.mean(0), before.get(e), settings, f"{title} {e}"
        )
    return parts


def _curves_of_growth(inputs: Floats, abundance: Floats) -> Floats:
    """Functions (N, 30) whose sums resemble a line's depth: {[X/Fe], 10^([X/Fe]/2), 10^[X/Fe]} x a quadratic.

    The quadratic is in Teff, logg and [Fe/H], the first columns of `inputs`.
    """
    growth = np.stack([abundance, 10.0 ** (abundance / 2) - 1.0, 10.0**abundance - 1.0], axis=1)
    t, g, m = inputs[:, :3].T
    quadratic = np.stack([np.ones_like(t), t, g, m, t * t, t * g, t * m, g * g, g * m, m * m], axis=1)
    functions: Floats = growth[:, :, None] * quadratic[:, None, :]
    return functions.reshape(len(inputs), -1)


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
    """The part (N, P) of `target` (N, P) that is linear in `growth` (N, 30); zero on average."""
    scaled = (growth - growth.mean(0)) / growth.std(0)
    normal = scaled.T @ scaled + ridge * len(growth) * np.eye(growth.shape[1])
    explained: Floats = scaled @ scipy.linalg.solve(
        normal, scaled.T @ (target - target.mean(0)), assume_a="pos"
    )
    return explained


@click.command("fit", epilog="\b\nExample: chemtwin lab emulator fit grid.h5 --out emulator.safetensors")
@click.argument("grids", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Emulator file to write.")
@click.option("--components", default=Settings.components, show_default=True, help="Principal components.")
@click.option("--shapes", default=Settings.shapes, show_default=True, help="Shapes of each line element.")
@click.option("--passes", default=Settings.passes, show_default=True, help="Rounds of the two parts.")
@click.option("--seed", default=Settings.seed, show_default=True)
def emulator_fit(grids: Sequence[str], out: str, components: int, shapes: int, passes: int, seed: int) -> None:
    """Fit the spectral emulator to one or more grids of Turbospectrum spectra."""
    fit(grids, out, Settings(components=components, shapes=shapes, passes=passes, seed=seed))

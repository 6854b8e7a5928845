"""Fit the spectral emulator and measure it.

    chemtwin lab emulator fit GRID.h5 BRANCH.h5 --out training/emulator/branch.safetensors
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
import scipy.cluster.hierarchy
import scipy.linalg
import scipy.stats
from safetensors.numpy import save_file
from tqdm import tqdm

from model.spectra import grid as wavelengths
from training.emulator.emulator import FORMAT, INPUTS, LABELS, LINE_ELEMENTS, derived_inputs
from training.emulator.evaluate_emulator import emulator_evaluate, evaluate
from training.emulator.gaussian_process import Hyperparameters, condition, optimise
from training.emulator.grid import Floats, TrainingSpectra, emulator_validation, read_grid, read_validation
from training.random_streams import EmulatorStream, generator

__all__ = ["Settings", "emulator_evaluate", "emulator_fit", "emulator_validation", "evaluate", "fit"]

_ATMOSPHERE = ("theta", "height", "fe_h", "C", "N", "O", "Mg", "Si")
_BROAD = (
    *_ATMOSPHERE, "donors", "ionised donors", "free O branch", "free C branch", "OH", "CN", "iron lines",
)  # fmt: skip
_MASK_COLUMNS = (0, 1, 3, 10, 11, 13, 20, 21, 23)  # of _curves_of_growth: each growth x {1, theta, [Fe/H]}
_SWEEPS = 3
_JOINT_ITERATIONS = 12


@dataclass(frozen=True)
class Settings:
    """Settings of the fit; the emulator's provenance records them."""

    components: int = 96
    processes: int = 52
    shapes: int = 4
    passes: int = 2
    subset: int = 500
    iterations: int = 35
    p_value: float = 1e-7
    ridge: float = 1e-3
    seed: int = 1


@dataclass(frozen=True)
class _Part:
    """Shapes (K, P), `sizes` (G,) of the groups that share inverse length scales (G, 47), weights (K, N).

    `depth` and `loo` (N, P) are the fitted depth and the leave-one-out residual.
    """

    shapes: Floats
    sizes: list[int]
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
    domain = {"lo": grid.domain.lo, "hi": grid.domain.hi, "logg_range": grid.domain.logg_range}
    tensors = domain | fit_tensors(grid.labels[used], grid.flux[used], settings)
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
    file = read_validation()
    validation = {tuple(row) for row in np.round(np.concatenate([file.labels, file.branch_labels]), 6)}
    return ~grid.held_out & [tuple(row) not in validation for row in np.round(grid.labels, 6)]


def fit_tensors(labels: Floats, flux: Floats, settings: Settings) -> dict[str, Any]:
    """The tensors of an emulator of `flux` (N, P) at `labels` (N, 21)."""
    depth = -np.log(flux)
    raw = derived_inputs(labels)
    centre, span = (raw.max(0) + raw.min(0)) / 2, (raw.max(0) - raw.min(0)) / 2
    inputs = (raw - centre) / span
    growth = {e: _curves_of_growth(inputs, labels, e) for e in LINE_ELEMENTS}
    lines: dict[str, _Part] = {}
    rest: _Part | None = None
    for number in range(settings.passes):
        if rest is not None:
            lines = _fit_lines(inputs, growth, lines, rest.loo, settings, f"lines {number}")
        target = depth - sum((part.depth for part in lines.values()), np.zeros_like(depth))
        mean = target.mean(0)
        shapes = _varimax(_principal(target - mean, settings.components))
        rest = _fit_part(
            inputs, _BROAD, shapes, target - mean, settings.processes, None, settings, f"pass {number + 1}"
        )
        error = np.abs(flux * np.expm1(rest.loo))
        click.echo(
            f"pass {number + 1}: leave-one-out error, median {np.median(error):.2e}, "
            f"rms {np.sqrt((error**2).mean()):.2e}"
        )
    assert rest is not None
    parts = [rest, *lines.values()]
    return {
        "wavelength": wavelengths.Grid.apogee().wavelength,
        "centre": centre,
        "span": span,
        "inputs": inputs,
        "mean": mean.astype(np.float32),
        "components": np.concatenate([part.shapes for part in parts]).astype(np.float16),
        "sizes": np.concatenate([part.sizes for part in parts]),
        "scales": np.concatenate([part.scales for part in parts]),
        "weights": np.concatenate([part.weights for part in parts]),
    }


def _principal(rows: Floats, count: int) -> Floats:
    """The first `count` principal components, orthonormal (count, P), of centred `rows` (N, P)."""
    n, pixels = rows.shape
    gram = rows @ rows.T if n < pixels else rows.T @ rows
    size = len(gram)
    vectors = scipy.linalg.eigh(gram, subset_by_index=(size - count, size - 1))[1][:, ::-1]
    components: Floats = vectors.T @ rows if n < pixels else vectors.T
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    return components


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
    names: Sequence[str],
    shapes: Floats,
    target: Floats,
    processes: int,
    before: _Part | None,
    settings: Settings,
    title: str,
) -> _Part:
    """Regress the projections of `target` (N, P) on `shapes` (K, P) on the inputs called `names`.

    Shapes whose length scales are alike are given common ones, so that `processes` sets of them remain.
    """
    columns = [INPUTS.index(name) for name in names]
    used = inputs[:, columns]
    amplitudes = target @ shapes.T
    spread = amplitudes.std(0)
    values = amplitudes / spread
    chosen = generator(EmulatorStream.FITTED_SUBSET, seed=settings.seed).permutation(len(target))[
        : settings.subset
    ]
    groups, hypers = _share_scales(used[chosen], values[chosen], processes, before, settings, title)
    order = np.concatenate(groups)
    fits = [
        condition(used, values[:, k], hypers[k])
        for k in tqdm(order, desc=title, unit="component", disable=None)
    ]
    scales = np.zeros((len(groups), inputs.shape[1]))
    scales[:, columns] = [np.exp(hypers[group[0]].log_scale) for group in groups]
    weights = np.stack([fit.weights for fit in fits]) * spread[order, None]
    loo = np.stack([fit.loo for fit in fits], axis=1) * spread[order]
    noise = np.exp([2 * hypers[k].log_noise - 2 * hypers[k].log_amplitude for k in order])
    amplitudes, shapes = amplitudes[:, order], shapes[order]
    return _Part(
        shapes,
        [len(group) for group in groups],
        scales,
        weights,
        [hypers[k] for k in order],
        (amplitudes - weights.T * noise) @ shapes,
        target - (amplitudes - loo) @ shapes,
    )


def _share_scales(
    inputs: Floats, values: Floats, processes: int, before: _Part | None, settings: Settings, title: str
) -> tuple[list[npt.NDArray[np.int64]], list[Hyperparameters]]:
    """Group the columns of `values` (N, K) by length scales: groups of columns, hyperparameters of all (K)."""
    count = values.shape[1]
    if processes == 1:
        start = before.hypers if before else [Hyperparameters.start(inputs.shape[1])] * count
        return [np.arange(count)], optimise(inputs, values, start, settings.iterations)
    hypers = [
        optimise(inputs, values[:, [k]], [Hyperparameters.start(inputs.shape[1])], settings.iterations)[0]
        for k in tqdm(range(count), desc=title, unit="component", disable=None)
    ]
    tree = scipy.cluster.hierarchy.ward([np.exp(hyper.log_scale) for hyper in hypers])
    names = scipy.cluster.hierarchy.fcluster(tree, processes, criterion="maxclust")
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    for group in groups:
        if len(group) > 1:
            joint = optimise(inputs, values[:, group], [hypers[k] for k in group], _JOINT_ITERATIONS)
            for k, hyper in zip(group, joint, strict=True):
                hypers[k] = hyper
    return groups, hypers


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
        shapes[:, pixels[e]] = _principal(here - here.mean(0), settings.shapes)
        target = goal - total + depth[e]
        names = list(dict.fromkeys((*_ATMOSPHERE, "iron lines", e, f"{e}/H")))
        parts[e] = _fit_part(
            inputs, names, shapes, target - target.mean(0), 1, before.get(e), settings, f"{title} {e}"
        )
    return parts


def _curves_of_growth(inputs: Floats, labels: Floats, element: str) -> Floats:
    """Functions (N, 30) whose sums resemble the depth that an element adds to a line: growths x a quadratic.

    The growths are [X/Fe] and what 10^([X/H]/2) and 10^[X/H] exceed their values at [X/Fe] = 0 by. The
    quadratic is in 5040 K / Teff, log g above the branch and [Fe/H], scaled as the columns of `inputs`.
    """
    abundance, iron = labels[:, LABELS.index(element)], labels[:, LABELS.index("fe_h")]
    growth = np.stack(
        [abundance, *(10.0 ** (p * iron) * (10.0 ** (p * abundance) - 1.0) for p in (0.5, 1.0))], axis=1
    )
    t, g, m = inputs[:, [INPUTS.index(name) for name in ("theta", "height", "fe_h")]].T
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
@click.option("--processes", default=Settings.processes, show_default=True, help="Their Gaussian processes.")
@click.option("--shapes", default=Settings.shapes, show_default=True, help="Shapes of each line element.")
@click.option("--passes", default=Settings.passes, show_default=True, help="Rounds of the two parts.")
@click.option("--seed", default=Settings.seed, show_default=True)
def emulator_fit(
    grids: Sequence[str], out: str, components: int, processes: int, shapes: int, passes: int, seed: int
) -> None:
    """Fit the spectral emulator to one or more grids of Turbospectrum spectra."""
    fit(
        grids,
        out,
        Settings(components=components, processes=processes, shapes=shapes, passes=passes, seed=seed),
    )

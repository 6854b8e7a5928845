"""The report's pictures: figures 2 to 6 of the paper and more, for any models. Colours after Okabe and Ito."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from training.surveys.observational_effects import CASES
from training.surveys.survey import Survey

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9", GREY)
NOISE = {
    "inf": ("no noise", BLUE),
    "100": ("S/N 100", GREEN),
    "50": ("S/N 50", ORANGE),
    "30": ("S/N 30", PURPLE),
}
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
DPI = 150

Arrays = dict[str, NDArray[Any]]
Picture = tuple[str, str]


def _panels(rows: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, Any]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _grid(count: int, width: float, height: float) -> tuple[Figure, Any]:
    """Panels for `count` models, four in a row, on the same axes; unused panels are hidden."""
    columns = min(count, 4)
    figure, axes = _panels(-(-count // columns), columns, width, height, sharex=True, sharey=True)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def _save(figure: Figure, folder: Path, name: str, alt: str) -> Picture:
    """In 128 colours: a third of the size, and no difference to the eye."""
    drawn = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(drawn, dpi=DPI)
    picture = Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(folder / name, optimize=True)
    return name, alt


def _title(result: dict[str, Any]) -> str:
    removed = {"teff": "Teff", "logg": "log g", "fe_h": "[Fe/H]"}
    return f"{result['label']}\n({', '.join(removed.get(p, p) for p in result['card']['parameters'])} removed)"


def distances(folder: Path, results: list[dict[str, Any]], arrays: dict[str, Arrays]) -> Picture:
    """Figure 2: latent distances of twins and of random pairs, scaled so that twins' mean is 1."""
    columns = min(len(results), 4)
    figure, axes = _panels(2 * -(-len(results) // columns), columns, 2.7, 2.4)
    for axis in axes[-2:, (len(results) - 1) % columns + 1 :].flat:
        axis.set_visible(False)
    for number, result in enumerate(results):
        above, column = 2 * (number // columns), number % columns
        data = arrays[result["label"]]
        auc = next(iter(result["twins"].values()))
        for row, level in enumerate(("inf", "50")):
            axis, near, far = axes[above + row, column], data[f"near {level}"], data[f"far {level}"]
            unit = near.mean()
            edges = np.linspace(0, np.quantile(far / unit, 0.999), 80)
            for values, colour, name in ((near, BLUE, "twins"), (far, ORANGE, "random pairs")):
                weights = np.full(len(values), 1 / len(values))
                axis.hist(values / unit, edges, weights=weights, color=colour, alpha=0.65, label=name)
            heading = f"{_title(result)}\n" if row == 0 else ""
            axis.set_title(f"{heading}{NOISE[level][0]}, ROC area {auc[level]['auc']:.4f}", fontsize=8)
            if row == 1:
                axis.set_xlabel("distance / mean twin distance")
            if column == 0:
                axis.set_ylabel("fraction of pairs")
    axes[0, 0].legend(fontsize=8, loc="upper right")
    return _save(figure, folder, "distances.png", "Figure 2: latent distances of twins and random pairs")


def doppelgangers(
    folder: Path, results: list[dict[str, Any]], arrays: dict[str, Arrays], curve: NDArray[np.int64]
) -> Picture:
    """Figure 3: percentage of stars with fewer than N doppelgangers, on both kinds of pairs."""
    figure, axes = _grid(len(results), 2.7, 2.6)
    for axis, result in zip(axes.flat, results, strict=False):
        for pairs, line in zip(result["twins"], ("-", "--"), strict=False):
            for level, (name, colour) in NOISE.items():
                percent = 100 * arrays[result["label"]][f"curve {pairs} {level}"]
                label = f"{name}" if line == "-" else None
                axis.plot(curve, percent, line, color=colour, label=label, linewidth=1.4)
        axis.set(xscale="log", xlim=(1, 1e4), ylim=(0, 101))
        axis.set_title(_title(result), fontsize=8)
        axis.grid(alpha=0.25)
    for axis in axes[-1]:
        axis.set_xlabel("N")
    for axis in axes[:, 0]:
        axis.set_ylabel("% of stars with fewer than\nN doppelgangers")
    axes[0, 0].legend(fontsize=7, loc="lower right")
    kinds = list({pairs: None for result in results for pairs in result["twins"]})
    figure.suptitle(
        "; ".join(f"{line}: {name}" for line, name in zip(("solid", "dashed"), kinds, strict=False)), fontsize=8
    )
    return _save(figure, folder, "doppelgangers.png", "Figure 3: doppelganger curves")


def abundances(folder: Path, result: dict[str, Any], data: Arrays) -> Picture:
    """Figure 4: abundances estimated from the latents against the true ones."""
    names = result["abundances"]["names"]
    figure, axes = _panels(-(-len(names) // 6), 6, 1.9, 1.9)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for column, (axis, name) in enumerate(zip(axes.flat, names, strict=False)):
        truth = data["truth"][:, column]
        for kind, colour in (("linear", ORANGE), ("network", BLUE)):
            error = result["abundances"][kind][column]
            axis.plot(
                truth, data[f"estimated {kind}"][:, column], ".", markersize=1.2, color=colour,
                label=f"{kind} {error:.3f}", rasterized=True,
            )  # fmt: skip
        ends = [truth.min(), truth.max()]
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set_title("[Fe/H]" if name == "Fe" else f"[{name}/Fe]", fontsize=8)
        axis.legend(fontsize=6, loc="upper left", handletextpad=0, markerscale=5, borderpad=0)
        axis.tick_params(labelsize=6)
    figure.supxlabel("true, dex", fontsize=9)
    figure.supylabel("estimated from the latent, dex", fontsize=9)
    figure.suptitle(_title(result).replace("\n", " ") + ": the number is the rms error, dex", fontsize=9)
    label = result["label"]
    return _save(figure, folder, f"abundances-{label}.png", f"Figure 4: abundances from the latents of {label}")


def twins(
    folder: Path, result: dict[str, Any], data: Arrays, wavelength: NDArray[np.float64], survey: Survey
) -> Picture:
    """Figure 5: two pairs of twins, before and after recasting, and the residuals."""
    figure, axes = _panels(3, 2, 4.6, 1.5, sharex=True, sharey="row")
    shown = slice(2000, 2400)
    for column, row in enumerate(data["example rows"].astype(int)):
        first, second, recast = (spectrum[shown] for spectrum in data[f"example {column}"])
        x = wavelength[shown]
        labels = [f"{t:.0f} K, log g {g:.2f}" for t, g, _ in survey.parameters[row : row + 2]]
        axes[0, column].plot(x, first, color=ORANGE, linewidth=0.9, label=f"star 1: {labels[0]}")
        axes[0, column].plot(x, second, color=BLUE, linewidth=0.9, label=f"star 2: {labels[1]}")
        axes[0, column].set_title(f"[Fe/H] {survey.parameters[row, 2]:+.2f}", fontsize=9)
        axes[1, column].plot(x, recast, color=ORANGE, linewidth=0.9, label="star 1 recast to star 2")
        axes[1, column].plot(x, second, color=BLUE, linewidth=0.9, linestyle="--", label="star 2")
        axes[2, column].plot(x, recast - second, color="black", linewidth=0.8)
        axes[2, column].axhline(0, color=GREY, linewidth=0.5)
        axes[2, column].set_xlabel("wavelength (vacuum), Å")
        for axis in axes[:2, column]:
            axis.legend(fontsize=6.5, loc="lower left", ncols=2)
            axis.margins(y=0.3)
    for axis, name in zip(axes[:, 0], ("normalised flux", "normalised flux", "recast - star 2"), strict=True):
        axis.set_ylabel(name, fontsize=8)
    figure.suptitle(_title(result).replace("\n", " "), fontsize=9)
    label = result["label"]
    return _save(figure, folder, f"twins-{label}.png", f"Figure 5: twins before and after recasting by {label}")


def residuals(
    folder: Path,
    results: list[dict[str, Any]],
    arrays: dict[str, Arrays],
    wavelength: NDArray[np.float64],
    pixels: slice,
) -> Picture:
    """Figure 6: the metal-rich pair, and the residuals of each model's recast."""
    figure, axes = _panels(2, 1, 8, 2.3, sharex=True)
    x = wavelength[pixels]
    upper, lower = axes[:, 0]
    first = next(iter(arrays.values()))["example 0"]
    upper.plot(x, first[0, pixels], color=ORANGE, linewidth=1, label="star 1")
    upper.plot(x, first[1, pixels], color=BLUE, linewidth=1, label="star 2, its twin")
    upper.set_ylabel("normalised flux")
    upper.legend(fontsize=8, ncols=2, loc="lower left")
    for result, colour in zip(results, COLOURS * 3, strict=False):
        spectra = arrays[result["label"]]["example 0"]
        residual = spectra[2] - spectra[1]
        sizes = f"mean |R| {np.abs(residual).mean():.4f}, $\\sigma_R$ {residual.std():.4f}"
        lower.plot(x, residual[pixels], color=colour, linewidth=0.9, label=f"{result['label']}: {sizes}")
    lower.set(xlabel="wavelength (vacuum), Å", ylabel="recast - star 2")
    lower.margins(y=0.35)
    lower.legend(fontsize=7, ncols=2, loc="upper left")
    return _save(figure, folder, "residuals.png", "Figure 6: residuals of a recast twin")


def robustness(folder: Path, results: list[dict[str, Any]]) -> Picture | None:
    """Fraction of recovered twins under each perturbation, and without as a line; None if not measured."""
    measured = [result for result in results if "robustness" in result]
    if not measured:
        return None
    kinds = [kind for kind in CASES if kind != "none"]
    figure, axes = _panels(1, 1, 7.5, 1.2 + 0.22 * len(kinds) * (1 + len(measured)) / 2)
    axis, height = axes[0, 0], 0.8 / len(measured)
    for number, (result, colour) in enumerate(zip(measured, COLOURS * 3, strict=False)):
        found = result["robustness"]["cases"]
        drawn = [(row, found[kind]["recovered"]) for row, kind in enumerate(kinds) if kind in found]
        rows, fractions = np.array(drawn).T
        offset = (number - (len(measured) - 1) / 2) * height
        axis.barh(rows + offset, 100 * fractions, height, color=colour, label=result["label"])
        axis.axvline(100 * found["none"]["recovered"], color=colour, linewidth=1, linestyle="--")
    axis.set_yticks(range(len(kinds)), [CASES[kind] for kind in kinds])
    axis.invert_yaxis()
    first = measured[0]["robustness"]
    axis.set(xlim=(0, 100), xlabel=f"% of twins found among {first['stars']} stars at S/N {first['snr']:g}")
    figure.legend(loc="outside upper center", ncols=min(len(measured), 4), fontsize=8)
    return _save(figure, folder, "robustness.png", "Twins found in perturbed spectra (dashed: noise only)")


def reliability(folder: Path, results: list[dict[str, Any]], arrays: dict[str, Arrays]) -> Picture | None:
    """Fraction of true twins with `p_same` below each value, by noise level; None if no model has them.

    A model's `p_same <level>` (M,) are the p-values of its true pairs: calibrated ones lie on the diagonal.
    """
    measured = [r for r in results if any(name.startswith("p_same ") for name in arrays[r["label"]])]
    if not measured:
        return None
    figure, axes = _grid(len(measured), 2.7, 2.7)
    for axis, result in zip(axes.flat, measured, strict=False):
        data = arrays[result["label"]]
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        for level, (name, colour) in NOISE.items():
            if f"p_same {level}" in data:
                p = np.sort(data[f"p_same {level}"])
                axis.step(p, np.arange(1, len(p) + 1) / len(p), where="post", color=colour, label=name)
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="p")
        axis.set_title(_title(result), fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("fraction of true twins\nwith p_same below p")
    axes[0, 0].legend(fontsize=7, loc="upper left")
    return _save(figure, folder, "reliability.png", "Reliability of p_same over true twins")


def p_same(folder: Path, name: str, title: str, siblings: NDArray[Any], others: NDArray[Any]) -> Picture:
    """Histograms of `p_same` (M,) of pairs of siblings and (L,) of other pairs."""
    figure, axes = _panels(1, 1, 4.6, 3.0)
    axis, edges = axes[0, 0], np.linspace(0, 1, 21)
    for values, colour, label in ((siblings, BLUE, "siblings"), (others, ORANGE, "other pairs")):
        weights = np.full(len(values), 1 / len(values))
        axis.hist(values, edges, weights=weights, color=colour, alpha=0.65, label=f"{label} ({len(values)})")
    axis.axhline(1 / (len(edges) - 1), color=GREY, linewidth=0.8, linestyle="--", label="uniform")
    axis.set(xlim=(0, 1), xlabel="p_same", ylabel="fraction of pairs", yscale="log")
    axis.set_title(title, fontsize=8)
    axis.legend(fontsize=7, loc="upper right")
    return _save(figure, folder, name, f"p_same of siblings and of other pairs, {title}")


def drift(folder: Path, results: list[dict[str, Any]], arrays: dict[str, Arrays]) -> Picture | None:
    """Mean offset of the same stars' latents from their noiseless ones against S/N; None if no model has it.

    A model's `drift` (L, D) at `drift levels` (L,) is drawn in units of the posterior's `drift sd` (L, D) and
    of the population's `drift spread` (D,): each dimension thin, their root mean square thick.
    """
    measured = [r for r in results if "drift" in arrays[r["label"]]]
    if not measured:
        return None
    figure, axes = _panels(2, len(measured), 2.7, 2.3, sharex=True, sharey="row")
    for column, result in enumerate(measured):
        data = arrays[result["label"]]
        for axis, unit in zip(axes[:, column], ("drift sd", "drift spread"), strict=True):
            offsets = data["drift"] / data[unit]
            axis.axhline(0, color=GREY, linewidth=0.5)
            axis.plot(data["drift levels"], offsets, color=BLUE, linewidth=0.5, alpha=0.5)
            rms = np.sqrt(np.mean(offsets**2, axis=1))
            axis.plot(data["drift levels"], rms, color=ORANGE, marker="o", markersize=3)
        axes[0, column].set_title(_title(result), fontsize=8)
        axes[1, column].set_xlabel("S/N")
    axes[0, 0].invert_xaxis()
    for axis, unit in zip(axes[:, 0], ("posterior sd", "population sd"), strict=True):
        axis.set_ylabel(f"mean offset, {unit}")
    alt = "Drift of the latents with noise (thin: each dimension; thick: root mean square)"
    return _save(figure, folder, "drift.png", alt)


def survey_stars(folder: Path, numbers: Mapping[str, NDArray[Any]]) -> Picture:
    """A survey's stars, from columns (N,): the Kiel diagram with [Fe/H] as colour, and the S/N's histogram."""
    figure, axes = _panels(1, 2, 3.8, 3.0)
    kiel, histogram = axes[0]
    size = np.clip(2000 / len(numbers["teff"]), 0.2, 8)
    points = kiel.scatter(numbers["teff"], numbers["logg"], size, numbers["fe_h"], cmap="viridis", linewidths=0)
    figure.colorbar(points, ax=kiel, label="[Fe/H]")
    kiel.set(xlabel="Teff (K)", ylabel="log g")
    kiel.invert_xaxis()
    kiel.invert_yaxis()
    histogram.hist(numbers["snr"], 40, color=BLUE)
    histogram.set(xlabel="S/N per pixel", ylabel="stars")
    return _save(figure, folder, "stars.png", "Teff and log g of the survey's stars, and their S/N")

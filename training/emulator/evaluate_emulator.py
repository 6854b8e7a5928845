"""Measure an emulator against spectra that no fit has used.

chemtwin lab emulator evaluate --report DIR
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from model.spectra.grid import APOGEE_DETECTORS
from training.emulator.emulator import LABELS, Emulator
from training.emulator.grid import Floats, Responses, ValidationSpectra, read_validation
from training.reports.html_page import publish

REGIONS = {
    "the whole giant branch": (3700, 5300, 0, 3.8, -2.2, 0.5),
    "coolest and metal-rich: Teff below 4000 K, [Fe/H] above 0": (3700, 4000, 0, 3.8, 0, 0.5),
    "hottest and metal-poor: Teff above 5000 K, [Fe/H] below -1": (5000, 5300, 0, 3.8, -2.2, -1),
    "log g below 0.5": (3700, 5300, 0, 0.5, -2.2, 0.5),
    "log g above 3.2": (3700, 5300, 3.2, 3.8, -2.2, 0.5),
    "[Fe/H] -2.2 to -1.04": (3700, 5300, 0, 3.8, -2.2, -1.04),
    "[Fe/H] -1.04 to 0": (3700, 5300, 0, 3.8, -1.04, 0),
    "[Fe/H] 0 to 0.5": (3700, 5300, 0, 3.8, 0, 0.5),
    "Teff 3700 to 4100 K": (3700, 4100, 0, 3.8, -2.2, 0.5),
    "Teff 4100 to 4700 K": (4100, 4700, 0, 3.8, -2.2, 0.5),
    "Teff 4700 to 5300 K": (4700, 5300, 0, 3.8, -2.2, 0.5),
}
"""Regions of the giant branch: least and greatest Teff (K), log g and [Fe/H]."""

_FILE = click.Path(exists=True, dir_okay=False)


def evaluate(emulator: Emulator, validation_path: str | Path | None = None) -> dict[str, Any]:
    """Errors of `emulator` on a validation file, by default the shipped one, as plain numbers and lists.

    `box` and `survey`: the absolute flux error at the held-out spectra and at the points of tables 1 and 2
    of the paper (`median`, `rms`, `p99`, `max`); `pixel_median` and `pixel_rms` (P,) over the held-out
    spectra. `branch`: the same errors, and the number of `spectra`, in each of `REGIONS` of the held-out
    spectra along the giant branch, as far as the emulator covers them. `responses`: per label, over the
    points, the correlation across pixels of the emulator's and Turbospectrum's flux differences, `slope`
    (the least-squares factor on Turbospectrum's) and `ratio` (of their norms); `pooled` has the same three
    over all points and pixels at once. `branch_responses`: the same at the points across the giant branch.
    """
    validation = read_validation(validation_path)
    error = emulator(validation.labels) - validation.flux
    survey = emulator(validation.survey.labels) - validation.survey.flux
    return {
        "spectra": len(error),
        "box": _summary(error),
        "survey": _summary(survey),
        "branch": _by_region(emulator, validation),
        "pixel_median": np.median(np.abs(error), axis=0).tolist(),
        "pixel_rms": np.sqrt((error**2).mean(0)).tolist(),
        "responses": _responses(emulator, validation.survey),
        "branch_responses": _responses(emulator, validation.branch),
    }


def _by_region(emulator: Emulator, validation: ValidationSpectra) -> dict[str, dict[str, float]]:
    """The errors on the spectra along the giant branch that `emulator` covers, by region."""
    covered = emulator.covers(validation.branch_labels)
    labels = validation.branch_labels[covered]
    error = emulator(labels) - validation.branch_flux[covered]
    teff, logg, fe_h = labels[:, :3].T
    found = {}
    for name, (cool, hot, low, high, poor, rich) in REGIONS.items():
        rows = (teff >= cool) & (teff <= hot) & (logg >= low) & (logg <= high) & (fe_h >= poor) & (fe_h <= rich)
        if rows.any():
            found[name] = {"spectra": int(rows.sum()), **_summary(error[rows])}
    return found


def _summary(error: Floats) -> dict[str, float]:
    size = np.abs(error)
    return {
        "median": float(np.median(size)),
        "rms": float(np.sqrt((error**2).mean())),
        "p99": float(np.percentile(size, 99)),
        "max": float(size.max()),
    }


def _responses(emulator: Emulator, true: Responses) -> dict[str, dict[str, Any]]:
    """The comparison of each label's responses at the points that `emulator` covers, if there are any."""
    found = {name: _response(emulator, true, name) for name in tqdm(LABELS[2:], desc="responses")}
    return {name: row for name, row in found.items() if row is not None}


def _response(emulator: Emulator, responses: Responses, name: str) -> dict[str, Any] | None:
    column = LABELS.index(name)
    low, high = responses.labels.copy(), responses.labels.copy()
    low[:, column] -= responses.step
    high[:, column] += responses.step
    inside = emulator.covers(low) & emulator.covers(high)
    if not inside.any():
        return None
    found = emulator(high[inside]).astype(np.float64) - emulator(low[inside])
    true = responses.difference[inside, column - 2]
    one_by_one = [_compare(*pair) for pair in zip(found, true, strict=True)]
    return {
        "points": np.flatnonzero(inside).tolist(),
        "norm": (np.linalg.norm(true, axis=1) / (2 * responses.step)).tolist(),
        **{key: [row[key] for row in one_by_one] for key in one_by_one[0]},
        "pooled": _compare(found.ravel(), true.ravel()),
    }


def _compare(found: Floats, true: Floats) -> dict[str, float]:
    """Correlation, least-squares slope and ratio of norms of two vectors of flux differences."""
    return {
        "correlation": float(np.corrcoef(found, true)[0, 1]),
        "slope": float(found @ true / (true @ true)),
        "ratio": float(np.linalg.norm(found) / np.linalg.norm(true)),
    }


def farthest_from_one(values: list[float]) -> float:
    """The amplitude that misses most."""
    return max(values, key=lambda value: abs(value - 1.0))


def markdown(result: dict[str, Any]) -> str:
    """The measured quality as Markdown tables; fluxes in units of the continuum."""
    lines = ["| absolute flux error | median | rms | 99 % | largest |", "|---|---|---|---|---|"]
    titles = {"box": f"{result['spectra']} held-out spectra of the box", "survey": "points of tables 1 and 2"}
    for key, title in titles.items():
        row = result[key]
        lines.append(
            f"| {title} | {row['median']:.2e} | {row['rms']:.2e} | {row['p99']:.2e} | {row['max']:.2e} |"
        )
    lines += [
        "",
        "| absolute flux error on the giant branch | held-out spectra | median | rms | 99 % | largest |",
        "|---|---|---|---|---|---|",
    ]
    for title, row in result["branch"].items():
        lines.append(
            f"| {title} | {row['spectra']} | {row['median']:.2e} | {row['rms']:.2e} | {row['p99']:.2e} "
            f"| {row['max']:.2e} |"
        )
    lines += _response_table("response to", result["responses"])
    lines += _response_table("response across the branch to", result["branch_responses"])
    return "\n".join(lines) + "\n"


def _response_table(title: str, responses: dict[str, dict[str, Any]]) -> list[str]:
    """The lines of a Markdown table, after an empty one; none without responses."""
    if not responses:
        return []
    lines = [
        "",
        f"| {title} | points | norm (1/dex) | correlation: all points | median | worst "
        "| slope: all points | median | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in responses.items():
        label = "[Fe/H]" if name == "fe_h" else f"[{name}/Fe]"
        correlation, slope, pooled = row["correlation"], row["slope"], row["pooled"]
        lines.append(
            f"| {label} | {len(row['points'])} | {np.median(row['norm']):.3g} "
            f"| {pooled['correlation']:.4f} | {np.median(correlation):.4f} | {min(correlation):.4f} "
            f"| {pooled['slope']:.3f} | {np.median(slope):.3f} | {farthest_from_one(slope):.3f} |"
        )
    return lines


def draw_error(emulator: Emulator, result: dict[str, Any], path: Path) -> None:
    """Draw the median and rms error of every pixel, one panel per detector, to a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(len(APOGEE_DETECTORS), 1, sharey=True)
    start = 0
    for panel, (first, last) in zip(panels, APOGEE_DETECTORS, strict=True):
        part = slice(start, start + last - first)
        start = part.stop
        for label, colour in (("rms", "#d08770"), ("median", "#2e5a88")):
            percent = 100 * np.array(result[f"pixel_{label}"][part])
            panel.plot(emulator.wavelength[part], percent, lw=0.6, color=colour, label=label)
        panel.axhline(0.1, color="0.4", lw=0.6, ls="--")
        panel.set_yscale("log")
        panel.set_xlim(emulator.wavelength[part][[0, -1]])
        panel.set_ylabel("error (% of continuum)")
    panels[0].legend(loc="upper right", ncols=2, frameon=False)
    panels[0].set_title(f"Emulator against Turbospectrum: {result['spectra']} held-out spectra (dashed: 0.1 %)")
    panels[-1].set_xlabel("vacuum wavelength (Angstrom)")
    figure.savefig(path, dpi=110)


@click.command("evaluate", epilog="\b\nExample: chemtwin lab emulator evaluate --report report")
@click.option("--emulator", "path", type=_FILE, help="Default: the shipped one.")
@click.option("--validation", type=_FILE, help="Default: the shipped file.")
@click.option("--report", type=click.Path(file_okay=False), help="Folder for HTML, Markdown, JSON and PNG.")
def emulator_evaluate(path: str | None, validation: str | None, report: str | None) -> None:
    """Measure an emulator: its error per pixel, and its response to every element against Turbospectrum's."""
    emulator = Emulator.load(path)
    result = evaluate(emulator, validation)
    table = markdown(result)
    click.echo(table)
    if report is None:
        return
    folder = Path(report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "emulator_quality.json").write_text(json.dumps(result) + "\n")
    draw_error(emulator, result, folder / "emulator_error.png")
    publish(
        folder,
        "emulator_quality",
        f"# The spectral emulator\n\n{table}\n![Error per pixel](emulator_error.png)",
    )

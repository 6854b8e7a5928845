"""The picture of a recast; matplotlib is imported here alone, when the first is drawn.

matplotlib makes no promise for threads: draw one picture at a time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
DPI = 110
AXIS_UNITS = {"teff": ("Teff", "K"), "logg": ("log g", ""), "fe_h": ("[Fe/H]", "")}


def recast_png(
    own: dict[str, Any], recast: dict[str, Any], detectors: Sequence[slice], units: dict[str, str]
) -> bytes:
    """A PNG of a star as reconstructed, its recast, and their difference, a row of panels per detector.

    Parameters
    ----------
    own, recast
        Responses as `app.inference.recasts` makes them, at the star's own parameters and at others.
    detectors
        The pixels of each detector.
    units
        Units of the model's extra parameters.
    """
    wavelength, before, after = recast["wavelength"], own["flux"], recast["flux"]
    heights = [part for _ in detectors for part in (3, 1.3)]
    figure = Figure(figsize=(14, 3.3 * len(detectors) + 1.0), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, part in enumerate(detectors):
        spectra, difference = axes[2 * number], axes[2 * number + 1]
        x = wavelength[part]
        spectra.plot(x, before[part], color=BLUE, linewidth=1.6, label=_label("star", own, units))
        spectra.plot(x, after[part], color=ORANGE, linewidth=0.7, label=_label("recast", recast, units))
        spectra.set_ylabel("normalised flux")
        spectra.tick_params(labelbottom=False)
        difference.axhline(0, color=GREY, linewidth=0.5)
        difference.plot(x, after[part] - before[part], color="black", linewidth=0.6)
        difference.set_ylabel("recast \N{MINUS SIGN} star")
        for axis in (spectra, difference):
            axis.set_xlim(x[0], x[-1])
            axis.grid(color="0.92")
            axis.spines[["top", "right"]].set_visible(False)
    _same_range(axes[0::2], [before, after])
    _same_range(axes[1::2], [after - before])
    axes[-1].set_xlabel("vacuum wavelength (rest frame) / \N{ANGSTROM SIGN}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(_title(recast), x=0.01, ha="left", fontsize=11)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None, "Title": _title(recast)})
    return out.getvalue()


def _same_range(axes: NDArray[Any], spectra: list[NDArray[Any]]) -> None:
    low, high = float(np.nanmin(spectra)), float(np.nanmax(spectra))
    margin = 0.04 * (high - low) or 0.01
    for axis in axes:
        axis.set_ylim(low - margin, high + margin)


def _title(recast: dict[str, Any]) -> str:
    model = recast["model"]
    doubt = "" if recast["in_domain"] else ", outside the model's training range"
    noise = " with its own residual" if recast["residual"] else ""
    return f"{recast['star_id'] or 'spectrum'}{noise} by {model['name']} {model['version']}{doubt}"


def _label(what: str, recast: dict[str, Any], units: dict[str, str]) -> str:
    """The parameters at which a flux is computed, in words."""
    parameters, texts = recast["computed_at"], []
    for name, value in (parameters | parameters.get("parameters", {})).items():
        if name != "parameters":
            shown, unit = AXIS_UNITS.get(name, (name, units.get(name, "")))
            texts.append(f"{shown} {value:.4g} {unit}".rstrip())
    return f"{what}: {', '.join(texts)}"

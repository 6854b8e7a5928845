"""The figure of a star and its twins for a paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from app.inference.twin_comparison import Recast, TwinComparison
from model.similarity.p_same import P_SAME_LIMIT, Verdict

Window = tuple[float, float]

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of the twins, which people with any colour vision tell apart (Okabe & Ito 2008)."""

WINDOWS = ((15738.0, 15778.0), (16132.0, 16172.0), (16721.0, 16761.0))
"""Wavelengths in vacuum (Angstrom): lines of Mg, of Ca, and of Al."""

NOISE, MISSED = "0.8", "0.92"
"""Greys of the bands of one standard deviation."""

WIDTH = {1: 3.46, 2: 7.09}
"""Width in inches of one and of two columns of a journal: 88 and 180 mm."""

SPECTRA, RESIDUAL, ENTRY = 2.1, 0.5, 0.14
"""Heights in inches: the panel of spectra, that of a twin's residual, a line of the legend."""

LINES = Path(__file__).parent.parent / "static" / "lines.json"
STYLE: Any = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.linewidth": 0.6,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "ytick.right": True,
    "pdf.fonttype": 42,  # embedded as TrueType, which journals ask for
}
DPI = 300


def draw_twins(comparison: TwinComparison, out: Path, columns: int) -> None:
    """Write a PDF or PNG, by the suffix of `out`: the spectra, and below each twin minus the star.

    Parameters
    ----------
    comparison
        The star and one to six twins.
    out
        The file, which is replaced if it exists.
    columns
        Width in columns of a journal: 2 for three windows, 1 for two.
    """
    windows, count = _windows(comparison)[: columns + 1], len(comparison.twins)
    with mpl.rc_context(STYLE):
        height = SPECTRA + count * RESIDUAL + (count + 3) * ENTRY + 0.4
        figure = Figure(figsize=(WIDTH[columns], height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0.02)  # type: ignore[union-attr, call-arg]
        axes = figure.subplots(
            1 + count,
            len(windows),
            squeeze=False,
            sharex="col",
            sharey="row",
            height_ratios=[SPECTRA, *[RESIDUAL] * count],
        )
        all_fluxes = np.array([comparison.flux, *(twin.flux for twin in comparison.twins)])
        fluxes = np.hstack([all_fluxes[:, _inside(comparison, window)] for window in windows])
        largest = 1.15 * float(np.nanmax(np.abs(fluxes[1:] - fluxes[0]), initial=0.01))
        axes[0, 0].set_ylim(np.nanmin(fluxes, initial=1) - 0.04, np.nanmax(fluxes, initial=1) + 0.1)
        for (spectra, *residuals), window in zip(axes.T, windows, strict=True):
            _draw_spectra(spectra, comparison, window)
            for axis, twin, colour in zip(residuals, comparison.twins, COLOURS, strict=False):
                _draw_residual(axis, comparison, twin, window, colour)
                axis.set_ylim(-largest, largest)
        axes[0, 0].set_ylabel("Observed flux / continuum" if comparison.observed else "Model flux / continuum")
        axes[(1 + count) // 2, 0].set_ylabel("Twin $-$ star")
        figure.align_ylabels(axes[:, 0])
        figure.supxlabel("Vacuum wavelength in the rest frame (\N{ANGSTROM SIGN})", fontsize=8)
        _draw_legend(figure, *_legend(comparison))
        dated = {"CreationDate": None} if out.suffix == ".pdf" else {}
        figure.savefig(out, dpi=DPI, metadata=dated)


def caption(comparison: TwinComparison) -> str:
    """Sentences that say what the figure shows, to be put below it."""
    star, count = comparison.star, len(comparison.twins)
    what = "observed spectrum" if comparison.observed else "spectrum as the model draws it"
    moved = (
        "The twins are observed spectra that the model has moved"
        if comparison.observed
        else "The twins are moved"
    )
    lines = [
        f"The {what} of {_name(star.star_id, star.cluster)} and of its {count} nearest twins "
        f"among {comparison.searched} stars, by {comparison.model}.",
        f"{moved} to Teff {comparison.teff:.0f} K and log g {comparison.logg:.2f}; each keeps its own [Fe/H].",
        "Below, each twin minus the star.",
    ]
    if (comparison.teff, comparison.logg) != (star.teff, star.logg):
        own = f"{star.teff:.0f} K and {star.logg:.2f}"
        lines.insert(2, f"The star's own are {own}, farther outside the training range than the model can go.")
    if _noise(comparison, comparison.twins[0]) is not None:
        band = "The grey band is one standard deviation by noise"
        lines.append(
            f"{band}, the light one includes what the model misses." if comparison.observed else f"{band}."
        )
    fluxes = np.array([comparison.flux, *(twin.flux for twin in comparison.twins)])
    if any(np.isnan(fluxes[:, _inside(comparison, window)]).any() for window in _windows(comparison)):
        lines.append("Gaps are masked pixels.")
    return " ".join(lines)


def _draw_spectra(axis: Axes, comparison: TwinComparison, window: Window) -> None:
    inside = _inside(comparison, window)
    x = comparison.wavelength[inside]
    axis.plot(x, comparison.flux[inside], color="black", linewidth=1.7)
    for twin, colour in zip(comparison.twins, COLOURS, strict=False):
        axis.plot(x, twin.flux[inside], color=colour, linewidth=0.7)
    axis.set_xlim(window)
    axis.locator_params("x", nbins=4)
    for element, wavelength in json.loads(LINES.read_text()):
        if window[0] < wavelength < window[1]:
            axis.axvline(wavelength, 0.90, 0.94, color="0.3", linewidth=0.6)
            where = axis.get_xaxis_transform()
            axis.text(wavelength, 0.945, element, transform=where, ha="center", va="bottom", fontsize=6.5)


def _draw_residual(axis: Axes, comparison: TwinComparison, twin: Recast, window: Window, colour: str) -> None:
    inside, noise = _inside(comparison, window), _noise(comparison, twin)
    x = comparison.wavelength[inside]
    if noise is not None:
        if comparison.observed:
            both = np.sqrt(noise**2 + comparison.missed**2 + twin.missed**2)[inside]
            axis.fill_between(x, -both, both, color=MISSED, linewidth=0)
        axis.fill_between(x, -noise[inside], noise[inside], color=NOISE, linewidth=0)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.plot(x, (twin.flux - comparison.flux)[inside], color=colour, linewidth=0.7)


def _windows(comparison: TwinComparison) -> list[Window]:
    """The windows that the model's pixels cover, or else all of its pixels."""
    first, last = map(float, comparison.wavelength[[0, -1]])
    return [window for window in WINDOWS if first <= window[0] and window[1] <= last] or [(first, last)]


def _inside(comparison: TwinComparison, window: Window) -> slice:
    """The pixels (P,) of a window, and one beyond either edge."""
    x = comparison.wavelength
    first, last = np.searchsorted(x, window)
    return slice(max(int(first) - 1, 0), int(last) + 1)


def _noise(comparison: TwinComparison, twin: Recast) -> NDArray[np.float64] | None:
    """Standard deviation of a twin minus the star (P,); None where one of them came without errors."""
    return None if comparison.sd is None or twin.sd is None else np.hypot(comparison.sd, twin.sd)


def _draw_legend(figure: Figure, handles: list[Line2D | Patch], labels: list[str]) -> None:
    """A legend above the panels, in smaller letters where a long name would not fit."""
    legend = figure.legend(
        handles, labels, loc="outside upper left", frameon=False, handlelength=1.6, fontsize=7
    )
    figure.draw_without_rendering()
    widest = max(text.get_window_extent().width for text in legend.get_texts())
    others = legend.get_window_extent().width - widest  # of lines and margins
    fraction = (0.97 * figure.bbox.width - others) / widest
    for text in legend.get_texts():
        text.set_fontsize(7 * min(1.0, fraction))


def _legend(comparison: TwinComparison) -> tuple[list[Line2D | Patch], list[str]]:
    star = comparison.star
    handles: list[Line2D | Patch] = [Line2D([], [], color="black", linewidth=1.7)]
    own = f"{star.teff:.0f} K, $\\log g$ {star.logg:.2f}, [Fe/H] {_signed(star.fe_h)}"
    labels = [f"{_entry(star.star_id, star.cluster)}, {own}"]
    for one, colour in zip(comparison.twins, COLOURS, strict=False):
        twin = one.twin
        handles.append(Line2D([], [], color=colour, linewidth=1))
        labels.append(
            f"{_entry(twin['star_id'], twin['cluster'])}, "
            f"{twin['teff']:.0f} K, [Fe/H] {_signed(twin['fe_h'])}: {_verdict(twin)}"
        )
    if _noise(comparison, comparison.twins[0]) is not None:
        handles.append(Patch(color=NOISE, linewidth=0))
        labels.append("$1\\,\\sigma$ by noise")
        if comparison.observed:
            handles.append(Patch(color=MISSED, linewidth=0))
            labels.append("$1\\,\\sigma$ by noise and by what the model misses")
    return handles, labels


def _name(star_id: str, cluster: str | None) -> str:
    return f"{star_id} ({cluster})" if cluster else star_id


def _entry(star_id: str, cluster: str | None) -> str:
    """A name in a legend, where a dollar would begin a formula."""
    return _name(star_id, cluster).replace("$", r"\$")


def _verdict(twin: dict[str, Any]) -> str:
    """The verdict, with p_same where it counts."""
    p_same, verdict = twin["p_same"], str(twin["verdict"])
    if verdict == Verdict.UNKNOWN:
        return verdict
    return f"{verdict} ($p_\\mathrm{{same}}$ {_fraction(p_same)})"


def _fraction(p_same: float) -> str:
    if p_same < P_SAME_LIMIT:
        return f"< {P_SAME_LIMIT}"
    return "> 0.999" if 0.9995 <= p_same < 1 else f"= {p_same:.3f}"


def _signed(value: float) -> str:
    return f"{value:+z.2f}".replace("-", "\N{MINUS SIGN}")

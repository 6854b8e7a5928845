"""The report of a training run: losses, validations, configuration and surveys."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.config import Config
from training.evaluation.figures import BLUE, DPI, GREY, NOISE, ORANGE, STYLE
from training.reports.html_page import page, provenance
from training.reports.markdown import table
from training.surveys.survey import Survey

FACTS = {
    "steps": "steps",
    "best_step": "best step",
    "seconds": "duration, s",
    "spectra_per_s": "spectra per second",
    "tflop_per_s": "TFLOP/s",
    "device": "device",
    "threads": "threads",
    "processes": "processes",
    "peak_memory_gb": "peak memory, GB",
}
LOSSES = {
    "reconstruction": "reconstruction",
    "kl": "divergence from the prior (kl), nats",
    "penalty": "penalty: the autoencoder against the adversary",
    "adversary": "adversary: its own loss",
    "density": "minus the log density, per star",
}
Curve = tuple[NDArray[np.int64], NDArray[np.float64]]


def losses(folder: Path) -> dict[str, Curve]:
    """Steps (N,) and values (N,) of each loss in the TensorBoard files of a run; empty where there are none."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        kind, _, name = tag.partition("/")
        if kind == "loss":
            points = events.Scalars(tag)
            curves[name] = (np.array([p.step for p in points]), np.array([p.value for p in points]))
    return curves


def training_report(
    identity: str,
    config: Config,
    record: dict[str, Any],
    survey: Survey,
    validation: Survey | None,
    curves: dict[str, Curve],
) -> str:
    """The HTML page of a run: `record` as beside the model file, `curves` as from `losses`."""
    history = record.get("history", [])
    pictures = {}
    text = [f"# Training of {identity}", _surveys(survey, validation), "## Run"]
    facts = [[name, str(record[key])] for key, name in FACTS.items() if record.get(key) is not None]
    text.append(table(["", ""], facts))
    if curves:
        pictures["losses.png"] = draw_losses(curves)
        text += ["## Losses", "![Losses of single batches (thin) and their running mean](losses.png)"]
    if history:
        pictures["validation.png"] = _draw_validation(history, record["best_step"])
        text += ["## Validation", VALIDATION, "![Validation; dashed: the best step](validation.png)"]
        text.append(_validations(history))
    if "metric" in record:
        rows = [[level, f"{fraction:.4f}"] for level, fraction in record["metric"].items()]
        text += ["## Metric", METRIC, table(["floor", "fraction of twins found"], rows)]
    keys = [[f"`{key}`", _as_text(value)] for key, value in dataclasses.asdict(config).items()]
    text += ["## Configuration", table(["key", "value"], keys), provenance()]
    return page("\n\n".join(text), pictures.__getitem__)


VALIDATION = (
    "Pairs of the validation survey: fraction of stars whose twin is the nearest of all others, and mean "
    "squared error of recast spectra. The score decides which step is best."
)
METRIC = (
    "Height of the metric's floor and the fraction of validation twins found, averaged over the noise levels; "
    "the highest was taken."
)


def _surveys(survey: Survey, validation: Survey | None) -> str:
    named = {"trained on": survey, "validated on": validation}
    return "\n".join(
        f"- {use} {s.path.name}: {len(s)} stars, seed {'unknown' if s.seed is None else s.seed}"
        for use, s in named.items()
        if s is not None
    )


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _validations(history: Sequence[dict[str, float]]) -> str:
    names = [_name(key) for key in history[0]]
    rows = [
        [
            format(value, ".3g" if key == "recast" else "g" if key in ("step", "seconds") else ".4f")
            for key, value in at.items()
        ]
        for at in history
    ]
    return table(names, rows)


def _name(key: str) -> str:
    kind, _, level = key.partition("_")
    if kind == "twins":
        return "twins, no noise" if level == "inf" else f"twins, S/N {level}"
    return "mean squared recast error" if key == "recast" else key


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def draw_losses(curves: dict[str, Curve]) -> bytes:
    """One panel for each loss."""
    shown = [name for name in LOSSES if name in curves]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4 * min(len(shown), 2), 2.3 * -(-len(shown) // 2)), layout="constrained")
        axes = figure.subplots(-(-len(shown) // 2), min(len(shown), 2), squeeze=False, sharex=True)
        for axis in axes.flat[len(shown) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.flat, shown, strict=False):
            steps, values = curves[name]
            axis.plot(steps, values, color=BLUE, linewidth=0.6, alpha=0.4)
            width = max(1, len(values) // 25)
            mean = np.convolve(values, np.full(width, 1 / width), mode="valid")
            axis.plot(steps[width - 1 :], mean, color=BLUE, linewidth=1.5)
            axis.set_title(LOSSES[name], fontsize=9)
            axis.grid(alpha=0.25)
        for axis in axes[-1]:
            axis.set_xlabel("step")
        return _png(figure)


def _draw_validation(history: Sequence[dict[str, float]], best: int | None) -> bytes:
    """Twins found at each noise level, and the recast error."""
    steps = [at["step"] for at in history]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        twins, recast = figure.subplots(1, 2, sharex=True)
        for key in history[0]:
            if key.startswith("twins_"):
                name, colour = NOISE.get(key[6:], (f"S/N {key[6:]}", GREY))
                twins.plot(steps, [at[key] for at in history], "o-", color=colour, markersize=3, label=name)
        recast.plot(steps, [at["recast"] for at in history], "o-", color=ORANGE, markersize=3)
        twins.set(ylabel="fraction of twins found", ylim=(0, 1))
        twins.legend(loc="lower right")
        recast.set(ylabel="mean squared recast error", yscale="log")
        for axis in (twins, recast):
            axis.set_xlabel("step")
            axis.grid(alpha=0.25)
            if best is not None:
                axis.axvline(best, color=GREY, linewidth=0.8, linestyle="--")
        return _png(figure)

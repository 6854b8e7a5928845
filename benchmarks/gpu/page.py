"""The page of a run on a GPU, in Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.measure import METRICS

PAPER = {
    "faderdis-3": (0.969, 0.882, 0.367, 0.061),
    "faderdis-2": (0.990, 0.968, 0.644, 0.193),
    "factordis-3": (0.759, 0.572, 0.414, 0.172),
    "factordis-2": (0.803, 0.698, 0.515, 0.225),
}
"""Fractions of twins that the paper's networks found, on its own survey (figure 3)."""


def page(found: dict[str, Any]) -> str:
    """Tables of a run's figures: twins found, recasts, speed, and time to quality."""
    networks, chip = found["networks"], found["chip"]
    return "\n".join(
        [
            f"{chip['name']}: {chip['tflop_per_s']:.0f} TFLOP/s in products of bfloat16 matrices, "
            f"{chip['gb_per_s']:.0f} GB/s in a copy. Surveys drawn in {found['surveys drawn, s']:.0f} s.",
            "",
            *_twins(networks),
            "",
            *_recasts(networks),
            "",
            *_speed(networks),
            "",
            *_time_to_quality(networks),
            "",
        ]
    )


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _twins(networks: list[dict[str, Any]]) -> list[str]:
    lines = _head("network", "pairs", "metric", "no noise", "S/N 100", "S/N 50", "S/N 30", "ROC area")
    for network in networks:
        for survey in dict.fromkeys(search["survey"] for search in network["searches"]):
            for metric in METRICS:
                searches = [s for s in network["searches"] if (s["survey"], s["metric"]) == (survey, metric)]
                shares = (f"{search['recovered']:.3f}" for search in searches)
                lines.append(_row(network["name"], survey, metric, *shares, f"{searches[0]['auc']:.4f}"))
        paper = (f"{share:.3f}" for share in PAPER[network["name"]])
        lines.append(_row(network["name"], "the paper's", "euclidean", *paper, ""))
    return lines


def _recasts(networks: list[dict[str, Any]]) -> list[str]:
    names = list(networks[0]["recast"]) if networks else []
    lines = _head("network", *(f"recast, {name}" for name in names))
    return lines + [_row(n["name"], *(f"{n['recast'][name]:.3g}" for name in names)) for n in networks]


def _speed(networks: list[dict[str, Any]]) -> list[str]:
    lines = _head(
        "network", "batch", "steps", "training s", "ms per step", "spectra/s", "TFLOP/s", "of the peak",
        "of the bandwidth", "binds",
    )  # fmt: skip
    for n in networks:
        lines.append(
            _row(
                n["name"], n["batch"], n["steps"], f"{n['seconds']:.0f}", f"{1e3 * n['seconds_per_step']:.2f}",
                f"{n['spectra_per_s']:,.0f}", f"{n['tflop_per_s']:.3g}", f"{n['share_of_peak']:.2f}",
                f"{n['share_of_bandwidth']:.2f}", n["binds"],
            )
        )  # fmt: skip
    return lines


def _time_to_quality(networks: list[dict[str, Any]]) -> list[str]:
    lines = _head("network", "validated after, s", "no noise", "S/N 100", "S/N 50", "mean squared recast")
    for n in networks:
        for at in n["history"]:
            twins = (f"{value:.3f}" for key, value in at.items() if key.startswith("twins_"))
            lines.append(_row(n["name"], f"{at['seconds']:.0f}", *twins, f"{at['recast']:.3g}"))
    return lines

"""The report's tables, as Markdown, from the measured figures, with the paper's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.evaluation.limit import LEVELS as LIMIT_LEVELS
from training.evaluation.robustness import ROBUSTNESS, robustness_table
from training.reports.markdown import table

LEVELS = (np.inf, 100.0, 50.0, 30.0)
"""Where twins are searched; models whose latents are posteriors are compared with the limit at all of its."""

FEW_LEVELS = (np.inf, 100.0, 50.0)
"""Where twins are searched in data space, and groups."""

REMOVED = {"teff": "Teff", "logg": "logg", "fe_h": "[Fe/H]"}

PAPER = (
    ("PolyDis", "Teff, logg, [Fe/H]", (0.521, 0.377, 0.114, 0.018)),
    ("FactorDis", "Teff, logg, [Fe/H]", (0.759, 0.572, 0.414, 0.172)),
    ("FaderDis", "Teff, logg, [Fe/H]", (0.969, 0.882, 0.367, 0.061)),
    ("FactorDis", "Teff, logg", (0.803, 0.698, 0.515, 0.225)),
    ("FaderDis", "Teff, logg", (0.990, 0.968, 0.644, 0.193)),
)
"""Twin recovery at `LEVELS`, from the rankings that the paper's authors published with their code."""

PAPER_RECASTS = (
    ("FactorDis", (0.0021, 1.26e-5), (0.0027, 2.13e-5)),
    ("FaderDis", (0.0030, 1.68e-5), (0.0033, 2.14e-5)),
    ("PolyDis", (0.0018, 1.50e-5), (0.0029, 3.33e-5)),
)
"""The paper's tables 3 and 4: mean absolute and mean squared residual, all pairs and those 500 K apart."""

PAPER_RECOVERY = (
    "The paper's networks and PolyDis on its own survey of 50,000 stars: among fewer, more are found (its "
    "PolyDis ranked by L1, ours by L2):"
)
RECOVERY = (
    "Fraction of stars whose twin is the nearest of all others; in brackets the area under the ROC curve of "
    "twins against random pairs."
)
LIMIT = (
    "The twins that the ideal observer finds (docs/explanation/limit.md), and each method; in brackets its "
    "fraction of the limit. Ranked by Euclidean distance of the latents, or by the likelihood ratio of same "
    "against different chemistry, as the ideal observer does."
)
PAIR_CHI2 = (
    "Chi-square per dimension of true twins' latent differences, with each pair's covariance (1: right errors)."
)
DATA_SPACE = "The same for the first survey, between spectra decoded at common parameters."
RECASTING = "Each star's twin recast to the star's parameters (paper, tables 3 and 4)."
DEPENDENCE = (
    "Fraction of each parameter's variance that a regressor predicts from noiseless latents (0: independent; "
    "below 0: worse than the mean; -: not removed)."
)
ABUNDANCES = (
    "Root mean squared error, dex, without noise (paper, figure 4); `spread` is the survey's own standard "
    "deviation."
)
GROUPS = (
    "Fraction of true members among each star's nearest stars, as many as it has siblings; K-means with as "
    "many clusters as groups."
)


def tables(results: list[dict[str, Any]], limits: dict[str, Any]) -> list[str]:
    """Headings, explanations and tables in order."""
    out = _models(results)
    out += ["## Twin recovery", RECOVERY, _recovery(results), PAPER_RECOVERY, _paper_recovery()]
    if limits:
        out += ["## The limit", LIMIT, _fractions_of_limit(results, limits)]
    if any("chi2" in level for r in results for levels in r["twins"].values() for level in levels.values()):
        out += ["## Errors of the latents", PAIR_CHI2, _pair_chi2(results)]
    if any("robustness" in r for r in results):
        out += ["## Robustness", ROBUSTNESS, robustness_table(results)]
    out += ["## Twin recovery in data space", DATA_SPACE, _data_space(results)]
    out += ["## Recasting", RECASTING, _recasts(results)]
    out += ["## Dependence on u", DEPENDENCE, _dependences(results)]
    if probed := [r for r in results if "abundances" in r]:
        out += ["## Abundances from the latents", ABUNDANCES, _abundance_errors(probed)]
    if grouped := [r for r in results if "groups" in r]:
        out += ["## Groups", GROUPS, _groups(grouped)]
    return out


def _models(results: list[dict[str, Any]]) -> list[str]:
    rows = []
    for r in results:
        card, training = r["card"], r["training"] or {}
        seeds = "/".join(str(card[key]) for key in ("survey_seed", "validation_seed") if card[key] is not None)
        removed = ", ".join(REMOVED.get(p, p) for p in card["parameters"])
        run = [str(training.get(key, "-")) for key in ("seconds", "steps", "spectra_per_s", "device")]
        rows.append([r["label"], r["model"], card["method"], removed, seeds, *run])
    head = ["label", "model", "method", "removed", "seeds", "training s", "steps", "spectra/s", "device"]
    return ["## Models", table(head, rows)]


def _paper_recovery() -> str:
    rows = [
        [method, removed, *(f"{fraction:.3f}" for fraction in fractions)]
        for method, removed, fractions in PAPER
    ]
    return table(["the paper's", "removed", *_level_names()], rows)


def _level_names(levels: tuple[float, ...] = LEVELS) -> list[str]:
    return [f"S/N {level:g}" if np.isfinite(level) else "no noise" for level in levels]


def _recovery(results: list[dict[str, Any]]) -> str:
    rows = [
        [r["label"], pairs, *_found({f"{level:g}": levels[f"{level:g}"] for level in LEVELS})]
        for r in results
        for pairs, levels in r["twins"].items()
    ]
    return table(["label", "twins", *_level_names()], rows)


def _fractions_of_limit(results: list[dict[str, Any]], limits: dict[str, Any]) -> str:
    """Every model's fraction of recovered twins and, in brackets, its ratio to the limit."""
    rows = []
    for pairs, limit in limits.items():
        for removed, observer in limit["removed"].items():
            if "twins" not in observer:
                continue
            best = {level: found["recovered"] for level, found in observer["twins"].items()}
            cells = [
                f"{best[f'{level:g}']['fraction']:.3f} ± {best[f'{level:g}']['error']:.3f}"
                for level in LIMIT_LEVELS
            ]
            rows.append(["the limit", pairs, removed, "likelihood", *cells])
            for r in results:
                found = r["twins"].get(pairs)
                if found is None or ", ".join(r["card"]["parameters"]) != removed:
                    continue
                for way in ("distance", "likelihood"):
                    if cells := _of_limit(found, best, way):
                        rows.append([r["label"], pairs, removed, way, *cells])
    return table(["label", "twins", "removed", "ranked by", *_level_names(LIMIT_LEVELS)], rows)


def _of_limit(found: dict[str, Any], best: dict[str, Any], way: str) -> list[str]:
    """One row of the table of fractions; empty for a model that does not rank this way."""
    cells = []
    for level in LIMIT_LEVELS:
        at = found.get(f"{level:g}", {})
        fraction = at.get("recovered") if way == "distance" else at.get("likelihood", {}).get("fraction")
        cells.append(
            "-" if fraction is None else f"{fraction:.3f} ({fraction / best[f'{level:g}']['fraction']:.2f})"
        )
    return cells if set(cells) != {"-"} else []


def _pair_chi2(results: list[dict[str, Any]]) -> str:
    rows = []
    for r in results:
        for pairs, levels in r["twins"].items():
            at = [levels.get(f"{level:g}", {}).get("chi2") for level in LIMIT_LEVELS]
            if any(chi2 is not None for chi2 in at):
                rows.append([r["label"], pairs, *("-" if chi2 is None else f"{chi2:.2f}" for chi2 in at)])
    return table(["label", "twins", *_level_names(LIMIT_LEVELS)], rows)


def _data_space(results: list[dict[str, Any]]) -> str:
    rows = [[r["label"], *_found(r["data_space"])] for r in results]
    return table(["label", *_level_names(FEW_LEVELS)], rows)


def _found(levels: dict[str, dict[str, float]]) -> list[str]:
    return [f"{s['recovered']:.3f} ({s['auc']:.4f})" for s in levels.values()]


def _recasts(results: list[dict[str, Any]]) -> str:
    rows = [
        [r["label"], pairs, e["pairs"], e["way"], f"{e['residual']:.5f}", f"{e['squared']:.3g}"]
        for r in results
        for pairs, errors in r["recast"].items()
        for e in errors
    ]
    for method, *both in PAPER_RECASTS:
        for pairs, (absolute, squared) in zip(("all", "500 K apart"), both, strict=True):
            rows.append(
                [f"the paper's {method}", "paper's pairs", pairs, "-", f"{absolute:.5f}", f"{squared:.3g}"]
            )
    return table(["label", "twins", "pairs", "from", "mean absolute residual", "mean squared residual"], rows)


def _dependences(results: list[dict[str, Any]]) -> str:
    extra = {p: p for r in results for p in r["card"]["parameters"] if p not in REMOVED}
    columns = REMOVED | extra
    rows = [
        [r["label"], name, *(f"{fractions[p]:.3f}" if p in fractions else "-" for p in columns)]
        for r in results
        for name, fractions in r["dependence"].items()
    ]
    return table(["label", "regressor", *columns.values()], rows)


def _abundance_errors(results: list[dict[str, Any]]) -> str:
    rows = [
        [r["label"], name, *(f"{value:.3f}" for value in r["abundances"][name])]
        for r in results
        for name in ("linear", "network", "spread")
    ]
    return table(["label", "map", *results[0]["abundances"]["names"]], rows)


def _groups(results: list[dict[str, Any]]) -> str:
    rows = [
        [r["label"], level, f"{g['members']:.3f}", f"{g['adjusted_rand']:.3f}", f"{g['homogeneity']:.3f}"]
        for r in results
        for level, g in r["groups"].items()
    ]
    return table(["label", "S/N", "members", "K-means adjusted Rand", "homogeneity"], rows)

"""The evaluation report: every figure and table of the paper, for several models side by side.

    chemtwin model evaluate a.safetensors b.safetensors --survey test.h5 --survey test_xfe.h5 \\
        --groups groups.h5 --abundances train.h5 --report report

Each model's figures are written to the report's folder as soon as they are measured (<model>.json and .npz); a
second call measures only what is missing and writes report.md, report.html (the same in one file), report.json
and the pictures.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.bundle import load_model, save_model
from model.errors import InputError
from model.methods.base import Model
from model.methods.gaussdis import GaussDis
from model.spectra.grid import Array
from training.evaluation import figures, probes
from training.evaluation.evaluate import embed_survey, model_labels, recast_errors, twin_rows, twin_search
from training.evaluation.limit import LEVELS as LIMIT_LEVELS
from training.evaluation.limit import survey_kind, survey_name
from training.evaluation.posteriors import drift, posterior_figures, posteriors
from training.evaluation.report_tables import FEW_LEVELS, LEVELS, tables
from training.reports.html_page import publish
from training.spectral_basis import parameter_values
from training.surveys.survey import Survey
from training.surveys.used_surveys import check_apart, check_unused

CURVE = np.unique(np.round(np.geomspace(1, 50_000, 200)).astype(int))
SCATTER = 2000
PIXELS = slice(0, 256)
"""Pixels that figure 6 shows, as in the paper."""


@dataclass(frozen=True)
class Surveys:
    """The surveys that models are measured on.

    The paper's pairs, then perhaps pairs with equal [X/Fe] only, groups, and a survey with abundances to fit
    the maps of section 5.3.
    """

    pairs: tuple[Survey, ...]
    groups: Survey | None = None
    abundances: Survey | None = None

    @classmethod
    def sorted(cls, pairs: Sequence[Survey], groups: Survey | None, abundances: Survey | None) -> Surveys:
        """Pairs in any order.

        Raises InputError unless one survey is of the paper's kind and at most one of the other, for an
        abundance survey with spectra of a test survey, and for groups with noise.
        """
        ordered = tuple(sorted(pairs, key=lambda survey: survey.own_fe_h))
        if [survey.own_fe_h for survey in ordered] not in ([False], [False, True]):
            raise InputError(
                "a report needs one survey whose twins share all abundances, and takes one more whose twins "
                "share [X/Fe] only (chemtwin survey synthesize --own-fe-h)"
            )
        if abundances is not None:
            for survey in ordered:
                check_apart(survey, abundances, "the survey that teaches the abundances")
        if groups is not None:
            groups.check_noiseless()
        return cls(ordered, groups, abundances)

    def summary(self) -> dict[str, Any]:
        """The surveys' sizes and seeds, for the report."""
        named = {"groups": self.groups, "abundances": self.abundances}
        return {
            "pairs": [_survey_summary(survey) for survey in self.pairs],
            **{name: None if survey is None else _survey_summary(survey) for name, survey in named.items()},
        }


def _survey_summary(survey: Survey) -> dict[str, Any]:
    extra = {"extra": list(survey.extra)} if survey.extra else {}
    return {"stars": len(survey), "seed": survey.seed, "own_fe_h": survey.own_fe_h, **extra}


def measure(path: Path, surveys: Surveys, folder: Path) -> None:
    """Measure one model into `folder`, unless it has been measured there on these surveys.

    The record that `chemtwin model train` writes beside a model goes into the report. Raises InputError for a
    survey that the model was made with.
    """
    model, label = load_model(path), path.stem
    record = path.with_name(path.name + ".json")
    for survey in (*surveys.pairs, *([surveys.groups] if surveys.groups else [])):
        check_unused(model, label, survey)
    identity = {"model": model.card.identity, "surveys": surveys.summary()}
    out = folder / f"{label}.json"
    if out.exists() and {key: json.loads(out.read_text())[key] for key in identity} == identity:
        return
    arrays: dict[str, Any] = {}
    result: dict[str, Any] = {**identity, "label": label, "card": _card(model)}
    result["training"] = json.loads(record.read_text()) if record.exists() else None
    result["twins"], result["data_space"], result["recast"] = {}, {}, {}
    for survey in _comparable(model, surveys.pairs):
        first = survey is surveys.pairs[0]
        latents = _measure_twins(model, survey, result, arrays, first=first)
        if first:
            noiseless = latents
        recasts = recast_errors(model, survey)
        result["recast"][survey_kind(survey)] = [asdict(error) for error in recasts]
    if isinstance(model, GaussDis):
        arrays |= drift(model, surveys.pairs[0])
    result["dependence"] = probes.dependence_on(surveys.pairs[0], model.parameter_names, noiseless)
    if surveys.abundances is not None:
        result["abundances"] = _abundances(model, surveys.abundances, surveys.pairs[0], noiseless, arrays)
    if surveys.groups is not None and surveys.groups.group is not None:
        result["groups"] = _groups(model, surveys.groups, surveys.groups.group)
    _examples(model, surveys.pairs[0], arrays)
    stored: Any = {name: np.asarray(values, dtype=np.float32) for name, values in arrays.items()}
    np.savez_compressed(folder / f"{label}.npz", **stored)
    partial = out.with_name(out.name + ".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(out)


def _measure_twins(
    model: Model, survey: Survey, result: dict[str, Any], arrays: dict[str, Any], *, first: bool
) -> Array:
    """Search twins at all noise levels, into `result` and `arrays`; returns the noiseless latents (N, D).

    Only the `first` survey is drawn in full, and searched in data space.
    """
    name, twin = survey_kind(survey), twin_rows(survey)
    result["twins"][name] = {}
    for level in LIMIT_LEVELS if isinstance(model, GaussDis) else LEVELS:
        errors: dict[str, Any] = {}
        if isinstance(model, GaussDis):
            latents, covariances = posteriors(model, survey, level)
            errors, p = posterior_figures(model, latents, covariances, twin)
            if first:
                arrays[f"p_same {level:g}"] = p
        else:
            latents = embed_survey(model, survey, level)
        if np.isinf(level):
            noiseless = latents
        found = twin_search(latents, twin, level)
        result["twins"][name][f"{level:g}"] = found.summary() | errors
        arrays[f"curve {name} {level:g}"] = found.fewer_than(CURVE)
        if first:
            arrays[f"near {level:g}"], arrays[f"far {level:g}"] = found.near, found.far
        if first and level in FEW_LEVELS:
            decoded = twin_search(probes.data_space(model, latents), twin, level)
            result["data_space"][f"{level:g}"] = decoded.summary()
    return noiseless


def _groups(model: Model, survey: Survey, group: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """How well groups (N,) are found at each noise level."""
    return {
        f"{level:g}": probes.group_finding(embed_survey(model, survey, level), group) for level in FEW_LEVELS
    }


def _card(model: Model) -> dict[str, Any]:
    card = model.card
    return {"method": card.method, "parameters": list(card.parameters), "latent_dim": card.latent_dim} | {
        key: card.training.get(key) for key in ("config", "survey_seed", "validation_seed")
    }


def _comparable(model: Model, pairs: tuple[Survey, ...]) -> tuple[Survey, ...]:
    """The surveys that suit the model: one that does not remove [Fe/H] needs twins with equal [Fe/H]."""
    return tuple(s for s in pairs if "fe_h" in model.parameter_names or not s.own_fe_h)


def _abundances(
    model: Model, teacher: Survey, survey: Survey, fresh: Array, arrays: dict[str, Any]
) -> dict[str, Any]:
    """Root mean squared error (dex) of each abundance estimated from noiseless latents, `fresh` (figure 4)."""
    names, taught = probes.abundances(teacher)
    tested, truth = probes.abundances(survey)
    if names != tested:
        raise InputError(f"{teacher.path} and {survey.path} vary other elements")
    z = embed_survey(model, teacher)
    maps = {
        "linear": probes.linear_map(z, taught),
        "network": probes.network_map(z[: probes.PROBED], taught[: probes.PROBED], shown="abundances"),
    }
    arrays["truth"] = truth[:SCATTER]
    out: dict[str, Any] = {"names": names, "spread": truth.std(axis=0).tolist()}
    for name, predict in maps.items():
        estimated = predict(fresh)
        arrays[f"estimated {name}"] = estimated[:SCATTER]
        out[name] = np.sqrt(np.mean((estimated - truth) ** 2, axis=0)).tolist()
    return out


def example_pairs(survey: Survey) -> list[int]:
    """First rows of a metal-rich and a metal-poor pair that differ by 300 to 700 K in Teff."""
    apart = np.abs(survey.parameters[::2, 0] - survey.parameters[1::2, 0])
    chosen = np.flatnonzero((apart > 300) & (apart < 700))
    if not len(chosen):
        raise InputError(f"{survey.path} is too small to show an example: no pair differs by 300 to 700 K")
    metals = survey.parameters[2 * chosen, 2]
    targets = np.quantile(survey.parameters[:, 2], [0.9, 0.1])
    return [int(2 * chosen[np.abs(metals - target).argmin()]) for target in targets]


def _examples(model: Model, survey: Survey, arrays: dict[str, Any]) -> None:
    """Twins before and after recasting, for figures 5 and 6."""
    rows = example_pairs(survey)
    arrays["example rows"] = rows
    for number, row in enumerate(rows):
        flux = survey.flux(slice(row, row + 2))
        normalised = (flux if model.normaliser is None else model.normaliser.batch(flux)).astype(np.float64)
        u = parameter_values(survey, model.parameter_names)[row : row + 2]
        latent = model.encode(normalised[:1], u[:1])
        arrays[f"example {number}"] = np.concatenate([normalised, model.decode(latent, u[1:])])


def write(labels: Sequence[str], surveys: Surveys, folder: Path) -> str:
    """Write report.md, .html, .json and the pictures from what was measured; returns the Markdown."""
    results = [_result(folder, label) for label in labels]
    arrays = {label: dict(np.load(folder / f"{label}.npz")) for label in labels}
    (folder / "report.json").write_text(json.dumps(results, indent=1) + "\n")
    wavelength = surveys.pairs[0].wavelength
    pictures = [
        figures.distances(folder, results, arrays),
        figures.doppelgangers(folder, results, arrays, CURVE),
        *(
            figures.abundances(folder, result, arrays[result["label"]])
            for result in results
            if "abundances" in result
        ),
        *(
            figures.twins(folder, result, arrays[result["label"]], wavelength, surveys.pairs[0])
            for result in results
        ),
        figures.residuals(folder, results, arrays, wavelength, PIXELS),
    ]
    for drawn in (
        figures.reliability(folder, results, arrays),
        figures.drift(folder, results, arrays),
        figures.robustness(folder, results),
    ):
        if drawn is not None:
            pictures.append(drawn)
    shown = tables(results, _limits(surveys, folder))
    drawings = [f"![{alt}]({name})" for name, alt in pictures]
    text = "\n\n".join([_heading(surveys), *shown, "## Figures", *drawings])
    publish(folder, "report", text)
    return text


def _result(folder: Path, label: str) -> dict[str, Any]:
    """The measured figures of a model, with its robustness if that was measured too."""
    result: dict[str, Any] = json.loads((folder / f"{label}.json").read_text())
    path = folder / f"{label}.robustness.json"
    if path.exists():
        perturbed = json.loads(path.read_text())
        if perturbed["model"] == result["model"]:
            result["robustness"] = perturbed["robustness"]
    return result


def _limits(surveys: Surveys, folder: Path) -> dict[str, Any]:
    """The limits of these surveys that `chemtwin lab limit` has written to `folder`, by kind of pair."""
    path = folder / "limit.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    named = {
        survey_kind(survey): (found.get(survey_name(survey)), survey.identity()) for survey in surveys.pairs
    }
    return {
        pairs: limit for pairs, (limit, identity) in named.items() if limit and limit["identity"] == identity
    }


def evaluate(paths: Sequence[Path], surveys: Surveys, folder: Path) -> str:
    """Measure the models in `paths` and write the report; a model's label is its file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = model_labels(paths)
    for path in paths:
        measure(path, surveys, folder)
    return write(labels, surveys, folder)


def describe(path: Path, folder: Path, out: Path) -> None:
    """Write the model in `path` to `out` with the report's figures as its card's quality.

    Raises InputError when the report is of another model of that name.
    """
    model = load_model(path)
    result = json.loads((folder / f"{path.stem}.json").read_text())
    if result["model"] != model.card.identity:
        raise InputError(f"the report in {folder} is of {result['model']}, not of {model.card.identity}")
    keys = ("surveys", "training", "twins", "data_space", "recast", "dependence", "abundances", "groups")
    quality = {key: result[key] for key in keys if result.get(key) is not None}
    if "training" in quality:
        quality["training"] = {k: v for k, v in quality["training"].items() if k != "history"}
    model.card = dataclasses.replace(model.card, quality=quality)
    save_model(model, out)


def _heading(surveys: Surveys) -> str:
    lines = ["# Evaluation", ""]
    for survey in surveys.pairs:
        lines.append(f"- {survey_kind(survey)}: {len(survey)} stars, seed {survey.seed}")
    if surveys.groups is not None:
        lines.append(f"- groups: {len(surveys.groups)} stars, seed {surveys.groups.seed}")
    return "\n".join(lines)

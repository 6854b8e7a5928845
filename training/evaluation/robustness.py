"""Twin searches on spectra with the effects of real observations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.bundle import load_model
from model.errors import InputError
from model.methods.base import Model
from model.methods.gaussdis import GaussDis
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array
from training.evaluation.evaluate import model_labels, twin_rows, twin_search
from training.random_streams import Stream, generator
from training.reports.html_page import publish
from training.reports.markdown import table
from training.surveys.observational_effects import CASES, LABEL_SD, perturbed
from training.surveys.survey import BLOCK_STARS, Survey, add_noise
from training.surveys.used_surveys import check_unused

SNR = 100.0
ROBUSTNESS = "Twins found by distance, and ROC area, when spectra are perturbed as real ones are."

Embed = Callable[[Array, Array, Array], Array]
"""Latents (N, D) of normalised flux (N, P), parameters (N, U) and variance (N, P), infinite where masked."""


def encoder(model: Model, kind: str) -> Embed:
    """The encoder as in the service: given the variance, and the errors of parameters if it uses them."""
    if isinstance(model, GaussDis):
        wrong = LABEL_SD if kind == "labels" else {kind: LABEL_SD.get(kind, 0.0)}
        errors = np.array([wrong.get(name, 0.0) for name in model.parameter_names])
        return lambda flux, parameters, variance: model.posterior(
            flux, parameters, variance, np.broadcast_to(errors, parameters.shape)
        )[0]
    return lambda flux, parameters, variance: model.encode(
        flux, parameters, variance + model.card.error_floor**2
    )


def cases(model: Model) -> list[str]:
    """The kinds of perturbation that can touch this model: no errors in labels that it does not use."""
    return [kind for kind in CASES if kind not in LABEL_SD or kind in model.parameter_names]


def robustness(
    model: Model, survey: Survey, embed: Embed | None = None, *, snr: float = SNR, stars: int | None = None
) -> dict[str, Any]:
    """Twin search at `snr` under each perturbation, among the survey's first `stars` (all by default).

    Twins must be neighbours in a noiseless survey of pairs. The noise is the same in every case; each
    case gives its `TwinSearch.summary`. Raises InputError for another survey.
    """
    survey.check_grid(model.grid)
    count = len(survey) if stars is None else min(len(survey), stars - stars % 2)
    twin = twin_rows(survey)[:count]
    if not np.array_equal(twin, np.arange(count) ^ 1):
        raise InputError("twins are not in neighbouring rows")
    found = {
        kind: twin_search(perturbed_latents(model, survey, kind, embed, snr, count), twin, snr).summary()
        for kind in cases(model)
    }
    return {"snr": snr, "stars": count, "survey_seed": survey.seed, "cases": found}


def perturbed_latents(
    model: Model, survey: Survey, kind: str, embed: Embed | None = None, snr: float = SNR, stars: int = 10_000
) -> Array:
    """Latents (N, D) of a survey's first `stars`, streamed: perturbed, then noisy, then normalised."""
    embed = embed or encoder(model, kind)
    columns = [list(LABEL_SD).index(name) for name in model.parameter_names]
    parts = []
    for start in range(0, stars, BLOCK_STARS):
        rows = slice(start, min(start + BLOCK_STARS, stars))
        random = generator(Stream.PERTURBATION, start)
        flux, parameters, masked = perturbed(
            survey.flux(rows), survey.parameters[rows], kind, random, survey.wavelength
        )
        noisy = add_noise(flux.astype(np.float32), snr, Stream.EVALUATION_NOISE, start).astype(np.float64)
        flux, variance = _normalised(model.normaliser, noisy, np.where(masked, 0.0, snr**2))
        parts.append(embed(flux, parameters[:, columns], variance))
    return np.concatenate(parts)


def _normalised(normaliser: Normaliser | None, flux: Array, ivar: Array) -> tuple[Array, Array]:
    """Normalised flux (N, P), 0 where masked, and its variance (N, P), infinite there."""
    if normaliser is not None:
        pairs = [normaliser(*star) for star in zip(flux, ivar, strict=True)]
        flux, ivar = (np.stack(part) for part in zip(*pairs, strict=True))
    good: NDArray[np.bool_] = ivar > 0
    return np.where(good, flux, 0.0), np.divide(1.0, ivar, out=np.full(ivar.shape, np.inf), where=good)


def robustness_table(results: Sequence[dict[str, Any]]) -> str:
    """Fraction of recovered twins and ROC area of each case (rows) and model (columns), as Markdown.

    `results`: each with a `label` and, where measured, what `robustness` returned under "robustness".
    """
    measured = [result for result in results if "robustness" in result]
    rows = [
        [name, *(_cell(result["robustness"]["cases"].get(kind)) for result in measured)]
        for kind, name in CASES.items()
    ]
    return table(["perturbation", *(result["label"] for result in measured)], rows)


def _cell(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['recovered']:.3f} ({found['auc']:.4f})"


def measure_robustness(paths: Sequence[Path], survey: Survey, folder: Path, stars: int | None) -> str:
    """Measure models on perturbed spectra into `folder`, which a report there shows; returns robustness.md."""
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for path, label in zip(paths, model_labels(paths), strict=True):
        model = load_model(path)
        check_unused(model, label, survey)
        result = {
            "label": label,
            "model": model.card.identity,
            "robustness": robustness(model, survey, stars=stars),
        }
        (folder / f"{label}.robustness.json").write_text(json.dumps(result, indent=1) + "\n")
        results.append(result)
    stars_and_noise = (
        f"{len(survey) if stars is None else min(stars, len(survey))} stars of seed {survey.seed}, S/N {SNR:g}."
    )
    text = "\n\n".join(["# Robustness", stars_and_noise, ROBUSTNESS, robustness_table(results)])
    publish(folder, "robustness", text)
    return text

"""Fitting and testing the linear readout of abundances from latents (paper, section 5.3).

It needs a survey with known abundances, and does not change the model's latents or distances.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.bundle import load_model, save_model
from model.methods.abundance_readout import AbundanceReadout
from model.methods.base import Model
from model.methods.gaussdis import GaussDis
from model.spectra.grid import Array
from training.evaluation.posteriors import posteriors
from training.evaluation.probes import abundances, linear_map
from training.spectral_basis import parameter_values, training_spectra
from training.surveys.survey import Survey
from training.surveys.used_surveys import check_apart, check_unused

LEVELS = (100, 50, 30)


def fit_readout(model: Model, survey: Survey) -> AbundanceReadout:
    """Fit the least-squares readout of a noiseless survey's abundances.

    Parameters
    ----------
    model : Model
        The model whose latents are read.
    survey : Survey
        Stars with known abundances.

    Returns
    -------
    AbundanceReadout
        The readout; its `scatter` is that of the second half about a fit to the first.

    Raises
    ------
    InputError
        For a survey without abundances or with noise.
    """
    names, values, latents = _truth_and_latents(model, survey)
    half = len(latents) // 2
    residual = values[half:] - linear_map(latents[:half], values[:half])(latents[half:])
    predict = linear_map(latents, values)
    constant = predict(np.zeros((1, latents.shape[1])))[0]
    provenance = {"stars": len(survey), "seed": survey.seed, "survey": survey.identity()}
    slope = predict(np.eye(latents.shape[1])) - constant
    return AbundanceReadout(tuple(names), slope, constant, residual.std(axis=0), provenance)


def error_table(model: Model, readout: AbundanceReadout, survey: Survey) -> str:
    """A table of the readout's errors on another noiseless survey: rms in dex, and chi-square (1 is right)."""
    names, values, latents = _truth_and_latents(model, survey)
    estimates = {"no noise": readout(latents)}
    if isinstance(model, GaussDis):
        estimates |= {f"S/N {level}": readout(*posteriors(model, survey, level)) for level in LEVELS}
    heads = " | ".join(f"{level}: rms | chi2" for level in estimates)
    lines = [f"| element | spread | {heads} |", "|---" * (2 + 2 * len(estimates)) + "|"]
    for column, name in enumerate(names):
        cells = [f"[{name}/Fe]", f"{values[:, column].std():.3f}"]
        for value, sd in estimates.values():
            error = value[:, column] - values[:, column]
            cells += [f"{error.std():.3f}", f"{np.mean((error / sd[:, column]) ** 2):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def add_readout(path: Path, fitted: Path, tested: Path, out: Path) -> str:
    """Write the model in `path` to `out` with a readout fitted to a survey; its table on another survey.

    Raises InputError for surveys that cannot be used.
    """
    model, survey, test = load_model(path), Survey.open(fitted), Survey.open(tested)
    check_apart(test, survey, "the survey that the readout is fitted to")
    check_unused(model, path.stem, test)
    model.readout = fit_readout(model, survey)
    save_model(model, out)
    return error_table(model, model.readout, test)


def _truth_and_latents(model: Model, survey: Survey) -> tuple[list[str], Array, Array]:
    """Names of elements, their [X/Fe] (N, E), and the noiseless latents (N, D)."""
    survey.check_grid(model.grid)
    survey.check_noiseless()
    names, values = abundances(survey)
    parameters = parameter_values(survey, model.parameter_names)
    blocks = training_spectra(survey, model.normaliser, np.inf, "latents")
    latents = np.concatenate([model.encode(flux.astype(np.float64), parameters[rows]) for rows, flux in blocks])
    return names[1:], values[:, 1:], latents

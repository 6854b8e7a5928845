"""Whitening: a linear map of the latents, after which Euclidean distance is a good search.

Noise does not move all latents alike. The map whitens what noise at S/N 100 does to them, plus a floor that is
equal in all directions, for the remaining dependence on u. The noise part needs no labels; the floor's height
is chosen on the validation survey's pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.methods.autoencoder import Autoencoder
from model.methods.base import Model
from model.spectra.grid import Array
from training.evaluation.evaluate import doppelgangers, embed_survey, twin_rows
from training.random_streams import Stream
from training.spectral_basis import CPU, parameter_values
from training.surveys.survey import Survey, add_noise

SNR = 100.0
NOISE_STARS = 4096
FLOORS = (np.inf, 0.2, 0.1, 0.05, 0.02)
"""Floors that are tried, in units of the latents' mean variance; inf: the latents as they are."""


def noise_covariance(model: Model, survey: Survey) -> Array:
    """Covariance (D, D) of the difference between two noisy latents of one star at S/N 100."""
    differences = []
    u = parameter_values(survey, model.parameter_names)
    for rows, flux in survey.blocks("repeats"):
        pair = []
        for repeat in (0, 1):
            noisy = add_noise(flux, SNR, Stream.METRIC_REPEATS, repeat, rows.start)
            if model.normaliser is not None:
                noisy = model.normaliser.batch(noisy)
            pair.append(model.encode(noisy.astype(np.float64), u[rows]))
        differences.append(pair[0] - pair[1])
        if rows.stop >= NOISE_STARS:
            break
    return np.asarray(np.cov(np.concatenate(differences).T))


def whitening(noise: Array, variance: float, floor: float) -> Array:
    """The map (D, D) that whitens `noise` (D, D) plus a `floor` in units of the latents' mean `variance`."""
    unit = np.eye(len(noise))
    if np.isinf(floor):
        return unit
    return np.asarray(np.linalg.cholesky(np.linalg.inv(noise + floor * variance * unit)))


def twins_found(
    latents: Sequence[Array], pairs: NDArray[np.int64], noise: Array, device: torch.device = CPU
) -> dict[float, list[float]]:
    """For each floor the fraction of twins found at each noise level.

    `latents` are (N, D) for each level, the first noiseless; `pairs` (N,) the row of each star's twin; `noise`
    (D, D) the covariance to be whitened.
    """
    variance = float(latents[0].var(axis=0).mean())
    found = {}
    for floor in FLOORS:
        whiten = whitening(noise, variance, floor)
        counts = [doppelgangers(z @ whiten, pairs, shown=False, device=device) for z in latents]
        found[floor] = [float(np.mean(count == 0)) for count in counts]
    return found


def best_floor(found: dict[float, list[float]]) -> float:
    """The floor that finds most twins, averaged over the noise levels."""
    return max(found, key=lambda floor: float(np.mean(found[floor])))


def fit_whitening(
    model: Autoencoder, survey: Survey, validation: Survey, levels: tuple[float, ...]
) -> dict[str, float]:
    """Give `model` the whitening that finds most twins of the validation survey, averaged over noise `levels`.

    Returns that fraction for each floor. Noise is measured on `survey`, without labels.
    """
    latents = [embed_survey(model, validation, level, Stream.METRIC_NOISE) for level in levels]
    noise = noise_covariance(model, survey)
    found = twins_found(latents, twin_rows(validation), noise)
    floor = best_floor(found)
    model.metric = model.metric @ whitening(noise, float(latents[0].var(axis=0).mean()), floor)
    if np.isfinite(floor):
        metric = (
            f"Euclidean distance of the latents, whitened by the noise at S/N {SNR:g} plus a floor of {floor:g}"
        )
        model.card = dataclasses.replace(model.card, metric=metric)
    return {f"{floor:g}": float(np.mean(fractions)) for floor, fractions in found.items()}

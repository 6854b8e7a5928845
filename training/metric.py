"""The metric: a linear map of the latents after which plain Euclidean distance is a good search.

Noise does not move all latents alike. The map whitens what noise at S/N 100 does to them, plus a floor, equal
in all directions, for what is left of u. The noise part needs no labels at all; how high the floor is, is chosen
on the validation survey's pairs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from model.autoencoder import Autoencoder
from model.grid import Array
from training.basis import known
from training.evaluate import NOISE_STREAM, doppelgangers, embed_survey, twins
from training.survey import Survey, add_noise

SNR = 100.0
NOISE_STARS = 4096
FLOORS = (np.inf, 0.3, 0.1, 0.05, 0.02, 0.01)
"""Floors that are tried, in units of the latents' mean variance; inf: the latents as they are."""


def noise_covariance(model: Autoencoder, survey: Survey) -> Array:
    """Covariance (D, D) of the difference between two noisy latents of one star at S/N 100."""
    differences = []
    u = known(survey, model.parameter_names)
    for rows, flux in survey.blocks("repeats"):
        pair = []
        for repeat in (0, 1):
            noisy = add_noise(flux, SNR, *NOISE_STREAM, repeat, rows.start)
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


def fit_metric(
    model: Autoencoder, survey: Survey, validation: Survey, levels: tuple[float, ...]
) -> dict[str, float]:
    """Give `model` the whitening that finds most twins of the validation survey, averaged over noise `levels`.

    Returns that share for each floor. Noise is measured on `survey`, without labels.
    """
    latents = [embed_survey(model, validation, level) for level in levels]
    noise, variance = noise_covariance(model, survey), float(latents[0].var(axis=0).mean())
    pairs = twins(validation)
    found = {}
    for floor in FLOORS:
        metric = whitening(noise, variance, floor)
        shares = [np.mean(doppelgangers(z @ metric, pairs, shown=False) == 0) for z in latents]
        found[f"{floor:g}"] = float(np.mean(shares))
    best = max(FLOORS, key=lambda floor: found[f"{floor:g}"])
    model.metric = model.metric @ whitening(noise, variance, best)
    told = f"Euclidean distance of the latents, whitened by the noise at S/N {SNR:g} plus a floor of {best:g}"
    if np.isfinite(best):
        model.card = dataclasses.replace(model.card, metric=told)
    return found

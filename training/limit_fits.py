"""Is the Gaussian oracle right? The same twin search with abundances fitted to simulated spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.grid import Array
from model.likelihood import Likelihood, ranked_doppelgangers
from training.emulator import Emulator
from training.oracle import Prior
from training.slopes import flux_and_slopes

FIT_LEVELS = (100.0, 50.0)
FIT_PAIRS = 500
STEPS = 8

_PICK, _NOISE = 10, 11
_BATCH = 50


def against_fits(
    emulator: Emulator, labels: Array, columns: list[int], twin: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Per noise level the shares of stars found among the 1,000 of 500 pairs, by the oracle and by fits to the
    same noise, and the mean chi-square of the fits' errors; `columns` of `labels` (N, 21) are fitted."""
    prior = Prior.of(labels[:, columns])
    first = np.flatnonzero(np.arange(len(twin)) < twin)
    picked = np.random.default_rng(_PICK).permutation(first)[:FIT_PAIRS]
    rows = np.column_stack([picked, twin[picked]]).reshape(-1)
    truth = prior.latents(labels[rows][:, columns])
    levels = {}
    for snr in FIT_LEVELS:
        oracle, fits = fit(emulator, labels[rows], columns, prior, snr)
        error = fits.mean - truth
        chi2 = np.einsum("ni,nij,nj->n", error, fits.precision, error)
        levels[f"{snr:g}"] = {
            "stars": len(rows),
            "oracle": _found(oracle),
            "fits": _found(fits),
            "chi2": {
                "mean": float(chi2.mean()),
                "expected": truth.shape[1],
                "error": float(chi2.std() / np.sqrt(len(chi2))),
            },
        }
    return levels


def _found(stars: Likelihood) -> dict[str, float]:
    """The share of stars whose twin, in the neighbouring row, comes first, with the scatter between pairs."""
    rows = np.arange(len(stars))
    hits = ranked_doppelgangers(stars, rows ^ 1, rows, nearest=len(stars), shown=False) == 0
    by_pair = hits.reshape(-1, 2).mean(axis=1)
    return {"share": float(by_pair.mean()), "error": float(by_pair.std() / np.sqrt(len(by_pair)))}


def fit(
    emulator: Emulator, labels: Array, columns: list[int], prior: Prior, snr: float
) -> tuple[Likelihood, Likelihood]:
    """The oracle's posteriors and those of maximum a posteriori fits, given one draw of the noise.

    Fits start at the prior's mean; the oracle's mean is one Gauss-Newton step from the truth.
    """
    generator = np.random.default_rng([_NOISE, int(snr)])
    posteriors: list[list[tuple[Array, Array]]] = [[], []]
    for start in tqdm(range(0, len(labels), _BATCH), desc=f"fit at S/N {snr:g}", disable=None):
        truth = labels[start : start + _BATCH]
        noise = torch.from_numpy(generator.standard_normal((len(truth), len(emulator.wavelength))) / snr)
        observed = flux_and_slopes(emulator, truth, columns)[0] + noise
        latents = prior.latents(truth[:, columns])
        posteriors[0].append(_step(emulator, truth, columns, prior, snr, observed, latents))
        latents = np.zeros_like(latents)
        for _ in range(STEPS):
            latents, covariances = _step(emulator, truth, columns, prior, snr, observed, latents)
        posteriors[1].append((latents, covariances))
    oracle, fits = (
        Likelihood.of(np.concatenate([m for m, _ in part]), np.concatenate([s for _, s in part]))
        for part in posteriors
    )
    return oracle, fits


def _step(
    emulator: Emulator,
    truth: Array,
    columns: list[int],
    prior: Prior,
    snr: float,
    observed: torch.Tensor,
    latents: Array,
) -> tuple[Array, Array]:
    """One Gauss-Newton step from `latents` (N, D): the new ones, and their posterior covariance (N, D, D)."""
    labels = truth.copy()
    labels[:, columns] = prior.mean + latents @ prior.axes.T
    flux, slopes = flux_and_slopes(emulator, labels, columns)
    by_latent = torch.from_numpy(prior.axes.T) @ slopes.double()
    pull = snr**2 * (by_latent @ (observed - flux)[..., None])[..., 0].numpy()
    information = snr**2 * (by_latent @ by_latent.mT).numpy()
    covariances = np.linalg.inv(information + np.eye(latents.shape[1]))
    moved: Array = latents + np.einsum("nij,nj->ni", covariances, pull - latents)
    return moved, np.asarray(covariances)

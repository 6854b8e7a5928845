"""Check the Gaussian ideal observer: the same twin search with abundances fitted to simulated spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.similarity.likelihood_ratio import Likelihood, ranked_doppelgangers
from model.spectra.grid import Array
from training.emulator.derivatives import flux_and_slopes
from training.emulator.emulator import Emulator
from training.evaluation.ideal_observer import Prior
from training.random_streams import Stream, generator

FIT_LEVELS = (100.0, 50.0)
FIT_PAIRS = 500
STEPS = 15

_BATCH = 50


def against_fits(
    emulator: Emulator, labels: Array, columns: list[int], twin: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Compare the ideal observer with fits of `columns` of `labels` (N, 21) to the same noise.

    Gives per noise level the fractions of the 1,000 stars of 500 pairs that both find, and the mean chi-square
    of the fits' errors.
    """
    prior = Prior.of(labels[:, columns])
    first = np.flatnonzero(np.arange(len(twin)) < twin)
    picked = generator(Stream.FITTED_TWINS).permutation(first)[:FIT_PAIRS]
    rows = np.column_stack([picked, twin[picked]]).reshape(-1)
    truth = prior.latents(labels[rows][:, columns])
    levels = {}
    for snr in FIT_LEVELS:
        observer, fits = fit(emulator, labels[rows], columns, prior, snr)
        error = fits.mean - truth
        chi2 = np.einsum("ni,nij,nj->n", error, fits.precision, error)
        levels[f"{snr:g}"] = {
            "stars": len(rows),
            "ideal_observer": _found(observer),
            "fits": _found(fits),
            "chi2": {
                "mean": float(chi2.mean()),
                "expected": truth.shape[1],
                "error": float(chi2.std() / np.sqrt(len(chi2))),
            },
        }
    return levels


def _found(stars: Likelihood) -> dict[str, float]:
    """Fraction of stars whose twin, in the neighbouring row, ranks first, with the scatter between pairs."""
    rows = np.arange(len(stars))
    hits = ranked_doppelgangers(stars, rows ^ 1, rows, nearest=len(stars), shown=False) == 0
    by_pair = hits.reshape(-1, 2).mean(axis=1)
    return {"fraction": float(by_pair.mean()), "error": float(by_pair.std() / np.sqrt(len(by_pair)))}


def fit(
    emulator: Emulator, labels: Array, columns: list[int], prior: Prior, snr: float
) -> tuple[Likelihood, Likelihood]:
    """The ideal observer's posteriors and those of maximum a posteriori fits, given one draw of the noise.

    Fits start at the prior's mean; the observer's mean is one Gauss-Newton step from the truth.
    """
    random = generator(Stream.FITTED_NOISE, int(snr))
    observer: list[tuple[Array, Array]] = []
    fits: list[tuple[Array, Array]] = []
    for start in tqdm(range(0, len(labels), _BATCH), desc=f"fit at S/N {snr:g}", disable=None):
        truth = labels[start : start + _BATCH]
        noise = torch.from_numpy(random.standard_normal((len(truth), len(emulator.wavelength))) / snr)
        observed = flux_and_slopes(emulator, truth, columns)[0] + noise
        problem = _Problem(emulator, truth, columns, prior, snr, observed)
        latents = prior.latents(truth[:, columns])
        _, gradient, precision = problem.at(latents)
        observer.append((latents + _solve(precision, gradient), np.asarray(np.linalg.inv(precision))))
        fits.append(problem.minimum(np.zeros_like(latents)))
    return _joined(observer), _joined(fits)


def _joined(parts: list[tuple[Array, Array]]) -> Likelihood:
    means, covariances = zip(*parts, strict=True)
    return Likelihood.of(np.concatenate(means), np.concatenate(covariances))


def _solve(matrices: Array, vectors: Array) -> Array:
    return np.asarray(np.linalg.solve(matrices, vectors[..., None])[..., 0])


@dataclass(frozen=True)
class _Problem:
    """Fits of latents to the spectra `observed` (N, P); what is not in `columns` is as in `truth` (N, 21)."""

    emulator: Emulator
    truth: Array
    columns: list[int]
    prior: Prior
    snr: float
    observed: torch.Tensor

    def at(self, latents: Array) -> tuple[Array, Array, Array]:
        """The posterior at some latents.

        Gives -2 log posterior (N,) at `latents` (N, D), half its downward gradient (N, D) and the precision (N,
        D, D).
        """
        labels = self.truth.copy()
        labels[:, self.columns] = self.prior.mean + latents @ self.prior.axes.T
        flux, slopes = flux_and_slopes(self.emulator, labels, self.columns)
        by_latent = self.snr * (torch.from_numpy(self.prior.axes.T) @ slopes.double())
        residual = self.snr * (self.observed - flux)
        pull = (by_latent @ residual[..., None])[..., 0].numpy() - latents
        precision = (by_latent @ by_latent.mT).numpy() + np.eye(latents.shape[1])
        chi2 = (residual * residual).sum(dim=1).numpy() + np.square(latents).sum(axis=1)
        return chi2, pull, precision

    def inside(self, latents: Array) -> Array:
        """The latents (N, D) whose labels are clipped to the emulator's box."""
        lo, hi = self.emulator.lo[self.columns], self.emulator.hi[self.columns]
        clipped = np.clip(self.prior.mean + latents @ self.prior.axes.T, lo, hi)
        return self.prior.latents(clipped)

    def minimum(self, latents: Array) -> tuple[Array, Array]:
        """Levenberg and Marquardt's steps in the box from `latents` (N, D): the best, and their covariances."""
        damping = np.zeros((len(latents), 1, 1))
        best = [latents, *self.at(latents)]
        for _ in range(STEPS):
            latents, _, pull, precision = best
            damped = precision + damping * precision * np.eye(latents.shape[1])
            tried = self.inside(latents + _solve(damped, pull))
            fresh = [tried, *self.at(tried)]
            better = fresh[1] < best[1]
            best = [
                np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(fresh, best, strict=True)
            ]
            damping = np.where(better[:, None, None], damping / 10, np.maximum(10 * damping, 0.1))
        return best[0], np.asarray(np.linalg.inv(best[3]))

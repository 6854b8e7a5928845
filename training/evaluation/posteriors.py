"""Measuring models whose latents are posteriors: ranking by likelihood, errors, drift with noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.methods.gaussdis import GaussDis
from model.similarity.likelihood_ratio import Likelihood, ranked_doppelgangers
from model.similarity.p_same import p_same
from model.spectra.grid import Array
from training.random_streams import Stream, generator
from training.spectral_basis import parameter_values
from training.surveys.survey import Survey, add_noise

QUERIES = 5000
"""Stars, one of a pair each, whose twins are ranked by likelihood."""

DRIFT_LEVELS = (100.0, 70.0, 50.0, 30.0, 20.0)
DRIFT_STARS = 2048


def posteriors(
    model: GaussDis,
    survey: Survey,
    snr: float = np.inf,
    stream: Stream = Stream.EVALUATION_NOISE,
    stars: int | None = None,
) -> tuple[Array, Array]:
    """Posteriors of a survey's first stars, streamed.

    Parameters
    ----------
    model : GaussDis
        The model.
    survey : Survey
        Noiseless stars.
    snr : float
        Noise of 1 / `snr` is added before the model's normaliser, and given to the model.
    stream : Stream
        The stream of the noise.
    stars : int, optional
        Number of stars, by default all.

    Returns
    -------
    means : array (N, D)
        Posterior means.
    covariances : array (N, D, D)
        Posterior covariances.
    """
    survey.check_grid(model.grid)
    count, size = len(survey) if stars is None else min(stars, len(survey)), model.card.latent_dim
    means, covariances = np.empty((count, size)), np.empty((count, size, size))
    u = parameter_values(survey, model.parameter_names)
    for rows, flux in survey.blocks(f"posteriors at S/N {snr:g}"):
        if rows.start >= count:
            break
        noisy = add_noise(flux, snr, stream, rows.start)
        if model.normaliser is not None:
            noisy = model.normaliser.batch(noisy)
        variance = np.broadcast_to(np.float64(snr**-2), noisy.shape)
        used = slice(rows.start, min(rows.stop, count))
        found = model.posterior(noisy.astype(np.float64), u[rows], variance)
        means[used], covariances[used] = (values[: used.stop - used.start] for values in found)
    return means, covariances


def likelihoods(model: GaussDis, means: Array, covariances: Array) -> Likelihood:
    """The likelihood that ranks pairs of posteriors (N, D) and (N, D, D)."""
    return Likelihood.of(model.unit(means), model.unit_covariance(covariances))


def likelihood_recovery(stars: Likelihood, twin: NDArray[np.int64]) -> dict[str, float]:
    """Fraction of stars whose twin (N,) has the largest likelihood ratio, and its standard error."""
    first = np.flatnonzero(np.arange(len(twin)) < twin)
    queries = generator(Stream.RANKED_TWINS).permutation(first)[:QUERIES]
    count = ranked_doppelgangers(stars, twin, np.sort(queries))
    fraction = float(np.mean(count == 0))
    return {"fraction": fraction, "error": float(np.sqrt(fraction * (1 - fraction) / len(count)))}


def twin_chi2(
    model: GaussDis, means: Array, covariances: Array, twin: NDArray[np.int64]
) -> tuple[float, Array]:
    """Mean chi-square per dimension of true twins' differences (1 is right), and their `p_same` (N / 2,)."""
    first = np.flatnonzero(np.arange(len(twin)) < twin)
    gap = means[first] - means[twin[first]]
    covariance = model.pair_covariance(covariances[first], covariances[twin[first]])
    chi2 = np.einsum("ni,ni->n", gap, np.linalg.solve(covariance, gap[:, :, None])[:, :, 0])
    return float(chi2.mean()) / gap.shape[1], p_same(np.linalg.norm(gap, axis=1), covariance)


def drift(model: GaussDis, survey: Survey) -> dict[str, Array]:
    """Measure how far noise moves the mean latent of the same stars.

    Parameters
    ----------
    model : GaussDis
        The model.
    survey : Survey
        Noiseless stars.

    Returns
    -------
    dict of str to array
        `drift` (L, D) at `drift levels` (L,), the posteriors' `drift sd` (L, D) and the population's `drift
        spread` (D,).
    """
    clean, _ = posteriors(model, survey, stars=DRIFT_STARS)
    moved, sd = [], []
    for level in DRIFT_LEVELS:
        means, covariances = posteriors(model, survey, level, stars=DRIFT_STARS)
        moved.append((means - clean).mean(axis=0))
        sd.append(np.sqrt(np.diagonal(covariances, axis1=1, axis2=2).mean(axis=0)))
    return {
        "drift levels": np.array(DRIFT_LEVELS),
        "drift": np.stack(moved),
        "drift sd": np.stack(sd),
        "drift spread": clean.std(axis=0),
    }


def posterior_figures(
    model: GaussDis, means: Array, covariances: Array, twin: NDArray[np.int64]
) -> tuple[dict[str, Any], Array]:
    """A report's figures of posteriors at one noise level, and the `p_same` of true twins."""
    chi2, p = twin_chi2(model, means, covariances, twin)
    return {"likelihood": likelihood_recovery(likelihoods(model, means, covariances), twin), "chi2": chi2}, p

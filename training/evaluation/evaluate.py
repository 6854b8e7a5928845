"""Twin searches and recasts by a model on surveys of pairs (paper, sections 5.1, 5.2 and 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm

from model.errors import InputError
from model.methods.base import Model
from model.methods.polydis import PolyDis
from model.spectra.grid import Array
from training.random_streams import Stream, generator
from training.spectral_basis import CPU, parameter_values
from training.surveys.survey import Survey, add_noise

RANKED, RANKED_ON_GPU = 64, 2048
"""Stars that are ranked at a time."""


@dataclass(frozen=True)
class TwinSearch:
    """A search of each star's twin among all stars.

    Attributes
    ----------
    snr : float
        S/N per pixel.
    doppelgangers : array of int (N,)
        For each star the number of stars at most as far as its twin.
    near : array (N,)
        Distances of twins.
    far : array (M,)
        Distances of random pairs.
    """

    snr: float
    doppelgangers: NDArray[np.int64]
    near: Array
    far: Array

    @property
    def recovered(self) -> float:
        """Fraction of stars whose twin is the nearest of all others."""
        return float(np.mean(self.doppelgangers == 0))

    @property
    def within_ten(self) -> float:
        """Fraction of stars with fewer than ten doppelgangers."""
        return float(np.mean(self.doppelgangers < 10))

    @property
    def auc(self) -> float:
        """Probability that a random pair lies further apart than a twin pair (the area under the ROC curve)."""
        ranks = rankdata(np.concatenate([self.near, self.far]))[len(self.near) :]
        return float((ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / (len(self.near) * len(ranks)))

    def fewer_than(self, counts: NDArray[np.int64]) -> Array:
        """Fractions (C,) of stars with fewer than `counts` doppelgangers (paper, figure 3)."""
        ordered = np.sort(self.doppelgangers)
        return np.asarray(np.searchsorted(ordered, counts, side="left") / len(ordered))

    def summary(self) -> dict[str, float]:
        """Its three figures."""
        return {"recovered": self.recovered, "within_ten": self.within_ten, "auc": self.auc}


def model_labels(paths: Sequence[Path]) -> list[str]:
    """The names of models in a report: those of their files. Raises InputError where two are the same."""
    labels = [path.stem for path in paths]
    if len(set(labels)) < len(labels):
        raise InputError("two model files have the same name: the report could not tell them apart")
    return labels


def embed_survey(
    model: Model, survey: Survey, snr: float = np.inf, stream: Stream = Stream.EVALUATION_NOISE
) -> Array:
    """Embed a survey, streamed.

    Parameters
    ----------
    model : Model
        The model.
    survey : Survey
        Noiseless stars.
    snr : float
        Noise of 1 / `snr` is added before the model's normaliser.
    stream : Stream
        The stream of the noise.

    Returns
    -------
    array (N, D)
        Latents.
    """
    survey.check_grid(model.grid)
    latents = np.empty((len(survey), model.card.latent_dim))
    u = parameter_values(survey, model.parameter_names)
    for rows, flux in survey.blocks(f"embed at S/N {snr:g}"):
        noisy = add_noise(flux, snr, stream, rows.start)
        if model.normaliser is not None:
            noisy = model.normaliser.batch(noisy)
        variance = None if np.isinf(snr) else np.broadcast_to(np.float64(snr**-2), noisy.shape)
        latents[rows] = model.encode(noisy.astype(np.float64), u[rows], variance)
    return latents


def doppelgangers(
    latents: Array,
    twin: NDArray[np.int64],
    shown: bool = True,
    device: torch.device = CPU,
    queries: Array | None = None,
) -> NDArray[np.int64]:
    """Count for each star the stars at most as far as its twin, exactly, in blocks.

    Parameters
    ----------
    latents : array (N, D)
        Latents.
    twin : array of int (N,)
        The row of each star's twin.
    shown : bool
        Show a progress bar.
    device : torch.device
        Where to count.
    queries : array (N, D), optional
        Where each star is when its own twin is searched, if not at its latent.

    Returns
    -------
    array of int (N,)
        The counts. Ties count against the twin, so that latents without information find nothing.

    Notes
    -----
    Distances are Euclidean in double precision, |b|^2 - 2 a.b with the latents centred.
    """
    mean = latents.mean(axis=0)
    queries, latents = (latents if queries is None else queries) - mean, latents - mean
    squares = np.einsum("nd,nd->n", latents, latents)
    left = np.hstack([-2 * queries, np.ones((len(latents), 1))])
    right = np.ascontiguousarray(np.hstack([latents, squares[:, None]]).T)
    if device.type != "cpu":
        return _counted_on(device, left, right, twin)
    count = np.empty(len(latents), dtype=np.int64)
    for start in tqdm(range(0, len(latents), RANKED), desc="rank", disable=None if shown else True):
        scores = left[start : start + RANKED] @ right
        for row, score in enumerate(scores, start):
            score[row] = np.inf
            count[row] = np.count_nonzero(score <= score[twin[row]]) - 1
    return count


def _counted_on(device: torch.device, left: Array, right: Array, twin: NDArray[np.int64]) -> NDArray[np.int64]:
    """The counts of `doppelgangers` on a GPU."""
    near, far, own = (torch.from_numpy(values).to(device) for values in (left, right, twin))
    counts = []
    for start in range(0, len(near), RANKED_ON_GPU):
        scores = near[start : start + RANKED_ON_GPU] @ far
        rows = torch.arange(len(scores), device=device)
        scores[rows, start + rows] = np.inf
        counts.append((scores <= scores[rows, own[start + rows]].unsqueeze(1)).sum(dim=1) - 1)
    return np.asarray(torch.cat(counts).cpu().numpy())


def twin_search(
    latents: Array, twin: NDArray[np.int64], snr: float = np.inf, device: torch.device = CPU
) -> TwinSearch:
    """Search every star's twin among all others by Euclidean distance (paper, sections 5.1 and 5.2)."""
    first, second = random_pairs(twin)
    near = np.linalg.norm(latents - latents[twin], axis=1)
    far = np.linalg.norm(latents[first] - latents[second], axis=1)
    return TwinSearch(snr, doppelgangers(latents, twin, device=device), near, far)


def random_pairs(twin: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (M,) and (M,) of pairs of stars that are not twins; `twin` (N,) has the row of each star's twin."""
    partner = generator(Stream.RANDOM_PARTNERS).permutation(len(twin))
    unrelated = np.flatnonzero((partner != np.arange(len(twin))) & (partner != twin))
    return unrelated, partner[unrelated]


def twin_recovery(model: Model, survey: Survey, snr: float = np.inf) -> TwinSearch:
    """Twin search on a noiseless survey of pairs (paper, figure 3). Raises InputError for another survey."""
    return twin_search(embed_survey(model, survey, snr), twin_rows(survey), snr)


def twin_covariance(model: Model, survey: Survey) -> Array:
    """Covariance (D, D) of noiseless twins' latent differences, which calibrates `p_same`."""
    latents = embed_survey(model, survey)
    return np.asarray(np.cov((latents - latents[twin_rows(survey)]).T))


def twin_rows(survey: Survey) -> NDArray[np.int64]:
    """The row of each star's twin (N,). Raises InputError for a survey without twins, or with noise."""
    if survey.twin is None:
        raise InputError(f"{survey.path} holds no twins (dataset twin_of)")
    survey.check_noiseless()
    return survey.twin


@dataclass(frozen=True)
class RecastError:
    """Mean absolute residual and mean squared residual of recast twins (paper, tables 3 and 4)."""

    pairs: str
    way: str
    residual: float
    squared: float


def recast_errors(model: Model, survey: Survey) -> list[RecastError]:
    """Each star's twin recast to the star's parameters, against the star itself, without noise.

    "decoder" recasts from the latent, as the service does; "whole residual" is the paper's way for PolyDis.
    Twins must be in neighbouring rows, as `chemtwin survey synthesize` writes them.
    """
    survey.check_grid(model.grid)
    twin, u = twin_rows(survey), parameter_values(survey, model.parameter_names)
    apart = np.abs(survey.parameters[:, 0] - survey.parameters[twin, 0]) >= 500
    ways = ["decoder"] + (["whole residual"] if isinstance(model, PolyDis) else [])
    absolute, squared = np.empty((len(ways), len(survey))), np.empty((len(ways), len(survey)))
    for rows, block in survey.blocks("recast"):
        local = twin[rows] - rows.start
        if local.min() < 0 or local.max() >= len(block):
            raise InputError("twins are not in neighbouring rows")
        flux = (block if model.normaliser is None else model.normaliser.batch(block)).astype(np.float64)
        own, other = u[rows], u[rows][local]
        recasts = [model.decode(model.encode(flux[local], other), own)]
        if isinstance(model, PolyDis):
            recasts.append(model.transfer(flux[local], other, own))
        for way, recast in enumerate(recasts):
            absolute[way, rows] = np.abs(recast - flux).mean(axis=1)
            squared[way, rows] = np.square(recast - flux).mean(axis=1)
    return [
        RecastError(label, way, float(absolute[i, chosen].mean()), float(squared[i, chosen].mean()))
        for label, chosen in (("all", np.full(len(survey), True)), ("500 K apart", apart))
        for i, way in enumerate(ways)
    ]

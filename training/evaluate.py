"""How well a model finds twins and recasts them (paper, sections 5.1, 5.2 and 5.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm

from model.base import Model
from model.grid import Array
from model.polydis import PolyDis
from training.polydis import PARAMETERS
from training.survey import Survey, add_noise

NOISE_STREAM = (0, 5)
RANDOM_SEED = 6


@dataclass(frozen=True)
class TwinRecovery:
    """One row of the answer: at `snr`, the share of stars whose twin is the nearest of all others
    (`recovered`), with fewer than ten doppelgangers (`within_ten`), and the area under the ROC curve of
    twins against random pairs by latent distance (`auc`)."""

    snr: float
    recovered: float
    within_ten: float
    auc: float


def embed_survey(model: Model, survey: Survey, snr: float = np.inf) -> Array:
    """Latents (N, D) of a survey, streamed, with noise of 1 / `snr` added before the model's normaliser."""
    if len(model.grid) != len(survey.wavelength) or not np.allclose(model.grid.wavelength, survey.wavelength):
        raise ValueError("the survey is not on the model's wavelength grid")
    latents = np.empty((len(survey), model.card.latent_dim))
    known = _known(model, survey)
    for rows, flux in survey.blocks(f"embed at S/N {snr:g}"):
        noisy = add_noise(flux, snr, *NOISE_STREAM, rows.start)
        if model.normaliser is not None:
            noisy = model.normaliser.batch(noisy)
        latents[rows] = model.encode(noisy.astype(np.float64), known[rows])
    return latents


def doppelgangers(latents: Array, twin: NDArray[np.int64], block: int = 1024) -> NDArray[np.int64]:
    """For each star the number of others at most as far as its twin (N,), exactly, in blocks.

    Ties count against the twin, so that latents that say nothing find nothing. Distances are Euclidean in
    double precision, |a|^2 + |b|^2 - 2 a.b with the latents centred; `twin` (N,) are row numbers.
    """
    latents = latents - latents.mean(axis=0)
    squares = np.einsum("nd,nd->n", latents, latents)
    count = np.empty(len(latents), dtype=np.int64)
    for start in tqdm(range(0, len(latents), block), desc="rank", unit="block", disable=None):
        rows = np.arange(start, min(start + block, len(latents)))
        score = latents[rows] @ latents.T
        score *= -2.0
        score += squares
        own = np.arange(len(rows))
        score[own, rows] = np.inf
        count[rows] = np.count_nonzero(score <= score[own, twin[rows]][:, None], axis=1) - 1
    return count


def roc_area(latents: Array, twin: NDArray[np.int64]) -> float:
    """Probability that a random pair lies further apart than a twin pair (the area under the ROC curve)."""
    partner = np.random.default_rng(RANDOM_SEED).permutation(len(latents))
    own = np.arange(len(latents))
    strangers = (partner != own) & (partner != twin)
    near = np.linalg.norm(latents - latents[twin], axis=1)
    far = np.linalg.norm(latents - latents[partner], axis=1)[strangers]
    ranks = rankdata(np.concatenate([near, far]))[len(near) :]
    return float((ranks.sum() - len(far) * (len(far) + 1) / 2) / (len(near) * len(far)))


def twin_recovery(model: Model, survey: Survey, snr: float = np.inf) -> TwinRecovery:
    """Twin recovery on a noiseless survey of pairs (paper, figure 3). Raises ValueError for another survey."""
    twin = _twins(survey)
    latents = embed_survey(model, survey, snr)
    count = doppelgangers(latents, twin)
    recovered, within_ten = float(np.mean(count == 0)), float(np.mean(count < 10))
    return TwinRecovery(snr, recovered, within_ten, roc_area(latents, twin))


def _twins(survey: Survey) -> NDArray[np.int64]:
    if survey.twin is None:
        raise ValueError(f"{survey.path} holds no twins (dataset twin_of)")
    if np.isfinite(survey.snr).any():
        raise ValueError(f"{survey.path} has noise of its own: draw it without --snr, evaluation adds noise")
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
    Twins must stand in neighbouring rows, as `chemtwin synthesize` writes them.
    """
    twin, known = _twins(survey), _known(model, survey)
    apart = np.abs(survey.parameters[:, 0] - survey.parameters[twin, 0]) >= 500
    ways = ["decoder"] + (["whole residual"] if isinstance(model, PolyDis) else [])
    absolute, squared = np.empty((len(ways), len(survey))), np.empty((len(ways), len(survey)))
    for rows, block in survey.blocks("recast"):
        local = twin[rows] - rows.start
        if local.min() < 0 or local.max() >= len(block):
            raise ValueError("twins do not stand in neighbouring rows")
        flux = (block if model.normaliser is None else model.normaliser.batch(block)).astype(np.float64)
        own, other = known[rows], known[rows][local]
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


def _known(model: Model, survey: Survey) -> Array:
    """The survey's parameters (N, U) that the model is conditioned on."""
    return survey.parameters[:, [PARAMETERS.index(name) for name in model.parameter_names]]

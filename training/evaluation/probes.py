"""Probes of a finished model's latents: abundances, dependence on u, groups of stars (paper, 5.3 and 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import nn
from tqdm import tqdm

from model.methods.autoencoder import feedforward
from model.methods.base import Model
from model.spectra.grid import Array
from training.spectral_basis import parameter_values
from training.surveys.survey import Survey

REGRESSOR = (512, 256, 128)
"""Hidden layers of the paper's network from latents to an abundance (A7)."""

PROBED = 20_000
"""Stars that regressors are fitted to, and at most as many that they are tested on."""

EPOCHS, BATCH, RATE = 15, 256, 1e-3


def abundances(survey: Survey) -> tuple[list[str], Array]:
    """Names, and values (N, E) in dex, of a synthetic survey's [Fe/H] and the [X/Fe] that vary in it.

    Raises InputError where they are not known.
    """
    names, values = survey.abundances()
    varied = values.std(axis=0) > 0
    names = ["Fe"] + [name for name, varies in zip(names, varied, strict=True) if varies]
    return names, np.hstack([survey.parameters[:, 2:], values[:, varied]])


def linear_map(latents: Array, targets: Array) -> Callable[[Array], Array]:
    """The least-squares map of section 5.3, with a constant, from latents (N, D) to targets (N, E)."""
    solution, *_ = np.linalg.lstsq(_with_one(latents), targets, rcond=None)
    return lambda z: np.asarray(_with_one(z) @ solution)


def _with_one(latents: Array) -> Array:
    return np.hstack([latents, np.ones((len(latents), 1))])


def network_map(
    latents: Array, targets: Array, seed: int = 1, shown: str = "regress"
) -> Callable[[Array], Array]:
    """Fit the networks of A7, one for each target, by Adam with a cosine schedule.

    Parameters
    ----------
    latents : array (N, D)
        Inputs.
    targets : array (N, E)
        Targets; the loss is half their mean squared error.
    seed : int
        Seed of weights and batches.
    shown : str
        Title of the progress bar.

    Returns
    -------
    callable
        Takes latents (M, D) to predictions (M, E).
    """
    location, spread = latents.mean(axis=0), latents.std(axis=0) + 1e-12
    middle, width = targets.mean(axis=0), targets.std(axis=0) + 1e-12
    x = torch.from_numpy(((latents - location) / spread).astype(np.float32))
    y = torch.from_numpy(((targets - middle) / width).astype(np.float32))
    networks = []
    for column in tqdm(range(y.shape[1]), desc=shown, disable=None):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        network = feedforward([x.shape[1], *REGRESSOR, 1])
        optimiser = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * -(-len(x) // BATCH))
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(x), generator=generator), BATCH):
                loss = nn.functional.mse_loss(network(x[rows])[:, 0], y[rows, column])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                decay.step()
        networks.append(network)

    @torch.no_grad()
    def predict(z: Array) -> Array:
        inputs = torch.from_numpy(((z - location) / spread).astype(np.float32))
        out = torch.cat([network(inputs) for network in networks], dim=1).numpy()
        return np.asarray(out * width + middle, dtype=np.float64)

    return predict


def explained(predicted: Array, targets: Array) -> Array:
    """Fraction (E,) of the targets' variance (N, E) that a prediction explains."""
    return np.asarray(1 - np.mean((predicted - targets) ** 2, axis=0) / targets.var(axis=0))


def dependence(latents: Array, parameters: Array) -> dict[str, Array]:
    """Measure how well u is predicted from latents, by regressors fitted on the first half of the stars.

    Parameters
    ----------
    latents : array (N, D)
        Latents z.
    parameters : array (N, U)
        Parameters u.

    Returns
    -------
    dict of str to array (U,)
        For each regressor the fraction of the parameters' variance explained on the second half; 0 for
        independence.
    """
    half = len(latents) // 2
    fitted = {
        "linear": linear_map(latents[:half], parameters[:half]),
        "network": network_map(latents[:half], parameters[:half], shown="predict u"),
    }
    return {name: explained(predict(latents[half:]), parameters[half:]) for name, predict in fitted.items()}


def dependence_on(survey: Survey, names: tuple[str, ...], latents: Array) -> dict[str, dict[str, float]]:
    """`dependence` of a survey's latents (N, D) on the named parameters, by regressor and parameter.

    The first `2 * PROBED` stars are used. Pairs in neighbouring rows stay on one side of the split.
    """
    fractions = dependence(latents[: 2 * PROBED], parameter_values(survey, names)[: 2 * PROBED])
    return {
        regressor: dict(zip(names, explained.tolist(), strict=True))
        for regressor, explained in fractions.items()
    }


def nearest_group(latents: Array, group: NDArray[np.int64]) -> float:
    """Fraction of true members among each star's n - 1 nearest stars, for groups of n."""
    members = int(np.bincount(group).max())
    _, nearest = cKDTree(latents).query(latents, k=members)
    return float(np.mean(group[nearest[:, 1:]] == group[:, None]))


def kmeans_groups(latents: Array, group: NDArray[np.int64], seed: int = 1) -> dict[str, float]:
    """K-means with as many clusters as there are groups: adjusted Rand index and homogeneity."""
    from sklearn.cluster import KMeans  # half a second, which no other command needs
    from sklearn.metrics import adjusted_rand_score, homogeneity_score

    count = len(np.unique(group))
    labels = KMeans(count, n_init=1, random_state=seed).fit_predict(latents)
    return {
        "adjusted_rand": float(adjusted_rand_score(group, labels)),
        "homogeneity": float(homogeneity_score(group, labels)),
    }


def group_finding(latents: Array, group: NDArray[np.int64]) -> dict[str, float]:
    """How well the groups (N,) of stars are found in latents (N, D): `nearest_group` and `kmeans_groups`."""
    return {"members": nearest_group(latents, group), **kmeans_groups(latents, group)}


def data_space(model: Model, latents: Array) -> Array:
    """Coordinates (N, K) in which Euclidean distance is that of the spectra decoded at common parameters.

    The parameters are the middle of the training ranges; spectra are compared in the model's spectral basis,
    which has all but 1e-9 of a synthetic survey's variance (paper, section 3.2, last sentence).
    """
    middle = model.ranges.mean(axis=1)
    out = np.empty((len(latents), len(model.basis.components)))
    for start in range(0, len(latents), 512):
        rows = slice(start, start + 512)
        known = np.tile(middle, (len(latents[rows]), 1))
        out[rows] = model.coefficients(latents[rows], known)
    return out

"""GaussDis from a trained autoencoder: a polynomial response, fitted to its latents and refined.

    chemtwin model refine faderdis.safetensors train.h5 --out gaussdis.safetensors

The autoencoder has learned which latents there are and that they do not depend on u. A response of low degree
in u is fitted to them (ridge regression), then the latents are inferred again with it, in turns. Only flux and
parameters are used. `training.fitting.calibrate` goes on from there with known pairs.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.errors import InputError
from model.methods.autoencoder import Autoencoder
from model.methods.base import Card
from model.methods.basis import Basis, design, scaled
from model.methods.gaussdis import GaussDis
from model.methods.response import Response, terms
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from training.fitting.metric import difference_metric
from training.networks.batches import coefficients
from training.spectral_basis import parameter_values
from training.surveys.survey import Survey
from training.surveys.used_surveys import record

DEGREES = (4, 3, 1)
"""Degrees in u of the response's mean, of its linear terms and of those of products."""

ACTIVE = 0.3
"""A variational latent of smaller standard deviation (its prior's is 1) carries nothing, and is dropped."""

RIDGE = 1e-5
ROUNDS = 2
COMPONENTS = 64
"""Leading components of the autoencoder's basis that are used; the rest add at most 1 % of information (Rb)."""

FLOOR = 0.003
"""Least standard deviation of a coefficient about the response while latents are refined."""

METRIC_SNR = 100.0
TOLERANCE = 0.05
STARS = 16_384
"""Stars that a response is fitted to; more do not make it better."""

BATCH_STARS = 4096
SAMPLE = 4000


@dataclass
class Stars:
    """A survey's stars while a response is fitted.

    Attributes
    ----------
    coefficients : array (N, K)
        Observed coefficients, without noise.
    parameters : array (N, U)
        The stars' parameters.
    latents : array (N, D)
        The current latents.
    """

    coefficients: Array
    parameters: Array
    latents: Array

    def fitted(
        self,
        ranges: Array,
        weights: Array | None = None,
        degrees: tuple[int, int, int] = DEGREES,
        leading: int = 0,
    ) -> tuple[Response, Array]:
        """Fit the response of the current latents, by ridge regression.

        Parameters
        ----------
        ranges : array (U, 2)
            Training ranges of the parameters.
        weights : array (N,), optional
            Weights of the stars, 1 by default.
        degrees : (int, int, int)
            Degrees in u of the response's mean, linear terms and products.
        leading : int
            The first latents, which come in products of three too.

        Returns
        -------
        response : Response
            The response.
        scatter : array (K, K)
            Covariance of the coefficients' residuals.
        """
        if weights is None:
            weights = np.ones(len(self.coefficients))
        size, count = self.latents.shape[1], self.coefficients.shape[1]
        gram: Array | float = 0.0
        moment: Array | float = 0.0
        for start in range(0, len(self.coefficients), BATCH_STARS):
            rows = slice(start, start + BATCH_STARS)
            features = terms(self.latents[rows], self.parameters[rows], ranges, degrees, leading)
            weighted = features * weights[rows, None]
            gram = gram + weighted.T @ features
            moment = moment + weighted.T @ self.coefficients[rows]
        gram = np.asarray(gram)
        gram[np.diag_indices_from(gram)] += RIDGE * weights.sum()
        solved = np.linalg.solve(gram, np.asarray(moment))
        first, second, third = (design(ranges.T[:1], ranges, degree).shape[1] for degree in degrees)
        split = np.split(solved, [first, first + second * size])
        response = Response(
            ranges, split[0], split[1].reshape(second, size, count), split[2].reshape(third, -1, count)
        )
        residual = self.coefficients[:SAMPLE] - response(self.latents[:SAMPLE], self.parameters[:SAMPLE])
        return response, np.asarray(residual.T @ residual) / len(residual)

    def refine(self, response: Response, scatter: Array) -> Array:
        """Infer the latents again. Returns the information (N, D, D) on them."""
        precision = np.asarray(np.linalg.inv(scatter + FLOOR**2 * np.eye(len(scatter))), dtype=np.float64)
        information = np.empty((*self.latents.shape, self.latents.shape[1]))
        self.latents = self.latents.astype(np.float64)
        with tqdm(
            total=len(self.coefficients), unit="star", desc="infer latents", leave=False, disable=None
        ) as bar:
            for start in range(0, len(self.coefficients), BATCH_STARS):
                rows = slice(start, start + BATCH_STARS)
                found = response.fit(
                    self.coefficients[rows], self.parameters[rows], precision, self.latents[rows], TOLERANCE
                )
                self.latents[rows], information[rows] = found.latents, found.information
                bar.update(len(self.coefficients[rows]))
        return information

    def whiten(self) -> None:
        """Give the latents zero mean and unit covariance, as their prior has."""
        self.latents = self.latents - self.latents.mean(axis=0)
        self.latents = self.latents @ np.linalg.cholesky(np.linalg.inv(np.cov(self.latents.T)))


def stars_of(survey: Survey, model: Autoencoder | GaussDis) -> tuple[Array, Array]:
    """Coefficients (N, K) in a model's basis, without noise, and parameters (N, U)."""
    survey.check_grid(model.grid)
    names = model.parameter_names
    values = coefficients(survey, model.normaliser, model.basis, names, np.inf)
    return np.asarray(values, dtype=np.float64), parameter_values(survey, names)


def refine(start: Autoencoder, survey: Survey, name: str) -> GaussDis:
    """Make GaussDis from a compact variational autoencoder and its training survey.

    Parameters
    ----------
    start : Autoencoder
        Gives the basis and the first latents.
    survey : Survey
        The stars that it was trained on.
    name : str
        The new model's name.

    Returns
    -------
    GaussDis
        The model, without calibration.

    Raises
    ------
    InputError
        For an autoencoder that works on pixels.
    """
    if not start.scale.size:
        raise InputError("only an autoencoder between coefficients (inputs = components) can be refined")
    stars = _encoded(start, survey)
    for turn in tqdm(range(ROUNDS), desc="refine", file=sys.stderr, disable=None):
        response, scatter = stars.fitted(start.ranges)
        stars.refine(response, scatter)
        if turn + 1 < ROUNDS:
            stars.whiten()
    size, basis = stars.latents.shape[1], start.basis.leading(COMPONENTS)
    model = GaussDis(
        _card(start, survey, name, size),
        Grid(survey.wavelength),
        start.normaliser,
        scatter=scatter,
        continuum=continuum_covariance(start.normaliser, basis),
        residue=np.zeros((size, size)),
        metric=np.eye(size),
        twins=np.zeros((0, 0)),
        **response.arrays(),
        **basis.arrays(),
    )
    return with_metric(model, stars, "without labels")


def _encoded(start: Autoencoder, survey: Survey) -> Stars:
    """The survey's stars with the autoencoder's latents that are in use, whitened."""
    observed, parameters = (values[:STARS] for values in stars_of(survey, start))
    inputs = np.concatenate([observed / start.scale, scaled(parameters, start.ranges)], axis=1)
    latents = np.concatenate(
        [
            start.encoder(torch.from_numpy(inputs[i : i + BATCH_STARS])).numpy()
            for i in range(0, len(inputs), BATCH_STARS)
        ]
    )
    stars = Stars(observed[:, :COMPONENTS], parameters, latents[:, latents.std(axis=0) > ACTIVE])
    stars.whiten()
    return stars


def _card(start: Autoencoder, survey: Survey, name: str, size: int) -> Card:
    """The card of a model with `size` latents, not calibrated yet."""
    return Card(
        name=name,
        version="unsaved",
        method=GaussDis.method,
        parameters=start.card.parameters,
        latent_dim=size,
        metric="",
        units=start.card.units,
        error_floor=start.card.error_floor,
        training={
            "stars": len(survey),
            **record(survey),
            "start": start.card.identity,
            "start_training": start.card.training,
        },
    )


def continuum_covariance(normaliser: Normaliser | None, basis: Basis) -> Array:
    """What normalising adds to the covariance (K, K) of the coefficients of white noise of unit variance.

    At the middle of the basis's ranges.
    """
    unit = np.eye(len(basis.components))
    if normaliser is None:
        return np.zeros_like(unit)
    seen = normaliser.seen_through(basis.components, basis.expected(basis.ranges.mean(axis=1)[None])[0])
    return np.asarray(seen @ seen.T - unit)


def posterior_covariances(model: GaussDis, parameters: Array, latents: Array, snr: float) -> Array:
    """Posterior covariances (n, D, D) of stars of unit-prior `latents` at white noise of 1 / `snr`."""
    noise = snr**-2 * (np.eye(len(model.continuum)) + model.continuum)
    noise = noise + model.scattered(latents, parameters)
    slope = model.response.by_latents(latents, parameters)
    information = slope @ np.linalg.inv(noise) @ slope.transpose(0, 2, 1)
    unit = np.eye(latents.shape[1])
    residue = unit + information @ (0.5 * model.residue)
    return np.asarray(np.linalg.solve(residue + information, residue))


def with_tensors(model: GaussDis, card: Card, **arrays: NDArray[Any]) -> GaussDis:
    """`model` with a `card` and some tensors replaced."""
    return GaussDis(card, model.grid, model.normaliser, **{**model.arrays(), **arrays})


def with_offset(model: GaussDis, mean: Array, response: Array) -> GaussDis:
    """`model` with an offset of its mean spectrum (P,) and of the first terms (t, K) of its response's mean.

    It knows its offsets: `with_offset(model, -model.mean_offset, -model.response_offset)` has none.
    """
    polynomial, whole = model.basis.polynomial.copy(), np.zeros_like(model.response.mean)
    polynomial[0] += mean
    whole[: len(response)] = response
    return with_tensors(
        model,
        model.card,
        polynomial=polynomial,
        response_mean=model.response.mean + whole,
        mean_offset=model.mean_offset + mean,
        response_offset=model.response_offset + whole,
    )


def with_metric(
    model: GaussDis, stars: Stars, how: str, metric_of: Callable[[Array], Array] = difference_metric
) -> GaussDis:
    """`model` with the metric in units of the differences of twins at S/N 100."""
    covariances = posterior_covariances(model, stars.parameters[:SAMPLE], stars.latents[:SAMPLE], METRIC_SNR)
    metric = (
        "Euclidean distance of the posterior means, in units of the difference of twins at "
        f"S/N {METRIC_SNR:g}, calibrated {how}"
    )
    card = dataclasses.replace(model.card, metric=metric)
    return with_tensors(model, card, metric=metric_of(covariances))

"""GaussDis from a survey whose groups of chemically identical stars are known.

    chemtwin model train survey.h5 --method gaussdis --out model.safetensors

No autoencoder is needed. Linear discriminants of the groups (`training.fitting.discriminants`) are the first
latents. Then, in turns, the response is fitted to the latents by ridge regression, and each group gets the one
latent that its spectra make most probable. Groups that are left out measure what the response misses, and how
that grows with latents and parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.methods.base import Card
from model.methods.basis import Basis
from model.methods.continuum_fit import ContinuumFit
from model.methods.gaussdis import GaussDis
from model.methods.inverses import inverse
from model.methods.response import Response, terms
from model.methods.scatter import factors, growth_features
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from training.fitting.discriminants import discriminants
from training.fitting.gaussdis import Stars, with_metric
from training.fitting.groups import fit_to_groups, group_latents, group_means
from training.fitting.growing_scatter import fit_scatter
from training.fitting.metric import deviation_metric
from training.networks import batches
from training.spectral_basis import PARAMETERS, fit_basis, fit_normaliser, named_ranges, parameter_values
from training.surveys import used_surveys
from training.surveys.survey import Survey

BASIS_DEGREE = 5
COMPONENTS = 72
"""Components of the spectral basis; 64 lose the lines of Rb on the giant branch."""

DEGREES = ((6, 5, 3), (4, 3, 1), (2, 1, 0))
"""Degrees in u of the response's mean, linear terms and products: the first that the stars can carry."""

STARS_PER_TERM = 4
LEADING = 6
"""Number of latents, those with the largest effect on spectra, that come in products of three."""

TURNS = 3
HELD_OUT = 0.05
"""Fraction of the groups that are left out of the response's fit, to measure what it misses."""

CALIBRATED_SNR = 100.0
"""The S/N at which the differences of twins that were left out have the size that the model expects."""

VERTICES = 9
"""Number of Teff at which the model's limits in log g are recorded."""

ERROR_FLOOR = 0.02


def train(survey: Survey, validation: Survey | None, name: str) -> GaussDis:
    """Train GaussDis on a survey of groups.

    Parameters
    ----------
    survey : Survey
        Complete spectra without noise, with pairs or groups of stars of one chemistry.
    validation : Survey or None
        Stars like those that will be searched, with pairs or groups. They measure the metric and, with groups
        of `survey` that are left out of the fit, what the response misses. Without it these measure both.
    name : str
        The model's name.

    Returns
    -------
    GaussDis
        The model.

    Raises
    ------
    InputError
        For a survey with noise, without groups, or with too few stars.
    """
    if not np.isposinf(survey.snr).all():
        raise InputError(
            f"{survey.path} has noise, but no errors of its pixels (ivar): gaussdis learns from noisy spectra "
            "with errors, or from spectra without noise, such as chemtwin survey synthesize draws"
        )
    groups = int(_groups(survey).max()) + 1
    normaliser = fit_normaliser(survey)
    basis = fit_basis(survey, normaliser, parameters=PARAMETERS, degree=BASIS_DEGREE, components=COMPONENTS)
    continuum = ContinuumFit(normaliser, basis)
    stars, group = _measured(survey, normaliser, basis, continuum)
    stars.latents = discriminants(stars.coefficients, stars.parameters, basis.ranges, group)
    size = stars.latents.shape[1]
    degrees = _degrees(survey, size, basis.ranges)
    (stars, group), (left_out, left_out_group) = _split(stars, group)
    searched = slice(0, None)
    if validation is not None:
        used_surveys.check_apart(validation, survey, "the training survey")
        searched = slice(len(left_out_group), None)
        others = _measured(validation, normaliser, basis, continuum)
        left_out, left_out_group = _joined((left_out, left_out_group), others)
    response, scatter = _fit(stars, group, basis.ranges, degrees)
    left_out.latents = np.zeros((len(left_out_group), size))
    scatter, growth = _scatter(response, scatter, left_out, left_out_group, continuum.excess)
    model = GaussDis(
        _card(name, basis, stars.parameters, size, _record(survey, validation, groups, degrees)),
        Grid(survey.wavelength),
        normaliser,
        scatter=scatter,
        scatter_growth=growth,
        residue=np.zeros((size, size)),
        metric=np.eye(size),
        twins=np.zeros((0, 0)),
        **response.arrays(),
        **basis.arrays(),
    )
    how = f"on {groups} groups of stars of one chemistry"
    return with_metric(model, _select(left_out, searched), how, deviation_metric)


def _card(name: str, basis: Basis, parameters: Array, latents: int, record: dict[str, Any]) -> Card:
    """The card of a model trained on stars with `parameters` (N, U), with a `record` of its training."""
    return Card(
        name=name,
        version="unsaved",
        method=GaussDis.method,
        parameters=named_ranges(basis, PARAMETERS),
        latent_dim=latents,
        metric="",
        error_floor=ERROR_FLOOR,
        training=record,
        logg_limits=_logg_limits(parameters),
    )


def _record(
    survey: Survey, validation: Survey | None, groups: int, degrees: tuple[int, int, int]
) -> dict[str, Any]:
    """What a model was trained on, for its card."""
    searched = {} if validation is None else used_surveys.record(validation, "validation")
    own = used_surveys.record(survey)
    return {"stars": len(survey), "groups": groups, **own, **searched, "degrees": degrees}


def _measured(
    survey: Survey, normaliser: Normaliser, basis: Basis, continuum: ContinuumFit
) -> tuple[Stars, NDArray[np.int64]]:
    """A survey's stars, without latents, and the group (N,) of each. Raises InputError, as `train`."""
    survey.check_noiseless()
    survey.check_grid(normaliser.grid)
    group = _groups(survey)
    measuring = Basis(basis.ranges, **basis.arrays() | {"components": continuum.components})
    values = batches.coefficients(survey, normaliser, measuring, PARAMETERS, np.inf).astype(np.float64)
    return Stars(values, parameter_values(survey, PARAMETERS), np.zeros((len(survey), 0))), group


def _split(
    stars: Stars, group: NDArray[np.int64]
) -> tuple[tuple[Stars, NDArray[np.int64]], tuple[Stars, NDArray[np.int64]]]:
    """The stars, and the group (N,) of each, to fit to; and those of `HELD_OUT` of the groups."""
    out = np.isin(group, np.unique(group)[:: round(1 / HELD_OUT)])
    return (_select(stars, ~out), _numbered(group[~out])), (_select(stars, out), _numbered(group[out]))


def _select(stars: Stars, rows: NDArray[np.bool_] | slice) -> Stars:
    return Stars(stars.coefficients[rows], stars.parameters[rows], stars.latents[rows])


def _joined(
    first: tuple[Stars, NDArray[np.int64]], second: tuple[Stars, NDArray[np.int64]]
) -> tuple[Stars, NDArray[np.int64]]:
    """Stars of two surveys, without latents, and their groups."""
    (some, group), (others, other_group) = first, second
    coefficients = np.concatenate([some.coefficients, others.coefficients])
    parameters = np.concatenate([some.parameters, others.parameters])
    stars = Stars(coefficients, parameters, np.zeros((len(parameters), 0)))
    return stars, np.concatenate([group, other_group + group.max() + 1])


def _groups(survey: Survey) -> NDArray[np.int64]:
    """The group (N,) of each star, from 0. Raises InputError for a survey with neither groups nor pairs."""
    if survey.group is not None:
        found = survey.group
    elif survey.twin is not None:
        found = np.minimum(np.arange(len(survey)), survey.twin)
    else:
        raise InputError(f"{survey.path} has no groups of stars of one chemistry: adapt a model instead")
    return _numbered(found)


def _numbered(group: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.unique(group, return_inverse=True)[1], dtype=np.int64)


def _degrees(survey: Survey, latents: int, ranges: Array) -> tuple[int, int, int]:
    """The response's degrees. Raises InputError where the survey is too small for any."""
    star = np.zeros((1, latents)), ranges.T[:1], ranges
    for degrees in DEGREES:
        needed = STARS_PER_TERM * terms(*star, degrees, min(LEADING, latents)).shape[1]
        if len(survey) >= needed:
            return degrees
    raise InputError(
        f"{survey.path} has {len(survey)} stars: {latents} latents need {needed}. "
        "Adapt a model to them (chemtwin model adapt)"
    )


def _fit(
    stars: Stars, group: NDArray[np.int64], ranges: Array, degrees: tuple[int, int, int]
) -> tuple[Response, Array]:
    """Response and scatter (K, K) of `stars`, whose first latents become those of their groups (N,)."""
    stars.latents = group_means(stars.latents, group)[group]
    stars.whiten()
    start = stars.fitted(ranges, degrees=DEGREES[1] if degrees == DEGREES[0] else degrees)
    return fit_to_groups(stars, group, start, degrees, min(LEADING, stars.latents.shape[1]), TURNS)


def _scatter(
    response: Response, scatter: Array, stars: Stars, group: NDArray[np.int64], continuum: Array
) -> tuple[Array, Array]:
    """Covariance (K, K) of what the response misses, and its growth (F,), from groups it was not fitted to.

    They are those of the residuals at the groups' common latents. One factor makes the differences of twins at
    `CALIBRATED_SNR` as large as expected, for residuals do not show errors along the response.
    """
    for _ in range(2):
        information = stars.refine(response, scatter)
        common = group_latents(stars.latents, information, group)[group]
        residual = stars.coefficients - response(common, stars.parameters)
        scatter = residual.T @ residual / len(residual)
    features = growth_features(response.ranges, common, stars.parameters)
    scatter, growth = fit_scatter(residual, features)
    grown = factors(features, growth)[:, None, None] * scatter
    noise = CALIBRATED_SNR**-2 * (np.eye(len(scatter)) + continuum)
    random = np.random.default_rng(0).multivariate_normal(np.zeros(len(noise)), noise, size=len(residual))
    low, high = 0.1, 100.0
    while high > 1.02 * low:
        middle = np.sqrt(low * high)
        chi2 = _twins_chi2(response, stars, group, noise + middle * grown, random)
        low, high = (middle, high) if chi2 > 1 else (low, middle)
    return np.asarray(high * scatter), growth


def _twins_chi2(
    response: Response, stars: Stars, group: NDArray[np.int64], covariances: Array, noise: Array
) -> float:
    """Chi-square per latent of the difference of each group's first two stars, with `noise` (N, K) added.

    `covariances` (N, K, K) are those of noise and scatter.
    """
    order = np.argsort(group, kind="stable")
    second = np.flatnonzero((group[order][1:] == group[order][:-1]) & _is_first(group[order])[:-1]) + 1
    pairs = np.stack([order[second - 1], order[second]]).ravel()
    fit = response.fit(
        stars.coefficients[pairs] + noise[pairs], stars.parameters[pairs], inverse(covariances[pairs])
    )
    unit = np.eye(fit.latents.shape[1])
    first, other = np.split(np.linalg.inv(unit + fit.information), 2)
    gap = np.subtract(*np.split(fit.latents, 2))
    expected = first + other - first @ other - other @ first
    return float(
        np.mean(np.einsum("ni,ni->n", gap, np.linalg.solve(expected, gap[:, :, None])[:, :, 0])) / len(unit)
    )


def _is_first(ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which (N,) of numbers in order differ from the one before."""
    return np.concatenate([[True], ordered[1:] != ordered[:-1]])


def _logg_limits(parameters: Array) -> tuple[tuple[float, float, float], ...]:
    """Teff, least and greatest log g of the stars at (N, U) `parameters`, at `VERTICES` Teff."""
    teff, logg = parameters[:, 0], parameters[:, 1]
    vertices = np.linspace(teff.min(), teff.max(), VERTICES)
    half = 0.5 * (vertices[1] - vertices[0])
    near = [logg[np.abs(teff - vertex) <= half] for vertex in vertices]
    return tuple(
        (float(vertex), float(found.min()), float(found.max()))
        for vertex, found in zip(vertices, near, strict=True)
        if len(found)
    )

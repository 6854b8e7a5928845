"""How observed spectra differ from a response: an offset that depends on u, and a covariance of the rest.

The coefficients y (K,) of star i at parameters u, with those of its group's latent z, are taken as

    y_i = R(z, u_i) + B' phi(u_i) + m_i + n_i,    z ~ N(0, I),  m_i ~ N(0, W),  n_i ~ N(0, C_i),

where R is the response, phi (T,) are the monomials of u, C_i the covariance of noise, continuum and label
errors. B and W are found by expectation-maximisation about the fitted latents; B at each step by generalised
least squares with z integrated out. The terms of B beyond the constant have the prior N(0, W), and W has an
inverse-Wishart prior about `size` I: where the stars say nothing, as along the response to latents without
siblings, the misfit is that. The members of a group share z; a single star is a group of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.methods.basis import design
from model.methods.gaussdis import GaussDis, Measured
from model.spectra.grid import Array

FREEDOM = 20.0
"""Degrees of freedom of the prior of W: it counts as this many stars."""

CONSTANT = 1e-2
"""Prior precision of B's constant term."""

STEPS = 24
LINEARISED_EVERY = 4
PAIRS_AT_ONCE = 4096


class Misfit(NamedTuple):
    """Offsets (T, K) of the coefficients per monomial of u, and the covariance (K, K) of the misfit."""

    offset: Array
    covariance: Array

    def offsets(self, model: GaussDis, parameters: Array) -> Array:
        """Offsets (N, K) at parameters (N, U)."""
        return np.asarray(_monomials(model, parameters, len(self.offset)) @ self.offset)


@dataclass(frozen=True)
class Prior:
    """What is chosen by held-out stars: the offset's `degree` in u, and the misfit's expected `size`."""

    degree: int
    size: float


@dataclass(frozen=True)
class LinearStars:
    """Stars about their fitted latents, where coefficients are linear in the latent.

    Attributes
    ----------
    residual : array (N, K)
        Coefficients less the response at latent 0 of the linear approximation.
    slope : array (N, D, K)
        Derivatives of the coefficients by the latent.
    covariances : array (N, K, K)
        Of noise, continuum, scatter and label errors.
    group : array of int (N,)
        The star's group, numbered from 0.
    """

    residual: Array
    slope: Array
    covariances: Array
    group: NDArray[np.int64]

    @classmethod
    def about(cls, model: GaussDis, stars: Measured, group: NDArray[np.int64], misfit: Misfit) -> LinearStars:
        """Linearise about the latents that fit `stars` under a misfit."""
        coefficients = stars.coefficients - misfit.offsets(model, stars.parameters)
        latents = model.fit_latents(coefficients, stars.covariances + misfit.covariance, stars)
        slope = model.response.by_latents(latents, stars.parameters)
        at_zero = model.response(latents, stars.parameters) - np.einsum("nd,ndk->nk", latents, slope)
        by_errors = model.by_errors(latents, stars.parameters, stars.errors)
        return cls(stars.coefficients - at_zero, slope, stars.covariances + by_errors, group)


@dataclass(frozen=True)
class Posterior:
    """What a misfit's covariance makes of stars.

    Attributes
    ----------
    inverse : array (N, K, K)
        Inverses of the stars' own covariances S.
    weighted : array (N, D, K)
        Slopes J times S^-1.
    latent : array (G, D, D)
        Covariance of each group's latent.
    """

    inverse: Array
    weighted: Array
    latent: Array

    @classmethod
    def of(cls, stars: LinearStars, covariance: Array) -> Posterior:
        """Under a misfit's covariance (K, K)."""
        inverse = np.linalg.inv(stars.covariances + covariance)
        weighted = stars.slope @ inverse
        information = np.zeros((stars.group.max() + 1, *2 * (stars.slope.shape[1],)))
        np.add.at(information, stars.group, weighted @ stars.slope.swapaxes(1, 2))
        latent = np.linalg.inv(information + np.eye(stars.slope.shape[1]))
        return cls(np.asarray(inverse, np.float64), weighted, np.asarray(latent, np.float64))

    def precisions(self, stars: LinearStars, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
        """Blocks (M, K, K) of the marginal precision of a group's coefficients, for rows of two members."""
        shared = self.weighted[first].swapaxes(1, 2) @ self.latent[stars.group[first]] @ self.weighted[second]
        return np.where((first == second)[:, None, None], self.inverse[first], 0.0) - shared


def fit_misfit(model: GaussDis, stars: Measured, group: NDArray[np.int64], prior: Prior) -> Misfit:
    """Fit the misfit of observed stars.

    Parameters
    ----------
    model : GaussDis
        Its response is what the stars differ from.
    stars : Measured
        The stars' coefficients.
    group : array of int (N,)
        The star's group, numbered from 0; single stars have groups of their own.
    prior : Prior
        Degree and expected size.

    Returns
    -------
    Misfit
        The offset and the covariance.
    """
    size = stars.coefficients.shape[1]
    expected = prior.size * np.eye(size)
    monomials = design(stars.parameters, model.ranges, prior.degree)
    misfit = Misfit(np.zeros((monomials.shape[1], size)), expected)
    pairs = _pairs(group)
    for step in range(STEPS):
        if step % LINEARISED_EVERY == 0:
            linear = LinearStars.about(model, stars, group, misfit)
        found = Posterior.of(linear, misfit.covariance)
        offset = _offset(linear, found, monomials, pairs, misfit.covariance)
        misfit = Misfit(offset, _covariance(linear, found, monomials @ offset, misfit.covariance, expected))
    return misfit


def log_density(model: GaussDis, stars: Measured, group: NDArray[np.int64], misfit: Misfit) -> float:
    """Log density of held-out stars under a misfit, in nats; parameters as for `fit_misfit`."""
    linear = LinearStars.about(model, stars, group, misfit)
    found = Posterior.of(linear, misfit.covariance)
    residual = linear.residual - misfit.offsets(model, stars.parameters)
    pull = np.zeros(found.latent.shape[:2])
    np.add.at(pull, group, np.einsum("ndk,nk->nd", found.weighted, residual))
    squares = np.einsum("nk,nkl,nl->", residual, found.inverse, residual)
    squares -= np.einsum("gd,gde,ge->", pull, found.latent, pull)
    volumes = np.linalg.slogdet(found.inverse)[1].sum() + np.linalg.slogdet(found.latent)[1].sum()
    return float(0.5 * (volumes - squares - residual.size * np.log(2 * np.pi)))


def _monomials(model: GaussDis, parameters: Array, count: int) -> Array:
    """The first `count` monomials (N, T) of parameters (N, U)."""
    return design(parameters, model.ranges, model.response.degrees[0])[:, :count]


def _pairs(group: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of all ordered pairs of members of one group, each with itself as well."""
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    first = np.concatenate([np.repeat(rows, len(rows)) for rows in members])
    return first, np.concatenate([np.tile(rows, len(rows)) for rows in members])


def _offset(
    stars: LinearStars,
    found: Posterior,
    monomials: Array,
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    covariance: Array,
) -> Array:
    """B (T, K) by generalised least squares, the latents integrated out."""
    terms, size = monomials.shape[1], stars.residual.shape[1]
    normal = np.zeros((terms**2, size**2))
    right = np.zeros((terms, size))
    for start in range(0, len(pairs[0]), PAIRS_AT_ONCE):
        first, second = (rows[start : start + PAIRS_AT_ONCE] for rows in pairs)
        precision = found.precisions(stars, first, second)
        products = monomials[first, :, None] * monomials[second, None, :]
        normal += products.reshape(len(first), -1).T @ precision.reshape(len(first), -1)
        right += monomials[first].T @ np.einsum("mkl,ml->mk", precision, stars.residual[second])
    whole = normal.reshape(terms, terms, size, size).transpose(0, 2, 1, 3).copy()
    whole[np.arange(terms), :, np.arange(terms)] += np.linalg.inv(covariance)
    whole[0, :, 0] += CONSTANT * np.eye(size) - np.linalg.inv(covariance)
    solved = np.linalg.solve(whole.reshape(terms * size, -1), right.ravel())
    return np.asarray(solved.reshape(terms, size), np.float64)


def _covariance(
    stars: LinearStars, found: Posterior, offsets: Array, covariance: Array, expected: Array
) -> Array:
    """The next W: the mean of the prior's and of the expected m m' of each star."""
    residual = stars.residual - offsets
    pull = np.zeros(found.latent.shape[:2])
    np.add.at(pull, stars.group, np.einsum("ndk,nk->nd", found.weighted, residual))
    latents = np.einsum("gde,ge->gd", found.latent, pull)[stars.group]
    remaining = residual - np.einsum("nd,ndk->nk", latents, stars.slope)
    misfit = np.einsum("nkl,nl->nk", found.inverse, remaining) @ covariance
    rows = np.arange(len(residual))
    precision = sum(
        found.precisions(stars, part, part).sum(axis=0)
        for part in np.array_split(rows, 1 + len(rows) // PAIRS_AT_ONCE)
    )
    total = misfit.T @ misfit + len(rows) * covariance - covariance @ precision @ covariance
    return np.asarray((FREEDOM * expected + total) / (FREEDOM + len(rows)))

"""How observed spectra differ from a response: an offset that depends on u, and a covariance of the rest.

The coefficients y (K,) of star i at parameters u, with those of its group's latent z, are taken as

    y_i = R(z, u_i) + l_i B' phi(u_i) + s + m_i + n_i,
    z ~ N(0, I),  s ~ N(0, V),  m_i ~ N(0, l_i^2 W),  n_i ~ N(0, C_i),

where R is the response, phi (T,) are the monomials of u, l_i is the strength of the star's lines
(`model.methods.scatter`), for they are what a response has wrong, and C_i the covariance of noise, continuum,
scatter and label errors. The members of a group share z and s, what the response misses of their chemistry; a
single star is a group of its own. Siblings do not differ by s, so that W alone belongs to the errors of their
difference.

B, V and W are found by expectation-maximisation about the fitted latents; B at each step by generalised least
squares with z and s integrated out. The terms of B beyond the constant have the prior N(0, V + W). V and W
have inverse-Wishart priors about `size` I / 2 each: where the stars say nothing, they are that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.methods.basis import design
from model.methods.gaussdis import GaussDis
from model.methods.measured_stars import Measured
from model.methods.scatter import line_strength
from model.spectra.grid import Array
from training.fitting.gaussdis import with_offset, with_tensors

FREEDOM = 20.0
"""Degrees of freedom of the priors: that of W counts as this many stars, that of V as this many groups."""

CONSTANT = 1e-2
"""Prior precision of B's constant term."""

STEPS = 24
LINEARISED_EVERY = 4
PAIRS_AT_ONCE = 4096


class Misfit(NamedTuple):
    """How stars differ from a response.

    Attributes
    ----------
    offset : array (T, K)
        Offsets l B' phi of the coefficients, per monomial of the response's mean.
    own : array (K, K)
        Covariance W of each star's own misfit, if its lines have the usual strength.
    shared : array (K, K)
        Covariance V of the misfit that siblings share.
    """

    offset: Array
    own: Array
    shared: Array

    def offsets(self, model: GaussDis, parameters: Array) -> Array:
        """Offsets (N, K) at parameters (N, U)."""
        return np.asarray(_monomials(model, parameters, len(self.offset)) @ self.offset)


@dataclass(frozen=True)
class Prior:
    """What is chosen by held-out stars: the offset's `degree` in u, and the expected `size` of V + W."""

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
        Derivatives of the coefficients by the latent z.
    covariances : array (N, K, K)
        Of noise, continuum, scatter and label errors.
    strength : array (N,)
        Strength l of the star's lines.
    group : array of int (N,)
        The star's group, numbered from 0.
    """

    residual: Array
    slope: Array
    covariances: Array
    strength: Array
    group: NDArray[np.int64]

    @classmethod
    def about(cls, model: GaussDis, stars: Measured, group: NDArray[np.int64], misfit: Misfit) -> LinearStars:
        """Linearise about the latents that fit `stars` under a misfit."""
        coefficients = stars.coefficients - misfit.offsets(model, stars.parameters)
        strength = line_strength(model.basis, stars.parameters)
        uncertain = stars.covariances + strength[:, None, None] ** 2 * misfit.own + misfit.shared
        latents = model.fit_latents(coefficients, uncertain, stars)
        slope = model.response.by_latents(latents, stars.parameters)
        at_zero = model.response(latents, stars.parameters) - np.einsum("nd,ndk->nk", latents, slope)
        covariances = stars.covariances + model.scattered(latents, stars.parameters)
        covariances = covariances + model.by_errors(latents, stars.parameters, stars.errors)
        return cls(stars.coefficients - at_zero, slope, covariances, strength, group)


@dataclass(frozen=True)
class Posterior:
    """What a misfit's covariances make of stars.

    Attributes
    ----------
    slope : array (N, D + K, K)
        Derivatives J of the coefficients by what a group shares: z, and s in units of its deviation.
    inverse : array (N, K, K)
        Inverses of the stars' own covariances S.
    weighted : array (N, D + K, K)
        Slopes J times S^-1.
    latent : array (G, D + K, D + K)
        Covariance of what each group shares.
    """

    slope: Array
    inverse: Array
    weighted: Array
    latent: Array

    @classmethod
    def of(cls, stars: LinearStars, misfit: Misfit) -> Posterior:
        """Under a misfit."""
        inverse = np.linalg.inv(stars.covariances + stars.strength[:, None, None] ** 2 * misfit.own)
        root = np.broadcast_to(_root(misfit.shared), inverse.shape)
        slope = np.concatenate([stars.slope, root], axis=1)
        weighted = slope @ inverse
        information = np.zeros((stars.group.max() + 1, *2 * (slope.shape[1],)))
        np.add.at(information, stars.group, weighted @ slope.swapaxes(1, 2))
        latent = np.linalg.inv(information + np.eye(slope.shape[1]))
        return cls(slope, np.asarray(inverse, np.float64), weighted, np.asarray(latent, np.float64))

    def means(self, stars: LinearStars, residual: Array) -> Array:
        """What each group shares (G, D + K), given its members' residuals (N, K) from the offset."""
        pull = np.zeros(self.latent.shape[:2])
        np.add.at(pull, stars.group, np.einsum("ndk,nk->nd", self.weighted, residual))
        return np.asarray(np.einsum("gde,ge->gd", self.latent, pull))

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
        The offset and the covariances.
    """
    size = stars.coefficients.shape[1]
    expected = 0.5 * prior.size * np.eye(size)
    polynomials = _offset_polynomials(model, prior.degree)
    terms = _monomials(model, stars.parameters, len(polynomials)) @ polynomials
    misfit = Misfit(np.zeros((len(polynomials), size)), expected, expected)
    pairs = _pairs(group)
    for step in range(STEPS):
        if step % LINEARISED_EVERY == 0:
            linear = LinearStars.about(model, stars, group, misfit)
        found = Posterior.of(linear, misfit)
        offset = _offset(linear, found, terms, pairs, misfit.own + misfit.shared)
        residual = linear.residual - terms @ offset
        shared = found.means(linear, residual)
        misfit = Misfit(
            polynomials @ offset,
            _own(linear, found, residual, shared, misfit.own, expected),
            _shared(found, shared, misfit.shared, expected),
        )
    return misfit


def log_density(model: GaussDis, stars: Measured, group: NDArray[np.int64], misfit: Misfit) -> float:
    """Log density of held-out stars under a misfit, in nats; parameters as for `fit_misfit`."""
    linear = LinearStars.about(model, stars, group, misfit)
    residual = linear.residual - misfit.offsets(model, stars.parameters)
    found = Posterior.of(linear, misfit)
    shared = found.means(linear, residual)
    squares = np.einsum("nk,nkl,nl->", residual, found.inverse, residual)
    squares -= np.einsum("gd,gde,ge->", shared, np.linalg.inv(found.latent), shared)
    volumes = np.linalg.slogdet(found.inverse)[1].sum() + np.linalg.slogdet(found.latent)[1].sum()
    return float(0.5 * (volumes - squares - residual.size * np.log(2 * np.pi)))


def with_misfit(model: GaussDis, misfit: Misfit) -> GaussDis:
    """The model with a misfit: the offset in its mean, the covariances in its scatter, and a unit metric."""
    model = with_offset(model, np.zeros(len(model.grid)), misfit.offset)
    arrays = {"misfit": misfit.own, "shared": misfit.shared, "metric": np.eye(len(model.metric))}
    return with_tensors(model, model.card, **arrays)


def _monomials(model: GaussDis, parameters: Array, count: int) -> Array:
    """The first `count` monomials (N, T) of parameters (N, U)."""
    return design(parameters, model.ranges, model.response.degrees[0])[:, :count]


def _offset_polynomials(model: GaussDis, degree: int) -> Array:
    """The terms l phi of the offset as polynomials of u, (T, t) in the monomials of the response's mean.

    Each by least squares, which is exact while the product is of no higher degree than the mean.
    """
    highest = model.response.degrees[0]
    axes = (np.linspace(low, high, highest + 2) for low, high in model.ranges)
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(model.ranges))
    terms = line_strength(model.basis, grid)[:, None] * design(grid, model.ranges, degree)
    return np.asarray(np.linalg.lstsq(design(grid, model.ranges, highest), terms)[0])


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
    """B (T, K) by generalised least squares, what groups share integrated out; V + W is `covariance`."""
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


def _own(
    stars: LinearStars, found: Posterior, residual: Array, shared: Array, covariance: Array, expected: Array
) -> Array:
    """The next W: the mean of the prior's and of the expected m m' of each star, at usual lines."""
    remaining = residual - np.einsum("nd,ndk->nk", shared[stars.group], found.slope)
    misfit = stars.strength[:, None] * (np.einsum("nkl,nl->nk", found.inverse, remaining) @ covariance)
    rows = np.arange(len(residual))
    precision = sum(
        (stars.strength[part, None, None] ** 2 * found.precisions(stars, part, part)).sum(axis=0)
        for part in np.array_split(rows, 1 + len(rows) // PAIRS_AT_ONCE)
    )
    total = misfit.T @ misfit + len(rows) * covariance - covariance @ precision @ covariance
    return np.asarray((FREEDOM * expected + total) / (FREEDOM + len(rows)))


def _shared(found: Posterior, shared: Array, covariance: Array, expected: Array) -> Array:
    """The next V: the mean of the prior's and of the expected s s' of each group."""
    size, root = len(covariance), _root(covariance)
    unit = found.latent[:, -size:, -size:].sum(axis=0) + shared[:, -size:].T @ shared[:, -size:]
    return np.asarray((FREEDOM * expected + root @ unit @ root) / (FREEDOM + len(shared)))


def _root(covariance: Array) -> Array:
    """The symmetric square root (K, K) of a covariance."""
    variances, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.maximum(variances, 0.0))) @ axes.T, np.float64)

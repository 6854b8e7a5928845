"""How observed spectra differ from a response: an offset that depends on u, and a covariance of the rest.

The coefficients y (K,) of star i at parameters u, with those of its group's latent z, are taken as

    y_i = R(z, u_i) + l_i B' phi(u_i) + s + m_i + n_i,
    z ~ N(0, I),  s ~ N(0, V),  m_i ~ N(0, l_i^2 W),  n_i ~ N(0, C_i),

where R is the response, u_i the most probable parameters (`model.methods.latent_fit`), phi (T,) are the
monomials of u, l_i is the strength of the star's lines at the known parameters (`model.methods.scatter`), for
they are what a response has wrong, and C_i the covariance of noise, continuum, scatter and what is left of the
errors of the parameters. The members of a group share z and s, what the response misses of their chemistry; a
single star is a group of its own. Siblings do not differ by s, so that W alone belongs to the errors of their
difference.

B, V and W are found by expectation-maximisation about the fitted latents; B at each step by generalised least
squares with z and s integrated out. The terms of B beyond the constant have the prior N(0, V + W). V and W
have inverse-Wishart priors about `size` I / 2 each: where the stars say nothing, they are that.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        Of noise, continuum, scatter and what is left of the parameters' errors.
    strength : array (N,)
        Strength l of the star's lines.
    group : array of int (N,)
        The star's group, numbered from 0.
    parameters : array (N, U)
        The most probable parameters.
    """

    residual: Array
    slope: Array
    covariances: Array
    strength: Array
    group: NDArray[np.int64]
    parameters: Array

    @classmethod
    def about(cls, model: GaussDis, stars: Measured, group: NDArray[np.int64], misfit: Misfit) -> LinearStars:
        """Linearise about the latents that fit `stars` under a misfit."""
        strength = line_strength(model.basis, stars.parameters)
        uncertain = stars.covariances + strength[:, None, None] ** 2 * misfit.own + misfit.shared
        fitted = model.fit(stars._replace(covariances=uncertain), offset=misfit.offset)
        latents = fitted.latents @ model.population.T
        slope = model.response.by_latents(latents, fitted.parameters)
        at_zero = model.response(latents, fitted.parameters) - np.einsum("nd,ndk->nk", latents, slope)
        covariances = stars.covariances + model.scattered(latents, stars.parameters)
        covariances = covariances + fitted.by_errors
        residual = fitted.coefficients + misfit.offsets(model, fitted.parameters) - at_zero
        return cls(residual, slope, covariances, strength, group, fitted.parameters)


@dataclass(frozen=True)
class Precision:
    """The precision P of the coefficients of stars under a misfit, what groups share integrated out.

    Attributes
    ----------
    diagonal : array (N, K, K)
        Of single stars their blocks of P; of members of groups the inverses of their own covariances S.
    members : array of int (M,)
        Rows of the members of groups of two or more, group by group.
    groups : list of slice
        Each of these groups, as rows of `members`.
    halved : array (M, D + K, K)
        H J S^-1 of each member, J being the derivatives by what the group shares (z, and s in units of its
        deviation) and H' H its covariance. The group's blocks of P are `diagonal` (if i = j) less
        halved_i' halved_j.
    volume : float
        The logarithm of the determinant of P.
    """

    diagonal: Array
    members: NDArray[np.int64]
    groups: list[slice]
    halved: Array
    volume: float

    @classmethod
    def of(cls, stars: LinearStars, misfit: Misfit) -> Precision:
        """Under a misfit."""
        covariances = stars.covariances + stars.strength[:, None, None] ** 2 * misfit.own
        order = np.argsort(stars.group, kind="stable")
        members = order[np.bincount(stars.group)[stars.group[order]] > 1]
        alone = np.setdiff1d(order, members)
        slope = stars.slope[alone]
        covariances[alone] += slope.swapaxes(1, 2) @ slope + misfit.shared
        diagonal = np.linalg.inv(covariances)
        volume = np.linalg.slogdet(diagonal)[1].sum()
        starts = np.unique(stars.group[members], return_index=True)[1]
        root = np.broadcast_to(_root(misfit.shared), (len(members), *misfit.shared.shape))
        slope = np.concatenate([stars.slope[members], root], axis=1)
        weighted = slope @ diagonal[members]
        if len(members):
            information = np.add.reduceat(weighted @ slope.swapaxes(1, 2), starts, axis=0)
            half = np.linalg.inv(np.linalg.cholesky(information + np.eye(slope.shape[1])))
            weighted = np.repeat(half, np.diff(starts, append=len(members)), axis=0) @ weighted
            volume += 2 * np.linalg.slogdet(half)[1].sum()
        groups = [
            slice(rows[0], rows[-1] + 1) for rows in np.split(np.arange(len(members)), starts[1:]) if len(rows)
        ]
        return cls(np.asarray(diagonal, np.float64), members, groups, weighted, float(volume))

    def times(self, residual: Array) -> Array:
        """P times residuals (N, K)."""
        result = np.einsum("nkl,nl->nk", self.diagonal, residual)
        pulls = np.einsum("mdk,mk->md", self.halved, residual[self.members])
        for rows in self.groups:
            result[self.members[rows]] -= np.einsum("mdk,d->mk", self.halved[rows], pulls[rows].sum(axis=0))
        return np.asarray(result)

    def between(self, terms: Array) -> Array:
        """X' P X (T K, T K), where X are the terms (N, T) of each star times the unit matrix.

        Members of a group enter in pairs, or if these are more than the terms as pairs of terms.
        """
        count, size = terms.shape[1], self.diagonal.shape[1]
        blocks = _products(terms, terms).T @ self.diagonal.reshape(len(terms), -1)
        own = terms[self.members]
        first, second = _pairs([rows for rows in self.groups if rows.stop - rows.start <= count])
        for start in range(0, len(first), PAIRS_AT_ONCE):
            one, other = first[start : start + PAIRS_AT_ONCE], second[start : start + PAIRS_AT_ONCE]
            shared = self.halved[one].swapaxes(1, 2) @ self.halved[other]
            blocks -= _products(own[one], own[other]).T @ shared.reshape(len(one), -1)
        result = blocks.reshape(count, count, size, size).transpose(0, 2, 1, 3).reshape(count * size, -1)
        for rows in self.groups:
            if rows.stop - rows.start > count:
                halved = np.tensordot(own[rows], self.halved[rows], (0, 0)).swapaxes(0, 1)
                halved = halved.reshape(-1, count * size)
                result -= halved.T @ halved
        return np.asarray(result)

    def weighted_blocks(self, weights: Array) -> Array:
        """The sum (K, K) of each star's own block of P times its weight (N,)."""
        halved = (np.sqrt(weights[self.members])[:, None, None] * self.halved).reshape(
            -1, self.diagonal.shape[1]
        )
        return np.asarray(np.tensordot(weights, self.diagonal, 1) - halved.T @ halved)


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
    misfit = Misfit(np.zeros((len(polynomials), size)), expected, expected)
    groups = int(group.max()) + 1
    for step in range(STEPS):
        if step % LINEARISED_EVERY == 0:
            linear = LinearStars.about(model, stars, group, misfit)
            terms = _monomials(model, linear.parameters, len(polynomials)) @ polynomials
        precision = Precision.of(linear, misfit)
        offset = _offset(precision, linear.residual, terms, misfit.own + misfit.shared)
        pull = precision.times(linear.residual - terms @ offset)
        own = linear.strength[:, None] * pull
        shared = np.zeros((groups, size))
        np.add.at(shared, group, pull)
        misfit = Misfit(
            polynomials @ offset,
            _next(own, precision.weighted_blocks(linear.strength**2), misfit.own, expected),
            _next(shared, precision.between(np.ones((len(group), 1))), misfit.shared, expected),
        )
    return misfit


def log_density(model: GaussDis, stars: Measured, group: NDArray[np.int64], misfit: Misfit) -> float:
    """Log density of held-out stars under a misfit, in nats; parameters as for `fit_misfit`."""
    linear = LinearStars.about(model, stars, group, misfit)
    residual = linear.residual - misfit.offsets(model, linear.parameters)
    precision = Precision.of(linear, misfit)
    squares = np.sum(residual * precision.times(residual))
    return float(0.5 * (precision.volume - squares - residual.size * np.log(2 * np.pi)))


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


def _offset(precision: Precision, residual: Array, terms: Array, covariance: Array) -> Array:
    """B (T, K) by generalised least squares, what groups share integrated out; V + W is `covariance`."""
    count, size = terms.shape[1], residual.shape[1]
    prior = np.kron(np.eye(count), np.linalg.inv(covariance))
    prior[:size, :size] = CONSTANT * np.eye(size)
    right = terms.T @ precision.times(residual)
    solved = np.linalg.solve(precision.between(terms) + prior, right.ravel())
    return np.asarray(solved.reshape(count, size), np.float64)


def _next(pulls: Array, precision: Array, covariance: Array, expected: Array) -> Array:
    """The next W or V: the mean of the prior's and of the expected m m' of each star, or s s' of each group.

    `pulls` (n, K) are what P makes of the residuals, `precision` (K, K) is the sum of their covariances.
    """
    total = len(pulls) * covariance + covariance @ (pulls.T @ pulls - precision) @ covariance
    return np.asarray((FREEDOM * expected + total) / (FREEDOM + len(pulls)))


def _pairs(groups: Sequence[slice]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of all ordered pairs of members of one group, each with itself as well."""
    members = [np.arange(rows.start, rows.stop) for rows in groups]
    none = np.zeros(0, np.int64)
    first = np.concatenate([none, *(np.repeat(rows, len(rows)) for rows in members)])
    return first, np.concatenate([none, *(np.tile(rows, len(rows)) for rows in members)])


def _products(first: Array, second: Array) -> Array:
    """Products (M, T^2) of the terms (M, T) of two stars each."""
    return (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)


def _root(covariance: Array) -> Array:
    """The symmetric square root (K, K) of a covariance."""
    variances, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.maximum(variances, 0.0))) @ axes.T, np.float64)

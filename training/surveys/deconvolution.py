"""Extreme deconvolution: the Gaussian mixture behind measurements whose errors are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ITERATIONS = 2000
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture: `weights` (K,), `means` (K, D), `covariances` (K, D, D)."""

    weights: Array
    means: Array
    covariances: Array

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Draws (count, D)."""
        chosen = generator.choice(len(self.weights), size=count, p=self.weights / self.weights.sum())
        return self.means[chosen] + _deviates(generator, self.covariances, chosen)

    def draw_given_last(self, generator: np.random.Generator, last: Array) -> Array:
        """Draws (N, D - 1) of all coordinates but the last, whose values `last` (N,) are given."""
        variance = self.covariances[:, -1, -1]
        slope = self.covariances[:, :-1, -1] / variance[:, None]
        rest = self.covariances[:, :-1, :-1] - np.einsum("ki,kj,k->kij", slope, slope, variance)
        offset = last[:, None] - self.means[:, -1]
        logs = np.log(self.weights) - 0.5 * (offset**2 / variance + np.log(variance))
        weights = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
        chosen = (generator.uniform(size=(len(last), 1)) > np.cumsum(weights, axis=1)[:, :-1]).sum(axis=1)
        moved = slope[chosen] * offset[np.arange(len(last)), chosen, None]
        drawn: Array = self.means[chosen, :-1] + moved + _deviates(generator, rest, chosen)
        return drawn

    def covariance(self) -> Array:
        """Covariance (D, D) of the whole mixture."""
        offset = self.means - self.weights @ self.means
        total: Array = np.einsum("k,kij->ij", self.weights, self.covariances)
        total += np.einsum("k,ki,kj->ij", self.weights, offset, offset)
        return total

    def covariance_given(self, columns: list[int]) -> Array:
        """Mean conditional covariance (D, D) of the components, given some coordinates."""
        total = np.zeros(self.covariances.shape[1:])
        for weight, covariance in zip(self.weights, self.covariances, strict=True):
            known = covariance[np.ix_(columns, columns)]
            total += weight * (
                covariance - covariance[:, columns] @ np.linalg.solve(known, covariance[columns])
            )
        return total


def deconvolve(x: Array, errors: Array, components: int, floor: Array) -> Mixture:
    """The mixture behind `x` (N, D) measured with independent Gaussian `errors` (N, D).

    Expectation maximisation of Bovy, Hogg & Roweis (2011, AnnAppStat 5, 1657), until a step adds less than
    TOLERANCE to the mean log density. In units of `floor` (D,) no eigenvalue of a covariance is below 1.
    """
    x, errors = x / floor, errors / floor
    mixture, before = _start(x, components), -np.inf
    for _ in range(ITERATIONS):
        terms = _expect(mixture, x, errors)
        logs = np.stack([log for log, _, _ in terms])
        density = np.logaddexp.reduce(logs)
        mixture = _maximise(mixture, np.exp(logs - density), terms)
        if density.mean() - before < TOLERANCE:
            break
        before = density.mean()
    covariances = mixture.covariances * np.outer(floor, floor)
    return Mixture(mixture.weights, mixture.means * floor, covariances)


def _deviates(generator: np.random.Generator, covariances: Array, chosen: NDArray[np.int64]) -> Array:
    """One deviate (N, D) for each of `chosen` (N,) among `covariances` (K, D, D)."""
    factors = np.linalg.cholesky(covariances)[chosen]
    deviates: Array = np.einsum("nij,nj->ni", factors, generator.standard_normal(factors.shape[:2]))
    return deviates


def _start(x: Array, components: int) -> Mixture:
    """Equal weights, everybody's covariance, means of equal slices along the largest principal component."""
    covariance = np.atleast_2d(np.cov(x, rowvar=False))
    order = np.argsort(x @ np.linalg.eigh(covariance)[1][:, -1])
    means = np.stack([x[rows].mean(axis=0) for rows in np.array_split(order, components)])
    return Mixture(np.full(components, 1.0 / components), means, np.stack([covariance] * components))


def _expect(mixture: Mixture, x: Array, errors: Array) -> list[tuple[Array, Array, Array]]:
    """Per component: log of weight times density (N,), expected truth (N, D), precision (N, D, D) of x."""
    terms = []
    for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
        precision = np.linalg.inv(covariance + np.einsum("nd,de->nde", errors**2, np.eye(x.shape[1])))
        offset = x - mean
        pulled = np.einsum("nij,nj->ni", precision, offset)
        chi2 = np.einsum("ni,ni->n", offset, pulled)
        constant = np.log(weight) - 0.5 * x.shape[1] * np.log(2.0 * np.pi)
        log = constant - 0.5 * (chi2 - np.linalg.slogdet(precision)[1])
        terms.append((log, mean + pulled @ covariance, precision))
    return terms


def _maximise(mixture: Mixture, weights: Array, terms: list[tuple[Array, Array, Array]]) -> Mixture:
    means, covariances = [], []
    for weight, (_, expected, precision), old in zip(weights, terms, mixture.covariances, strict=True):
        weight = weight / weight.sum()
        mean = weight @ expected
        offset = expected - mean
        new = (weight * offset.T) @ offset + old - old @ np.tensordot(weight, precision, 1) @ old
        values, vectors = np.linalg.eigh(0.5 * (new + new.T))
        means.append(mean)
        covariances.append((vectors * np.maximum(values, 1.0)) @ vectors.T)
    return Mixture(weights.mean(axis=1), np.stack(means), np.stack(covariances))

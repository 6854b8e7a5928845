"""A basis fitted to observed spectra: components of what varies between them outside a model's own basis.

The residuals r (P,) of star i from the model's mean spectrum are taken as

    r_i = c_i C + a_i E + n_i,   a_i ~ N(0, I),   n_ip ~ N(0, 1 / w_ip),

with the model's components C (K, P) and any coefficients c_i (K,). E (J, P) is fitted by
expectation-maximisation (Rubin & Thayer 1982, Psychometrika 47, 69; Tipping & Bishop 1999): weighted principal
components, where a masked pixel has the weight w = 0 and nothing is filled in, and where coefficients a_i count
with their covariance, so that noise is not taken for structure.

Most of what it finds is the instrument: resolution, velocity, the continuum. A coefficient in C that the
instrument moves is known better when what it does outside C is measured too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.sparse.linalg import svds

from model.methods.basis import Basis
from model.methods.gaussdis import GaussDis
from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum
from training.fitting.gaussdis import continuum_covariance, with_tensors

COMPONENTS = 12
STARS = 1500
"""Of more spectra as many are used."""

STEPS = 8

ABOVE_NOISE = 2.0
"""A component is kept if its variance is so many times the largest that noise alone gives."""

FIRST_SIZE = 0.05
"""Norm of the first components, in units of flux."""

FEW = 1e-3
"""Ridge of a pixel's components, for pixels that hardly any star has, as a fraction of the usual weight."""


def with_observed_components(model: GaussDis, spectra: Sequence[Spectrum]) -> GaussDis:
    """Add components of observed spectra to a model's basis.

    Parameters
    ----------
    model : GaussDis
        The model, K components.
    spectra : sequence of Spectrum
        Prepared spectra with errors.

    Returns
    -------
    GaussDis
        The model with K + J components, J no more than `COMPONENTS`. Its response is 0 in the new ones.
    """
    spectra = spectra[:: -(-len(spectra) // STARS)]
    fitted = fit_components(model.basis, spectra, model.parameter_names, COMPONENTS)
    if model.continuum_fit is not None:  # which leaves nothing of an error of the continuum to learn
        known = np.concatenate([model.basis.components, model.continuum_fit.templates])
        frame = np.linalg.qr(known.T)[0]
        fitted = fitted - (fitted @ frame) @ frame.T
    _, sizes, components = np.linalg.svd(fitted, full_matrices=False)
    noise = 1 / np.mean([spectrum.ivar.mean() for spectrum in spectra])
    ratio = components.shape[1] / len(spectra)
    count = int((sizes**2 > ABOVE_NOISE * noise * (ratio + 2 * np.sqrt(ratio))).sum())
    components = np.concatenate([model.basis.components, components[:count]])
    variances = np.concatenate([model.basis.variances, sizes[:count] ** 2])
    return _with_components(model, components, variances, count)


def without_observed_components(model: GaussDis) -> GaussDis:
    """Undo `with_observed_components`."""
    size = len(model.basis.components) - int(model.observed_components[0])
    return _with_components(model, model.basis.components[:size], model.basis.variances[:size], 0)


def fit_components(basis: Basis, spectra: Sequence[Spectrum], names: tuple[str, ...], count: int) -> Array:
    """Components E (count, P) of spectra outside a basis, as the module has them.

    The largest eigenvalue that noise of variance s^2 alone gives N spectra is s^2 (1 + sqrt(P / N))^2
    (Marchenko & Pastur 1967).
    """
    parameters = np.stack([spectrum.parameters.values(names) for spectrum in spectra])
    parameters = np.clip(parameters, *basis.ranges.T)
    residual = (np.stack([s.flux for s in spectra]) - basis.expected(parameters)).astype(np.float32)
    weight = np.stack([s.ivar for s in spectra]).astype(np.float32)
    residual[weight == 0] = 0.0
    within = [np.linalg.cholesky((basis.single * own) @ basis.single.T) for own in weight]
    for star, (lower, own) in enumerate(zip(within, weight, strict=True)):
        residual[star] -= _solved(lower, basis.single @ (own * residual[star])) @ basis.single
    fitted = _first(residual, weight, count)
    rows, columns = np.triu_indices(count)
    usual = weight.mean(axis=0)
    for _ in range(STEPS):
        fitted = _outside(basis, fitted)
        moments = np.empty((len(spectra), count, count))
        means = np.empty((len(spectra), count))
        target = np.empty_like(residual)
        single = fitted.astype(np.float32)
        for star, (lower, own) in enumerate(zip(within, weight, strict=True)):
            weighted = single * own
            inside = _solved(lower, basis.single @ weighted.T)
            information = weighted @ (single - inside.T @ basis.single).T + np.eye(count)
            covariance = np.linalg.inv(information)
            means[star] = covariance @ (weighted @ residual[star])
            moments[star] = np.outer(means[star], means[star]) + covariance
            target[star] = residual[star] + (inside @ means[star]).astype(np.float32) @ basis.single
        gram = np.empty((len(usual), count, count))
        some = moments[:, rows, columns].astype(np.float32)
        gram[:, rows, columns] = gram[:, columns, rows] = weight.T @ some
        gram += FEW * usual.mean() * len(spectra) * np.eye(count)
        moment = (weight * target).T @ means.astype(np.float32)
        fitted = np.linalg.solve(gram, moment[:, :, None])[:, :, 0].T
        fitted = np.linalg.cholesky(moments.mean(axis=0)).T @ fitted
    return _outside(basis, fitted)


def _first(residual: NDArray[np.float32], weight: NDArray[np.float32], count: int) -> Array:
    """Components to start from: those of residuals (N, P) in units of the noise, masked pixels at 0."""
    components = svds(residual * np.sqrt(weight), k=count, v0=np.ones(len(residual)), random_state=0)[2]
    root = np.sqrt(weight.mean(axis=0))
    components = components / np.maximum(root, np.median(root))
    return np.asarray(FIRST_SIZE * np.linalg.qr(components.T)[0].T, np.float64)


def _outside(basis: Basis, components: Array) -> Array:
    """Components (J, P) less what a basis has of them."""
    return components - (components @ basis.components.T) @ basis.components


def _solved(lower: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cho_solve((lower, True), values, check_finite=False))


def _with_components(model: GaussDis, components: Array, variances: Array, observed: int) -> GaussDis:
    """The model with other components (K, P) of these variances (K,), the last of which are `observed` ones.

    Its tensors get zeros for what is new, and lose what is gone.
    """
    arrays = model.arrays() | {"components": components, "variances": variances}
    for name in ("response_mean", "response_linear", "response_products", "response_offset"):
        if name in arrays:
            arrays[name] = _resized(arrays[name], (*arrays[name].shape[:-1], len(components)))
    for name in ("scatter", "misfit", "shared"):
        if name in arrays:
            arrays[name] = _resized(arrays[name], (len(components),) * 2)
    if "continuum" in arrays:
        basis = Basis(model.basis.ranges, **{name: arrays[name] for name in model.basis.arrays()})
        arrays["continuum"] = continuum_covariance(model.normaliser, basis)
    arrays["observed_components"] = np.array([observed])
    return with_tensors(model, model.card, **arrays)


def _resized(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values in a larger or smaller `shape`, 0 where there are none."""
    result = np.zeros(shape, np.float32)
    common = tuple(slice(min(own, other)) for own, other in zip(shape, values.shape, strict=True))
    result[common] = values[common]
    return result

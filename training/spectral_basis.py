"""Fitting the spectral basis on a survey of any size, streamed.

Two passes over the survey: the normal equations of the polynomial, and the covariance of its residuals, whose
leading eigenvectors are the components. Memory is that of one (P, P) matrix in single precision and one block
of spectra, whatever the survey's size; on a GPU of a few matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from model.errors import InputError
from model.methods.basis import Basis, design
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from model.spectra.parameters import PARAMETER_UNITS
from training.random_streams import Stream
from training.surveys.survey import Survey, add_noise

PARAMETERS = tuple(PARAMETER_UNITS)
CONTINUUM_STARS = 4096
CPU = torch.device("cpu")


def parameter_values(survey: Survey, parameters: tuple[str, ...]) -> Array:
    """The named parameters (N, U) of a survey: teff, logg, fe_h or any other dataset of one number per star.

    Raises InputError naming a dataset that the survey does not have.
    """
    return np.stack([survey.column(name) for name in parameters], axis=1)


def training_ranges(survey: Survey, parameters: tuple[str, ...]) -> Array:
    """Smallest and largest value (U, 2) of each named parameter. Raises InputError for a constant one."""
    values = parameter_values(survey, parameters)
    ranges = np.stack([values.min(axis=0), values.max(axis=0)], axis=1)
    if same := [name for name, (low, high) in zip(parameters, ranges, strict=True) if low == high]:
        raise InputError(f"{survey.path}: all stars have the same {', '.join(same)}: nothing to condition on")
    return ranges


def training_spectra(
    survey: Survey, normaliser: Normaliser | None, snr: float, description: str
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Rows and flux (n, P), with noise of 1 / `snr` that is the same in every pass, normalised."""
    for rows, flux in survey.blocks(description):
        yield rows, training_block(flux, rows.start, normaliser, snr)


def training_block(
    flux: NDArray[np.float32], start: int, normaliser: Normaliser | None, snr: float
) -> NDArray[np.float32]:
    """One block of `training_spectra`, whose first row is `start`."""
    noisy = add_noise(flux, snr, Stream.TRAINING_NOISE, start)
    return noisy if normaliser is None else normaliser.batch(noisy)


def fit_basis(
    survey: Survey,
    normaliser: Normaliser | None,
    *,
    parameters: tuple[str, ...],
    degree: int,
    components: int,
    snr: float = np.inf,
    device: torch.device = CPU,
) -> Basis:
    """Fit the polynomial and the components on a survey's flux and parameters, on `device`."""
    ranges = training_ranges(survey, parameters)
    terms = design(parameter_values(survey, parameters), ranges, degree)

    def spectra(description: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for rows, flux in training_spectra(survey, normaliser, snr, description):
            yield torch.from_numpy(flux).to(device), torch.from_numpy(terms[rows]).to(device)

    polynomial = _polynomial(spectra("polynomial"))
    vectors, values, discarded = _components(spectra("residuals"), polynomial, components)
    return Basis(
        ranges,
        polynomial=polynomial.astype(np.float32),
        components=vectors.astype(np.float32),
        variances=values.astype(np.float32),
        discarded=np.array([discarded], dtype=np.float32),
    )


def named_ranges(basis: Basis, parameters: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The training ranges of the basis's parameters, for a model's card."""
    return {name: (low, high) for name, (low, high) in zip(parameters, basis.ranges.tolist(), strict=True)}


def fit_normaliser(survey: Survey) -> Normaliser:
    """The normaliser whose pixels the survey's first stars choose."""
    grid = Grid(survey.wavelength)
    total, squares, count = np.zeros(len(grid)), np.zeros(len(grid)), 0
    for _, flux in survey.blocks("continuum pixels"):
        total += flux.sum(axis=0, dtype=np.float64)
        squares += np.square(flux, dtype=np.float64).sum(axis=0)
        count += len(flux)
        if count >= CONTINUUM_STARS:
            break
    mean = total / count
    return Normaliser.from_survey(grid, mean, np.sqrt(np.maximum(squares / count - mean**2, 0)))


def _polynomial(spectra: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> Array:
    """Least-squares coefficients (T, P) of the design's terms, wavelength by wavelength.

    Where a parameter has too few values to tell its powers apart (0 and 1, say), the smallest coefficients.
    """
    sums: list[torch.Tensor] = []
    for flux, terms in spectra:
        products = [terms.T @ terms, terms.T @ flux.double()]
        sums = [a + b for a, b in zip(sums, products, strict=True)] if sums else products
    gram, moment = (np.asarray(total.cpu().numpy()) for total in sums)
    if np.linalg.matrix_rank(gram, hermitian=True) < len(gram):
        return np.asarray(np.linalg.lstsq(gram, moment, rcond=None)[0])
    return np.asarray(np.linalg.solve(gram, moment), dtype=np.float64)


def _components(
    spectra: Iterator[tuple[torch.Tensor, torch.Tensor]], polynomial: Array, count: int
) -> tuple[Array, Array, float]:
    """Leading eigenvectors (count, P) of the residual covariance, their variances, and the mean of the rest."""
    scatter: torch.Tensor | None = None
    stars = 0
    for flux, terms in spectra:
        mean = terms @ torch.from_numpy(polynomial).to(terms)
        residual = flux - mean.float() if flux.device.type == "cpu" else flux.double() - mean
        if scatter is None:
            scatter = residual.new_zeros(residual.shape[1], residual.shape[1])
        scatter.addmm_(residual.T, residual)
        stars += len(flux)
    assert scatter is not None
    scatter /= stars
    pixels = len(scatter)
    total = float(scatter.diagonal().double().sum())
    if scatter.device.type == "cpu":
        values, vectors = eigsh(scatter.numpy(), k=count, v0=np.ones(pixels, dtype=np.float32))
    else:
        values, vectors = (each.cpu().numpy() for each in torch.linalg.eigh(scatter.float()))
    order = np.argsort(values)[::-1][:count]
    values, vectors = values[order].astype(np.float64), np.linalg.qr(vectors[:, order].astype(np.float64))[0].T
    vectors *= np.sign(vectors[np.arange(count), np.abs(vectors).argmax(axis=1)])[:, None]
    discarded = max((total - float(values.sum())) / (pixels - count), 0.0)
    return vectors, values, discarded

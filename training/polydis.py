"""Fitting PolyDis (paper, section 2.2 and 4.2) on a survey of any size, streamed.

Three passes over the survey: the normal equations of the polynomial; the covariance of its residuals, whose
leading eigenvectors are the components; and the latents, to measure how those of twins differ. Memory holds two
(P, P) matrices in single precision and one block of spectra, whatever the survey's size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from model.base import Card
from model.grid import Array, Grid
from model.normalise import Normaliser
from model.polydis import PolyDis, design
from model.spectrum import PARAMETER_UNITS
from training.survey import Survey, add_noise

PARAMETERS = tuple(PARAMETER_UNITS)
NOISE_STREAM = (0, 4)
"""Of the noise that training adds: unlike that of any survey or evaluation."""

CONTINUUM_STARS = 4096


def fit(
    survey: Survey,
    *,
    name: str = "polydis",
    parameters: tuple[str, ...] = PARAMETERS,
    degree: int = 4,
    components: int = 50,
    snr: float = np.inf,
    normalise: bool = True,
    error_floor: float = 0.0,
) -> PolyDis:
    """Fit PolyDis on a survey.

    `parameters` are those to remove; `snr` adds noise once to the training spectra (the paper uses 100);
    `normalise` passes every spectrum through the pseudo-continuum normaliser that observed ones will meet,
    otherwise the survey's own continuum is kept. Uses flux and parameters only; twins, where the survey has
    them, do not change the fit: they calibrate `p_same`.
    """
    columns = [PARAMETERS.index(parameter) for parameter in parameters]
    known = survey.parameters[:, columns]
    ranges = np.stack([known.min(axis=0), known.max(axis=0)], axis=1)
    grid = Grid(survey.wavelength)
    normaliser = _normaliser(survey, grid) if normalise else None

    def spectra(description: str, noise: float) -> Iterator[tuple[slice, NDArray[np.float32], Array]]:
        for rows, flux in survey.blocks(description):
            flux = add_noise(flux, noise, *NOISE_STREAM, rows.start)
            if normaliser is not None:
                flux = normaliser.batch(flux)
            yield rows, flux, design(known[rows], ranges, degree)

    polynomial = _polynomial(spectra("polynomial", snr))
    vectors, values, discarded = _components(spectra("residuals", snr), polynomial, components)
    latents = np.empty((len(survey), components))
    for rows, flux, terms in spectra("latents", np.inf):
        latents[rows] = (flux - (terms @ polynomial).astype(np.float32)) @ vectors.T
    twins = np.zeros((0, 0)) if survey.twin is None else np.cov((latents - latents[survey.twin]).T)
    card = Card(
        name=name,
        version="unsaved",
        method=PolyDis.method,
        parameters={
            parameter: (float(a), float(b)) for parameter, (a, b) in zip(parameters, ranges, strict=True)
        },
        latent_dim=components,
        metric="Euclidean distance of the principal components",
        error_floor=error_floor,
        training={
            "stars": len(survey),
            "survey_seed": survey.seed,
            "snr": None if np.isinf(snr) else snr,
            "degree": degree,
            "continuum": "pseudo" if normalise else "as in the survey",
            "p_same": "no twins in the survey"
            if survey.twin is None
            else f"calibrated on {len(survey) // 2} synthetic pairs",
        },
        quality={"variance_explained": float(values.sum() / (values.sum() + discarded * len(grid)))},
    )
    return PolyDis(
        card,
        grid,
        normaliser,
        polynomial=polynomial.astype(np.float32),
        components=vectors.astype(np.float32),
        variances=values.astype(np.float32),
        discarded=np.array([discarded], dtype=np.float32),
        twins=twins.astype(np.float32),
    )


def _normaliser(survey: Survey, grid: Grid) -> Normaliser:
    """The normaliser whose pixels the survey's first stars choose."""
    total, squares, count = np.zeros(len(grid)), np.zeros(len(grid)), 0
    for _, flux in survey.blocks("continuum pixels"):
        total += flux.sum(axis=0, dtype=np.float64)
        squares += np.square(flux, dtype=np.float64).sum(axis=0)
        count += len(flux)
        if count >= CONTINUUM_STARS:
            break
    mean = total / count
    return Normaliser.from_survey(grid, mean, np.sqrt(np.maximum(squares / count - mean**2, 0)))


def _polynomial(spectra: Iterator[tuple[slice, NDArray[np.float32], Array]]) -> Array:
    """Least-squares coefficients (T, P) of the design's terms, wavelength by wavelength."""
    gram: Array | float = 0.0
    moment: Array | float = 0.0
    for _, flux, terms in spectra:
        gram = gram + terms.T @ terms
        moment = moment + terms.T @ flux
    return np.linalg.solve(np.asarray(gram), np.asarray(moment))


def _components(
    spectra: Iterator[tuple[slice, NDArray[np.float32], Array]], polynomial: Array, count: int
) -> tuple[Array, Array, float]:
    """leading eigenvectors (count, P) of the residual covariance, their variances, and the mean of the rest."""
    scatter: NDArray[np.float32] | None = None
    stars = 0
    for _, flux, terms in spectra:
        residual = flux - (terms @ polynomial).astype(np.float32)
        product = residual.T @ residual
        scatter = product if scatter is None else np.add(scatter, product, out=scatter)
        stars += len(flux)
    assert scatter is not None
    scatter /= stars
    pixels = len(scatter)
    total = float(np.trace(scatter, dtype=np.float64))
    values, vectors = eigsh(scatter, k=count, v0=np.ones(pixels, dtype=np.float32))
    order = np.argsort(values)[::-1]
    values, vectors = values[order].astype(np.float64), np.linalg.qr(vectors[:, order].astype(np.float64))[0].T
    vectors *= np.sign(vectors[np.arange(count), np.abs(vectors).argmax(axis=1)])[:, None]
    discarded = max((total - float(values.sum())) / (pixels - count), 0.0)
    return vectors, values, discarded

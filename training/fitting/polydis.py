"""Fitting PolyDis (paper, section 2.2 and 4.2) on a survey of any size, streamed."""

from __future__ import annotations

import numpy as np

from model.methods.base import Card
from model.methods.polydis import PolyDis
from model.spectra.grid import Grid
from training.spectral_basis import PARAMETERS, fit_basis, fit_normaliser
from training.surveys.survey import Survey
from training.surveys.used_surveys import record


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
    """Fit PolyDis on a survey's flux and parameters.

    Parameters
    ----------
    survey : Survey
        The training survey.
    name : str
        The model's name.
    parameters : tuple of str
        The parameters to remove from the latent.
    degree : int
        Degree of the polynomial.
    components : int
        Number of components, the latents.
    snr : float
        Noise of 1 / `snr` is added once to the training spectra (the paper uses 100).
    normalise : bool
        Pass every spectrum through the pseudo-continuum normaliser of observed ones; otherwise the survey's own
        continuum stays.
    error_floor : float
        See `Card`.

    Returns
    -------
    PolyDis
        The model.
    """
    normaliser = fit_normaliser(survey) if normalise else None
    basis = fit_basis(survey, normaliser, parameters=parameters, degree=degree, components=components, snr=snr)
    values, discarded = basis.variances, basis.discarded
    card = Card(
        name=name,
        version="unsaved",
        method=PolyDis.method,
        parameters={
            parameter: (float(a), float(b)) for parameter, (a, b) in zip(parameters, basis.ranges, strict=True)
        },
        units=survey.units(parameters),
        latent_dim=components,
        metric="Euclidean distance of the principal components",
        error_floor=error_floor,
        training={
            "stars": len(survey),
            **record(survey),
            "snr": None if np.isinf(snr) else snr,
            "degree": degree,
            "continuum": "pseudo" if normalise else "as in the survey",
        },
        quality={
            "variance_explained": float(values.sum() / (values.sum() + discarded * len(survey.wavelength)))
        },
    )
    return PolyDis(
        card, Grid(survey.wavelength), normaliser, twins=np.zeros((0, 0), dtype=np.float32), **basis.arrays()
    )

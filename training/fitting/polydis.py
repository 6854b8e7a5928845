"""Fitting PolyDis (paper, section 2.2 and 4.2) on a survey of any size, streamed."""

from __future__ import annotations

import numpy as np

from model.methods.base import Card
from model.methods.polydis import PolyDis
from model.spectra.grid import Grid
from training.spectral_basis import PARAMETERS, fit_basis, fit_normaliser, named_ranges
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
        Divide each spectrum by a pseudo-continuum, as observed ones are; otherwise take it as it is.
    error_floor : float
        See `Card`.

    Returns
    -------
    PolyDis
        The model.
    """
    normaliser = fit_normaliser(survey) if normalise else None
    basis = fit_basis(survey, normaliser, parameters=parameters, degree=degree, components=components, snr=snr)
    explained, discarded = float(basis.variances.sum()), basis.discarded * len(survey.wavelength)
    card = Card(
        name=name,
        version="unsaved",
        method=PolyDis.method,
        parameters=named_ranges(basis, parameters),
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
        quality={"variance_explained": explained / (explained + discarded)},
    )
    arrays = {"twins": np.zeros((0, 0), dtype=np.float32), **basis.arrays()}
    return PolyDis(card, Grid(survey.wavelength), normaliser, **arrays)

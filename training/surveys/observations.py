"""The spectra of a survey with noise, as the service gets them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.errors import ChemtwinError
from model.methods.base import Model
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, Spectrum, prepare_all
from training.surveys.survey import Survey

BLOCK = 256


def prepared(
    survey: Survey, model: Model, description: str, wanted: NDArray[np.bool_] | None = None
) -> Iterator[list[tuple[int, Spectrum | ChemtwinError]]]:
    """Rows and spectra block by block, prepared for a model, or the error of one that cannot be used.

    Parameters
    ----------
    survey : Survey
        Spectra with errors.
    model : Model
        Whose grid and continuum.
    description : str
        Of the progress bar.
    wanted : array of bool (N,), optional
        Which stars; all by default.

    Raises
    ------
    InputError
        For a survey without errors of its pixels.
    """
    for rows, flux in survey.blocks(description, BLOCK):
        own = np.arange(rows.start, rows.stop)
        chosen = np.ones(len(own), np.bool_) if wanted is None else wanted[rows]
        if not chosen.any():
            continue
        labels = np.concatenate([survey.parameters[rows], survey.errors[rows]], axis=1)[chosen]
        observations = [
            Observation(one, _parameters(values), ivar)
            for one, ivar, values in zip(
                flux[chosen].astype(np.float64),
                survey.ivar(rows)[chosen].astype(np.float64),
                labels.tolist(),
                strict=True,
            )
        ]
        spectra = prepare_all(observations, model.grid, model.normaliser)
        yield list(zip(own[chosen].tolist(), spectra, strict=True))


def _parameters(values: list[float]) -> Parameters:
    """Of labels and then their errors, NaN where not known."""
    teff, logg, fe_h, *errors = values
    teff_err, logg_err, fe_h_err = (None if math.isnan(error) else error for error in errors)
    return Parameters(teff, logg, fe_h, teff_err, logg_err, fe_h_err)

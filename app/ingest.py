"""Bulk embedding of a survey file into the store, beside a running service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import ServiceError
from app.service import Job, Service
from app.settings import Settings
from model.errors import ChemtwinError
from model.spectrum import Observation, Parameters
from training.survey import Survey


def ingest_survey(path: Path, settings: Settings) -> int:
    """Embed and store every star of a survey HDF5 file (see docs/file-formats.md), block by block.

    Returns the number of stars stored. Raises ValueError for a file that is no survey or lacks a parameter of
    the model, and the refusal of the first star that cannot be embedded, by its id.
    """
    survey = Survey.open(path)
    service = Service(settings)
    try:
        further = {name: survey.column(name) for name in service.further}
        for rows, flux in survey.blocks("ingest"):
            jobs = [
                _job(survey, row, pixels, {name: float(values[row]) for name, values in further.items()})
                for row, pixels in zip(range(rows.start, rows.stop), flux, strict=True)
            ]
            for job, result in zip(jobs, service.embed(jobs), strict=True):
                if isinstance(result, (ChemtwinError, ServiceError)):
                    raise ValueError(f"star {job.star_id}: {result}")
                if isinstance(result, Exception):
                    raise result
    finally:
        service.close()
    return len(survey)


def _job(survey: Survey, row: int, flux: NDArray[np.float32], others: dict[str, float]) -> Job:
    snr = survey.snr[row]
    teff, logg, fe_h = map(float, survey.parameters[row])
    observation = Observation(
        flux=flux.astype(np.float64),
        parameters=Parameters(teff, logg, fe_h, others=others),
        ivar=np.full(len(flux), snr**2) if np.isfinite(snr) else None,
        wavelength=survey.wavelength,
    )
    return Job(observation, survey.star_id[row])

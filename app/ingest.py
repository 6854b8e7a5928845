"""Bulk embedding of a survey file into the store, beside a running service."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from app.errors import ServiceError
from app.service import Job, Service
from app.settings import Settings
from model.errors import ChemtwinError
from model.spectrum import Observation, Parameters

BLOCK = 256


def ingest_survey(path: Path, settings: Settings) -> int:
    """Embed and store every star of a survey HDF5 file (see docs/file-formats.md), block by block.

    Returns the number of stars stored. Raises ValueError for a file that is no survey, and the refusal of
    the first star that cannot be embedded, by its id.
    """
    service = Service(settings)
    try:
        with h5py.File(path, "r") as file:
            missing = {"flux", "wavelength", "star_id", "teff", "logg", "fe_h"} - set(file)
            if missing:
                raise ValueError(f"{path} is not a survey: it lacks {', '.join(sorted(missing))}")
            ids = file["star_id"].asstr()[:]
            with tqdm(total=len(ids), unit="star", desc="ingest", disable=None) as bar:
                for start in range(0, len(ids), BLOCK):
                    _store(service, _jobs(file, ids, slice(start, start + BLOCK)))
                    bar.update(min(BLOCK, len(ids) - start))
            return len(ids)
    finally:
        service.close()


def _jobs(file: h5py.File, ids: np.ndarray, rows: slice) -> list[Job]:
    flux = file["flux"][rows].astype(np.float64)
    known = [file[name][rows] for name in ("teff", "logg", "fe_h")]
    snr = file["snr"][rows] if "snr" in file else np.full(len(flux), np.inf)
    wavelength = file["wavelength"][:]
    return [
        Job(
            Observation(
                flux=flux[i],
                parameters=Parameters(*(float(column[i]) for column in known)),
                ivar=np.full(flux.shape[1], snr[i] ** 2) if np.isfinite(snr[i]) else None,
                wavelength=wavelength,
            ),
            star_id=str(ids[rows][i]),
        )
        for i in range(len(flux))
    ]


def _store(service: Service, jobs: list[Job]) -> None:
    for job, result in zip(jobs, service.embed(jobs), strict=True):
        if isinstance(result, (ChemtwinError, ServiceError)):
            raise ValueError(f"star {job.star_id}: {result}")
        if isinstance(result, Exception):
            raise result

"""Abundances of a stored star, read out of its latent."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.errors import NoAbundances
from app.inference.service import Service


def abundances_of(service: Service, star_id: str) -> dict[str, Any]:
    """The response of GET /stars/{star_id}/abundances.

    Raises
    ------
    NotFound, ModelMismatch
        There is no such star, or another model embedded it.
    NoAbundances
        The model has no readout.
    """
    star, readout = service.comparable(star_id), service.model.readout
    if readout is None:
        raise NoAbundances(
            "no_abundances", f"the model {service.model.card.identity} has no readout of abundances"
        )
    covariance = None if star.covariance is None else star.covariance[None].astype(np.float64)
    (values,), (errors,) = readout(star.latent[None].astype(np.float64), covariance)
    return {
        "star_id": star_id,
        "model": service.model_name(),
        "unit": "[X/Fe], dex",
        "abundances": [
            {
                "element": name,
                "x_fe": float(value),
                "x_fe_err": None if covariance is None else float(error),
            }
            for name, value, error in zip(readout.names, values, errors, strict=True)
        ],
        "in_domain": star.in_domain,
        "warnings": list(star.warnings),
    }

"""The model card."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app.inference.service import Service
from model.methods.base import Model


def model_card(service: Service) -> dict[str, Any]:
    """The response of GET /model."""
    service.index.catch_up()
    return {
        **described(service.model),
        "stars": len(service.index),
        "drift": asdict(service.drift.drift(service.index)),
    }


def described(model: Model) -> dict[str, Any]:
    """What a model file says of its model."""
    card, grid = model.card, model.grid
    return {
        "model": {"name": card.name, "version": card.version, "method": card.method},
        "method": card.method,
        "latent_dim": card.latent_dim,
        "parameters": {
            name: {"min": low, "max": high, **({"unit": card.units[name]} if name in card.units else {})}
            for name, (low, high) in card.parameters.items()
        },
        "logg_limits": [
            {"teff": teff, "min": least, "max": greatest} for teff, least, greatest in card.logg_limits
        ],
        "grid": {
            "pixels": len(grid),
            "min": grid.wavelength[0],
            "max": grid.wavelength[-1],
            "detectors": [[part.start, part.stop] for part in grid.detectors],
            "unit": "Angstrom (vacuum, rest frame)",
        },
        "normalisation": {"method": "none"} if model.normaliser is None else model.normaliser.header(),
        "metric": card.metric,
        "abundances": None if model.readout is None else list(model.readout.names),
        "error_floor": card.error_floor,
        "typical_errors": card.typical_errors,
        "training": card.training,
        "quality": card.quality,
    }

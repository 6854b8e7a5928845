"""What tells a reference survey from another, on any processor.

A processor rounds fluxes otherwise in the last digits, so that no digest of them would agree: a few fluxes are
printed instead, and agree to 1e-4.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array
from training.surveys.survey import Survey

STARS = 200
"""Stars whose labels are in the digest."""

DECIMALS = 6
SAMPLED, PIXELS = 2, (500, 2500, 4500, 7000)
"""First stars, and pixels, of the sampled fluxes."""


@dataclass(frozen=True)
class Checksums:
    """The digest of a survey's first labels, and a sample of its fluxes (2 * 4,)."""

    labels: str
    fluxes: NDArray[np.float64]

    def __str__(self) -> str:
        return " ".join([self.labels, *(f"{flux:.4f}" for flux in self.fluxes)])


def checksums(survey: Survey) -> Checksums:
    """The checksums of a survey with abundances. Raises InputError for one without."""
    labels = np.hstack([survey.parameters, survey.abundances()[1]])[:STARS]
    return Checksums(labels_digest(labels), sampled(survey.flux(slice(0, SAMPLED))))


def labels_digest(labels: Array) -> str:
    """The digest of labels (N, L), [Fe/H] and [X/Fe] after Teff and log g, rounded to 1e-6 K and dex."""
    rounded = np.round(labels * 10**DECIMALS).astype("<i8")
    return hashlib.sha256(np.ascontiguousarray(rounded).tobytes()).hexdigest()[:16]


def sampled(flux: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sample (2 * 4,) of the fluxes (N, P) of a survey's first stars."""
    return flux[:SAMPLED, PIXELS].astype(np.float64).reshape(-1)

"""Validation, which decides when training stops and which step is best: on pairs of a survey of its own.

Models that remove [Fe/H] are validated on pairs with the same [X/Fe] but different [Fe/H]: pairs with the same
[Fe/H] would reward a model that leaks it into the latent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from model.errors import InputError
from model.methods.autoencoder import FLUX_SCALE
from model.spectra.grid import Array
from model.spectra.parameters import PARAMETER_UNITS
from training.config import NetworkConfig
from training.evaluation.evaluate import doppelgangers, twin_rows
from training.evaluation.whitening import SNR, best_floor, twins_found
from training.networks.batches import coefficients, network_pixels, unit_parameters
from training.networks.preprocessing import Frontend
from training.random_streams import FIRST_REPEAT, SECOND_REPEAT, VALIDATION_NOISE
from training.spectral_basis import training_spectra
from training.surveys.survey import Survey
from training.surveys.used_surveys import check_apart

RECAST_WEIGHT = 1e4
"""Weight of the mean squared recast error in the score: 1e-6 counts as much as one twin in a hundred."""

MAX_EQUAL = 0.5
"""Largest fraction of pairs that may have the same value of an extra parameter: a few fibres coincide."""

BATCH = 1000

Encode = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
Decode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def check_validation(survey: Survey, validation: Survey, parameters: tuple[str, ...]) -> None:
    """Raise InputError for a validation survey that is unfit for a model trained on `survey`.

    It must be noiseless pairs on the same grid, other stars than the training's, and pairs of the right kind,
    which differ in every extra parameter: else a model that leaks one would be rewarded.
    """
    twin = twin_rows(validation)
    if not np.array_equal(survey.wavelength, validation.wavelength):
        raise InputError(f"{validation.path} is on another wavelength grid than {survey.path}")
    check_apart(validation, survey, "the training survey")
    if validation.own_fe_h != ("fe_h" in parameters):
        raise InputError(
            f"{validation.path}: a model that removes [Fe/H] is selected on pairs that differ in it "
            "(chemtwin survey synthesize --own-fe-h), any other model on pairs that share it"
        )
    for name in parameters:
        if (
            name not in PARAMETER_UNITS
            and np.mean((value := validation.column(name)) == value[twin]) > MAX_EQUAL
        ):
            raise InputError(
                f"{validation.path}: twins share their {name}, so they cannot judge a model that removes it"
            )


class Stars:
    """A survey's noiseless network inputs x (N, M), scaled u (N, U), and `unit` (M,) inputs for one of flux."""

    def __init__(self, survey: Survey, frontend: Frontend, config: NetworkConfig, device: torch.device) -> None:
        unit = 1 / frontend.scale if frontend.scale.size else np.array([FLUX_SCALE])
        self.unit = torch.from_numpy(unit.astype(np.float32)).to(device)
        if config.inputs == "pixels":
            blocks = training_spectra(survey, frontend.normaliser, np.inf, "validation")
            values = np.concatenate([network_pixels(flux) for _, flux in blocks])
        else:
            values = coefficients(
                survey, frontend.normaliser, frontend.basis, config.parameters, np.inf, device
            )
            values /= frontend.scale
        self.x = torch.from_numpy(values.astype(np.float32)).to(device)
        known = unit_parameters(survey, config.parameters, frontend.basis.ranges)
        self.u = torch.from_numpy(known).to(device)
        noise = None if frontend.noise is None else torch.from_numpy(frontend.noise.T.astype(np.float32))
        self._colour = None if noise is None else noise.to(device)

    @torch.no_grad()
    def latents(self, encode: Encode, snr: float, seed: int = VALIDATION_NOISE) -> torch.Tensor:
        """Latents (N, D) with noise of 1 / `snr`, the same for the same seed."""
        generator = torch.Generator(self.x.device).manual_seed(seed)
        latents = []
        for x, u in zip(torch.split(self.x, BATCH), torch.split(self.u, BATCH), strict=True):
            if not np.isinf(snr):
                white = torch.randn(x.shape, generator=generator, device=x.device)
                x = x + self.unit / snr * (white if self._colour is None else white @ self._colour)
            latents.append(encode(x, u)[0])
        return torch.cat(latents)


class Validation:
    """A validation survey, prepared to score networks."""

    def __init__(self, survey: Survey, frontend: Frontend, config: NetworkConfig, device: torch.device) -> None:
        self.levels, self.twin = config.validate_snr, twin_rows(survey)
        self._whitened = config.metric == "whitened"
        self._pixels = len(survey.wavelength)
        self._stars = Stars(survey, frontend, config, device)

    @torch.no_grad()
    def __call__(self, encode: Encode, decode: Decode) -> dict[str, float]:
        """Twins found at each noise level, mean squared recast error, and the score that combines them."""
        clean = self._stars.latents(encode, np.inf)
        if not torch.isfinite(clean).all():
            raise InputError("the training has diverged: try a lower learning_rate, or clip_norm")
        latents = [_array(self._stars.latents(encode, level)) for level in self.levels]
        if self._whitened:
            repeats = [_array(self._stars.latents(encode, SNR, seed)) for seed in (FIRST_REPEAT, SECOND_REPEAT)]
            noise = np.cov((repeats[0] - repeats[1]).T)
            found = twins_found(latents, self.twin, noise, clean.device)
            fractions = found[best_floor(found)]
        else:
            counts = [doppelgangers(z, self.twin, shown=False, device=clean.device) for z in latents]
            fractions = [float(np.mean(count == 0)) for count in counts]
        figures = {f"twins_{level:g}": fraction for level, fraction in zip(self.levels, fractions, strict=True)}
        figures["recast"] = self._recast(clean[torch.from_numpy(self.twin)], decode)
        return figures | {"score": float(np.mean(fractions)) - RECAST_WEIGHT * figures["recast"]}

    def _recast(self, latents: torch.Tensor, decode: Decode) -> float:
        """Mean squared error, in flux, of stars decoded from their twins' `latents` (N, D)."""
        total, stars = 0.0, self._stars
        blocks = zip(
            torch.split(latents, BATCH), torch.split(stars.x, BATCH), torch.split(stars.u, BATCH), strict=True
        )
        for z, x, u in blocks:
            total += float(((decode(z, u) - x) / stars.unit).square().sum())
        return total / (len(latents) * self._pixels)


def _array(latents: torch.Tensor) -> Array:
    return np.asarray(latents.double().cpu().numpy())

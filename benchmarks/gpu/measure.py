"""Twin searches and recasts by a network on the device it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from model.methods.autoencoder import FLUX_SCALE, FLUX_SHIFT, Autoencoder
from model.spectra.grid import Array
from training.config import NetworkConfig
from training.evaluation.evaluate import twin_rows, twin_search
from training.evaluation.pair_likelihood import PairLikelihood
from training.evaluation.whitening import SNR, best_floor, twins_found, whitening
from training.networks.preprocessing import Frontend
from training.networks.validation import Stars
from training.random_streams import FIRST_REPEAT, SECOND_REPEAT
from training.spectral_basis import parameter_values
from training.surveys.survey import Survey

LEVELS = (np.inf, 100.0, 50.0, 30.0)
METRICS = ("euclidean", "whitened", "likelihood")
APART = 500.0


@dataclass(frozen=True)
class Measured:
    """What was measured with a network.

    Attributes
    ----------
    floor : float
        Of the whitening, chosen on the validation survey.
    searches : list of dict
        For each survey, metric and noise level: fraction of twins found, within ten, and area under the ROC
        curve.
    recast : dict
        Mean absolute and mean squared residual of recast twins, over all pairs and those 500 K apart.
    """

    floor: float
    searches: list[dict[str, Any]]
    recast: dict[str, float]


class Networks:
    """A trained autoencoder's networks on the device, in single precision.

    `prepared` has the surveys' inputs there, for all networks of the same parameters and presets.
    """

    def __init__(
        self, model: Autoencoder, config: NetworkConfig, device: torch.device, prepared: dict[Any, Stars]
    ) -> None:
        self._model, self._config, self._device, self._prepared = model, config, device, prepared
        self._encoder, self._decoder = (net.to(device, torch.float32) for net in (model.encoder, model.decoder))

    def sizes(self) -> tuple[int, int]:
        """Weights of the autoencoder, and of its adversary."""
        config = self._config
        autoencoder = sum(p.numel() for net in (self._encoder, self._decoder) for p in net.parameters())
        bins, known = config.bins, len(config.parameters)
        inputs, outputs = config.latents, bins**known if config.joint_bins else bins * known
        if config.method == "factordis":
            inputs, outputs = self._encoder[0].in_features + config.latents, 1
        widths = [inputs, *config.adversary, outputs]
        return autoencoder, sum((a + 1) * b for a, b in pairwise(widths))

    def latents(self, survey: Survey, snr: float, seed: int) -> Array:
        """Latents (N, D) of a survey with noise of 1 / `snr`."""
        return np.asarray(self._stars(survey).latents(self._encode, snr, seed).double().cpu().numpy())

    def measure(self, validation: Survey, tests: Sequence[Survey]) -> Measured:
        """Nearest twins at LEVELS by distance and by likelihood, and recasts of the first survey."""
        torch.set_float32_matmul_precision("highest")
        repeats = [self.latents(validation, SNR, seed) for seed in (FIRST_REPEAT, SECOND_REPEAT)]
        noise = np.cov((repeats[0] - repeats[1]).T)
        levels = [self.latents(validation, snr, 1) for snr in LEVELS]
        pairs = twin_rows(validation)
        floor = best_floor(twins_found(levels, pairs, noise, self._device))
        whiten = whitening(noise, float(levels[0].var(axis=0).mean()), floor)
        searches = []
        for survey in tests:
            twin = twin_rows(survey)
            for snr, level in zip(LEVELS, levels, strict=True):
                z, likelihood = self.latents(survey, snr, 2), PairLikelihood.of(level, pairs)
                found = (
                    twin_search(z, twin, snr, self._device),
                    twin_search(z @ whiten, twin, snr, self._device),
                    likelihood.search(z, twin, snr, self._device),
                )
                for metric, search in zip(METRICS, found, strict=True):
                    searches.append(
                        {"survey": survey.path.stem, "metric": metric, "snr": snr, **search.summary()}
                    )
        return Measured(floor, searches, self._recast(tests[0]))

    @torch.no_grad()
    def _recast(self, survey: Survey) -> dict[str, float]:
        """Residuals of twins recast to each other's parameters."""
        twin, teff = twin_rows(survey), survey.parameters[:, 0]
        apart = np.abs(teff - teff[twin]) >= APART
        stars = self._stars(survey)
        z = stars.latents(self._encode, np.inf)[torch.from_numpy(twin)]
        basis = self._model.basis
        polynomial, components = (self._tensor(rows) for rows in (basis.polynomial, basis.components))
        terms = self._tensor(basis.terms(parameter_values(survey, self._config.parameters)))
        values: dict[str, list[torch.Tensor]] = {"absolute": [], "squared": []}
        for rows, flux in survey.blocks("recast"):
            decoded = self._decoder(torch.cat([z[rows], stars.u[rows]], dim=1))
            if self._config.inputs == "pixels":
                recast = (decoded + FLUX_SHIFT) / FLUX_SCALE
            else:
                recast = terms[rows] @ polynomial + decoded * self._tensor(self._model.scale) @ components
            residual = recast - self._tensor(flux)
            values["absolute"].append(residual.abs().mean(dim=1))
            values["squared"].append(residual.square().mean(dim=1))
        stacked = {name: torch.cat(blocks).cpu().numpy() for name, blocks in values.items()}
        return {
            f"{name}, {pairs}": float(value[chosen].mean())
            for name, value in stacked.items()
            for pairs, chosen in (("all", slice(None)), ("500 K apart", apart))
        }

    def _encode(self, x: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self._encoder(torch.cat([x, u], dim=1)), None

    def _stars(self, survey: Survey) -> Stars:
        key = survey.path, self._config.parameters
        if key not in self._prepared:
            frontend = Frontend(None, self._model.basis, self._model.scale, None)
            self._prepared[key] = Stars(survey, frontend, self._config, self._device)
        return self._prepared[key]

    def _tensor(self, values: Array) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(self._device)

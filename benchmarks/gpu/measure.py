"""Twin searches and recasts by a network on the device it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.methods.autoencoder import FLUX_SCALE, Autoencoder
from model.spectra.grid import Array
from training.config import NetworkConfig
from training.evaluation.evaluate import twin_rows, twin_search
from training.evaluation.whitening import SNR, best_floor, twins_found, whitening
from training.networks.batches import network_pixels, unit_parameters
from training.random_streams import FIRST_REPEAT, SECOND_REPEAT
from training.surveys.survey import Survey

LEVELS = (np.inf, 100.0, 50.0, 30.0)
APART = 500.0
BLOCK = 2000


@dataclass(frozen=True)
class Measured:
    """A network on the device, and what was measured with it.

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

    stars: _Stars
    floor: float
    searches: list[dict[str, Any]]
    recast: dict[str, float]

    @property
    def trainer_size(self) -> tuple[int, int]:
        """Weights of the autoencoder, and of its adversary."""
        return self.stars.sizes

    def latents(self, survey: Survey) -> NDArray[np.float32]:
        """Noiseless latents (N, D) of a survey, in the order of its stars."""
        return self.stars.latents(survey, np.inf, 0).astype(np.float32)


def measure(
    model: Autoencoder,
    config: NetworkConfig,
    validation: Survey,
    tests: Sequence[Survey],
    device: torch.device,
    loaded: dict[Path, torch.Tensor],
) -> Measured:
    """Measure a network between pixels: nearest twins at LEVELS by distance, and recasts of the first survey.

    `loaded` keeps the surveys' inputs on the device for the next network.
    """
    torch.set_float32_matmul_precision("highest")
    stars = _Stars(model, config, device, loaded)
    repeats = [stars.latents(validation, SNR, seed) for seed in (FIRST_REPEAT, SECOND_REPEAT)]
    noise = np.cov((repeats[0] - repeats[1]).T)
    levels = [stars.latents(validation, snr, 1) for snr in LEVELS]
    floor = best_floor(twins_found(levels, twin_rows(validation), noise, device))
    whiten = whitening(noise, float(levels[0].var(axis=0).mean()), floor)
    searches = []
    for survey in tests:
        for snr in LEVELS:
            z = stars.latents(survey, snr, 2)
            for metric, latents in (("euclidean", z), ("whitened", z @ whiten)):
                found = twin_search(latents, twin_rows(survey), snr, device).summary()
                searches.append({"survey": survey.path.stem, "metric": metric, "snr": snr, **found})
    return Measured(stars, floor, searches, stars.recast(tests[0]))


class _Stars:
    """A network on the device, applied to surveys block by block."""

    def __init__(
        self,
        model: Autoencoder,
        config: NetworkConfig,
        device: torch.device,
        loaded: dict[Path, torch.Tensor],
    ) -> None:
        self._model, self._parameters, self._device, self._loaded = model, config.parameters, device, loaded
        self._encoder, self._decoder = (net.to(device, torch.float32) for net in (model.encoder, model.decoder))
        autoencoder = sum(p.numel() for net in (self._encoder, self._decoder) for p in net.parameters())
        bins, known = config.bins, len(config.parameters)
        classes = bins**known if config.joint_bins else bins * known
        inputs, outputs = config.latents, classes
        if config.method == "factordis":
            inputs, outputs = len(model.grid.wavelength) + known + config.latents, 1
        widths = [inputs, *config.adversary, outputs]
        self.sizes = autoencoder, sum((a + 1) * b for a, b in pairwise(widths))

    @torch.no_grad()
    def latents(self, survey: Survey, snr: float, seed: int) -> Array:
        """Latents (N, D) of a survey with noise of 1 / `snr`."""
        generator = torch.Generator(self._device).manual_seed(seed)
        out = []
        for x, u in self._blocks(survey):
            if np.isfinite(snr):
                x = x + FLUX_SCALE / snr * torch.randn(x.shape, generator=generator, device=x.device)
            out.append(self._encoder(torch.cat([x, u], dim=1)))
        return np.asarray(torch.cat(out).double().cpu().numpy())

    @torch.no_grad()
    def recast(self, survey: Survey) -> dict[str, float]:
        """Residuals of twins recast to each other's parameters; twins are in neighbouring rows."""
        teff = survey.parameters[:, 0]
        apart = torch.from_numpy(np.abs(teff - teff[twin_rows(survey)]) >= APART)
        absolute, squared = [], []
        for x, u in self._blocks(survey):
            z = self._encoder(torch.cat([x, u], dim=1))
            twin = torch.arange(len(x), device=x.device) ^ 1
            residual = (self._decoder(torch.cat([z[twin], u], dim=1)) - x) / FLUX_SCALE
            absolute.append(residual.abs().mean(dim=1))
            squared.append(residual.square().mean(dim=1))
        values = {"absolute": torch.cat(absolute).cpu(), "squared": torch.cat(squared).cpu()}
        return {
            f"{name}, {pairs}": float(value[rows].mean())
            for name, value in values.items()
            for pairs, rows in (("all", torch.ones_like(apart)), ("500 K apart", apart))
        }

    def _blocks(self, survey: Survey) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs (n, P) and scaled parameters (n, U) of a survey's blocks, on the device."""
        known = torch.from_numpy(unit_parameters(survey, self._parameters, self._model.ranges)).to(self._device)
        if survey.path not in self._loaded:
            blocks = (network_pixels(flux) for _, flux in survey.blocks("load"))
            inputs = [torch.from_numpy(block).to(self._device) for block in blocks]
            self._loaded[survey.path] = torch.cat(inputs)
        return zip(self._loaded[survey.path].split(BLOCK), known.split(BLOCK), strict=True)

"""Training batches: in the device's memory where the survey fits, streamed from its file where it does not.

The order of the stars is a function of seed and epoch alone, and the same in both cases: blocks of the file are
shuffled, then the stars within each window of several blocks. So a run can be resumed at any step, and
streaming does not change it.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.methods.autoencoder import FLUX_SCALE, FLUX_SHIFT
from model.methods.basis import Basis, scaled
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array
from training.random_streams import Stream, generator
from training.spectral_basis import CPU, parameter_values, training_block, training_spectra
from training.surveys.survey import BLOCK_STARS, Survey

WINDOW = 8
"""Blocks that are shuffled together, and read ahead when streaming: 4,096 stars, 123 MB at 7,514 pixels."""


def order(stars: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order (stars,) of the stars in an epoch."""
    random = generator(Stream.TRAINING_ORDER, epoch, seed=seed)
    blocks = np.array_split(np.arange(stars), range(BLOCK_STARS, stars, BLOCK_STARS))
    chosen = [blocks[i] for i in random.permutation(len(blocks))]
    windows = [np.concatenate(chosen[i : i + WINDOW]) for i in range(0, len(chosen), WINDOW)]
    return np.concatenate([random.permutation(window) for window in windows])


class InputSource(Protocol):
    """A source of network inputs on the training's device."""

    def __call__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """The inputs (n, M), float32, of these rows (n,)."""

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Announce rows that are needed soon."""


@dataclass
class Batches:
    """The batch of any step: inputs (B, M) and scaled parameters (B, U) on the device."""

    source: InputSource
    parameters: torch.Tensor
    batch: int
    seed: int

    def __post_init__(self) -> None:
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch; the stars of an incomplete one are not used."""
        return len(self.parameters) // self.batch

    def __call__(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """The part of the step's batch that belongs to process `rank` of `ranks`."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(len(self.parameters), self.seed, epoch)
        start = index * self.batch
        self.source.expect(self._order[start : start + WINDOW * BLOCK_STARS])
        rows = self._order[start : start + self.batch][rank::ranks]
        return self.source(rows), self.parameters[torch.from_numpy(rows).to(self.parameters.device)]


@dataclass
class Resident:
    """Inputs in the device's memory."""

    data: torch.Tensor

    def __call__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """The inputs of these rows."""
        return self.data[torch.from_numpy(rows).to(self.data.device)]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Nothing to prepare."""


class Streamed:
    """Pixels read from the survey's file, window by window, the next one while this one is used."""

    def __init__(self, survey: Survey, normaliser: Normaliser | None, snr: float, device: torch.device) -> None:
        self._survey, self._normaliser, self._snr, self._device = survey, normaliser, snr, device
        self._pool = ThreadPoolExecutor(1)
        self._block: dict[int, Future[torch.Tensor]] = {}

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Read these rows' blocks in the background; blocks that were not used lately are dropped."""
        for block in dict.fromkeys((rows // BLOCK_STARS).tolist()):
            known = self._block.pop(block) if block in self._block else None
            self._block[block] = known or self._pool.submit(self._read, block)
        while len(self._block) > max(3 * WINDOW, len(rows) // BLOCK_STARS + WINDOW):
            del self._block[next(iter(self._block))]

    def __call__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """The inputs of these rows."""
        self.expect(rows)
        wanted = rows // BLOCK_STARS
        out = torch.empty(len(rows), len(self._survey.wavelength))
        for block in np.unique(wanted):
            mine = torch.from_numpy(wanted == block)
            out[mine] = self._block[block].result()[torch.from_numpy(rows[wanted == block] % BLOCK_STARS)]
        return out.to(self._device, non_blocking=True)

    def _read(self, block: int) -> torch.Tensor:
        start = block * BLOCK_STARS
        flux = self._survey.flux(slice(start, start + BLOCK_STARS))
        return torch.from_numpy(network_pixels(training_block(flux, start, self._normaliser, self._snr)))


def network_pixels(flux: NDArray[np.float32]) -> NDArray[np.float32]:
    """Flux (n, P) scaled as the paper does (appendix A)."""
    return np.float32(FLUX_SCALE) * flux - np.float32(FLUX_SHIFT)


def pixel_source(
    survey: Survey, normaliser: Normaliser | None, snr: float, device: torch.device, resident: bool
) -> InputSource:
    """The survey's pixels, with fixed noise of 1 / `snr`."""
    if not resident:
        return Streamed(survey, normaliser, snr, device)
    data = torch.empty(len(survey), len(survey.wavelength), device=device)
    for rows, flux in training_spectra(survey, normaliser, snr, "load"):
        data[rows] = torch.from_numpy(network_pixels(flux)).to(device)
    return Resident(data)


def coefficients(
    survey: Survey,
    normaliser: Normaliser | None,
    basis: Basis,
    parameters: tuple[str, ...],
    snr: float,
    device: torch.device = CPU,
) -> NDArray[np.float32]:
    """The basis's coefficients (N, K) of a survey with fixed noise of 1 / `snr`, computed on `device`."""
    out = np.empty((len(survey), len(basis.components)), dtype=np.float32)
    terms = torch.from_numpy(basis.terms(parameter_values(survey, parameters))).to(device)
    polynomial, components = (
        torch.from_numpy(rows).to(device) for rows in (basis.polynomial, basis.components)
    )
    for rows, flux in training_spectra(survey, normaliser, snr, "coefficients"):
        residual = torch.from_numpy(flux).to(device).double() - terms[rows] @ polynomial
        out[rows] = (residual @ components.T).cpu().numpy()
    return out


def fits(survey: Survey, device: torch.device) -> bool:
    """Whether the survey's pixels take less than half of the device's free memory."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 * len(survey) * len(survey.wavelength) < free / 2


def unit_parameters(survey: Survey, parameters: tuple[str, ...], ranges: Array) -> NDArray[np.float32]:
    """The survey's parameters (N, U), the training ranges scaled to -1 to 1."""
    return scaled(parameter_values(survey, parameters), ranges).astype(np.float32)

"""Exact derivatives of the emulator's spectra by its labels, and the Fisher information of noisy spectra."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from model.spectra.grid import Array
from training.emulator.emulator import Emulator, derived_inputs, kernels

_STEP = 1e-5
_BATCH = 64


def flux_and_slopes(
    emulator: Emulator, labels: Array, columns: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flux (N, P) of `labels` (N, 21) and its derivatives (N, E, P) by the labels in `columns`, per dex (or K).

    Single precision; no check of the box.
    """
    tensors = emulator.tensors
    scales, weights, components = tensors["scales"], tensors["weights"], tensors["components"]
    amplitude = torch.empty((len(labels), len(components)), dtype=torch.float64)
    by_input = torch.zeros((len(labels), scales.shape[1], len(components)), dtype=torch.float64)
    for scale, (rows, near, far, kernel) in zip(scales, kernels(tensors, labels), strict=True):
        used = scale > 0
        for k in range(rows.start, rows.stop):
            sums = kernel @ torch.column_stack([weights[k], weights[k, :, None] * far])
            amplitude[:, k] = sums[:, 0]
            by_input[:, used, k] = scale[used] * (sums[:, 1:] - near * sums[:, :1])
    inputs = torch.from_numpy(_input_slopes(labels, columns)) / tensors["span"]
    slopes = (inputs @ by_input).float() @ components
    flux = torch.exp(-(tensors["mean"] + amplitude.float() @ components))
    return flux, slopes.mul_(-flux[:, None])


def _input_slopes(labels: Array, columns: Sequence[int]) -> Array:
    """Derivatives (N, E, 47) of the Gaussian processes' inputs by some labels, by central differences."""
    slopes = []
    for column in columns:
        step = np.zeros(labels.shape[1])
        step[column] = _STEP
        slopes.append((derived_inputs(labels + step) - derived_inputs(labels - step)) / (2 * _STEP))
    return np.stack(slopes, axis=1)


def information(emulator: Emulator, labels: Array, columns: Sequence[int]) -> Array:
    """Fisher information (N, E, E) on the labels in `columns` of spectra with unit noise in every pixel."""
    fisher = np.empty((len(labels), len(columns), len(columns)))
    with tqdm(total=len(labels), unit="star", desc="information", disable=None) as bar:
        for start in range(0, len(labels), _BATCH):
            rows = slice(start, start + _BATCH)
            slopes = flux_and_slopes(emulator, labels[rows], columns)[1].double()
            fisher[rows] = (slopes @ slopes.mT).numpy()
            bar.update(len(slopes))
    return fisher

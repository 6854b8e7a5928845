"""What a GPU can do at most, and what a step of training takes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from training.config import NetworkConfig
from training.networks.preprocessing import Frontend
from training.networks.trainer import Processes, Trainer
from training.surveys.survey import Survey

BYTES_PER_WEIGHT = 46
"""Least traffic of a weight in a step: bfloat16 copy (read 4, write 2), forward and backward product (2 and 2),
its gradient in bfloat16 and in single precision (write 2, read 2, write 4), Adam (read 16, write 12)."""

WARM, TIMED = 60, 60
"""Steps before the clock starts, and under it."""


@dataclass(frozen=True)
class Ceilings:
    """The chip's name, rate of bfloat16 products (TFLOP/s) and bandwidth of a copy (GB/s), as measured."""

    name: str
    tflop_per_s: float
    gb_per_s: float

    @classmethod
    def of(cls, device: torch.device) -> Ceilings:
        """Measure them: a product of square matrices, and a copy on the device."""
        cuda = device.type == "cuda"
        size, values = (8192, 2**28) if cuda else (128, 2**20)
        a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
        source = torch.randn(values, device=device)
        target = torch.empty_like(source)
        product = _seconds(lambda: a @ b, device)
        copy = _seconds(lambda: target.copy_(source), device)
        name = torch.cuda.get_device_name(device) if cuda else f"a processor ({os.cpu_count()} cores)"
        return cls(name, 2 * size**3 / product / 1e12, 8 * values / copy / 1e9)

    def shares(self, sizes: tuple[int, int], config: NetworkConfig, step: float) -> dict[str, float | str]:
        """Rates of a training whose step takes `step` seconds, beside the ceilings.

        `sizes` are the weights of autoencoder and adversary. The autoencoder is updated in one step of
        `critic_steps`.
        """
        autoencoder, adversary = sizes[0] / config.critic_steps, sizes[1]
        passes = 3 if config.method == "factordis" else 1
        tflop = 6 * config.batch * (autoencoder + passes * adversary) / 1e12
        gigabytes = BYTES_PER_WEIGHT * (autoencoder + adversary) / 1e9
        arithmetic, memory = tflop / self.tflop_per_s, gigabytes / self.gb_per_s
        return {
            "spectra_per_s": config.batch / step,
            "tflop_per_s": tflop / step,
            "share_of_peak": arithmetic / step,
            "share_of_bandwidth": memory / step,
            "binds": "arithmetic" if arithmetic > memory else "memory",
        }


def seconds_per_step(survey: Survey, frontend: Frontend, config: NetworkConfig, device: torch.device) -> float:
    """The time of a training step, on a network that is thrown away."""
    trainer = Trainer(survey, frontend, config, device, Processes())
    timed = TIMED if device.type == "cuda" else 10
    for _ in range(WARM if device.type == "cuda" else 1):
        trainer.step()
    _wait(device)
    started = time.perf_counter()
    for _ in range(timed):
        trainer.step()
    _wait(device)
    return (time.perf_counter() - started) / timed


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """The shortest time of ten calls."""
    times = []
    for _ in range(12):
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - started)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

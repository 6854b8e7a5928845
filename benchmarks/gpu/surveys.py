"""The surveys of a run on a GPU: those of research/quality.md."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from training.emulator.emulator import Emulator
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

TRAIN, TEST, TEST_XFE = "train", "test", "test_xfe"
SURVEYS = {
    TRAIN: (25_000, 1, False),
    TEST: (25_000, 2, False),
    "validation": (5_000, 3, True),
    TEST_XFE: (25_000, 4, True),
    "validation2": (5_000, 6, False),
}
"""Pairs, seed, and whether members have their own [Fe/H], of each survey: those of research/quality.md."""


def drawn(work: Path, small: bool) -> dict[str, Survey]:
    """The surveys, drawn where they are not in `work` yet, by a process on each core."""
    missing = [(work, name, small) for name in SURVEYS if not (work / f"{name}.h5").exists()]
    if missing:
        processes = 1 if small else min(len(missing), os.cpu_count() or 1)
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(_draw, *zip(*missing, strict=True)))
    with ThreadPoolExecutor(len(SURVEYS)) as threads:
        paths = [work / f"{name}.h5" for name in SURVEYS]
        return dict(zip(SURVEYS, threads.map(Survey.open, paths), strict=True))


def _draw(work: Path, name: str, small: bool) -> None:
    pairs, seed, own_fe_h = SURVEYS[name]
    emulator = Emulator.load().to(best_device())
    synthesize(work / f"{name}.h5", emulator, pairs // 250 if small else pairs, seed, own_fe_h=own_fe_h)


def best_device() -> torch.device:
    """The GPU, or the processor where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

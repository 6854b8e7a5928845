"""Every stream of random numbers in training and evaluation, by name.

A stream is what numpy's SeedSequence gets as entropy: the words of its `Stream`, with the user's seed in place
of `SEED`, then keys such as a row or an epoch. Spawn keys, numpy's way to name streams, would give
other numbers: the survey of a published seed would change, and every figure measured on one.
tests/training/test_random_streams.py shows that all streams differ.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

SEED = None
"""Stands for the user's seed in a stream's words."""


class Stream(Enum):
    """The words of each stream: those of training and surveys contain the user's seed, the rest are fixed."""

    SURVEY_LABELS = (SEED, 1)
    SURVEY_NOISE = (SEED, 2)
    SURVEY_BROADENING = (SEED, 12)
    OBSERVED_LABELS = (SEED, 13)
    OBSERVED_SPECTRA = (SEED, 14)
    CLUSTER_LABELS = (SEED, 15)
    TRAINING_STEP = (SEED, 3)
    TRAINING_ORDER = (SEED, 7)
    TRAINING_NOISE = (0, 4)
    EVALUATION_NOISE = (0, 5)
    PERTURBATION = (0, 7)
    CONTINUUM_NOISE = (0, 8)
    METRIC_NOISE = (0, 10)
    METRIC_REPEATS = (0, 11)
    RANDOM_PARTNERS = (6,)
    RANKED_TWINS = (7,)
    IDEAL_POSTERIORS = (8,)
    FITTED_TWINS = (10,)
    FITTED_NOISE = (11,)
    RANDOM_PAIRS = (12,)
    ADAPTATION = (13,)
    PUBLISHED_ERRORS = (12, SEED)
    """Its seed is the S/N."""


class EmulatorStream(Enum):
    """Streams of the tools that make the emulator, which differ from those of `Stream`."""

    HELD_OUT_SPECTRA = (7, SEED)
    RESPONSE_LABELS = (SEED,)
    FITTED_SUBSET = (SEED,)
    """The same words as response labels, whose seed is another."""


VALIDATION_NOISE, FIRST_REPEAT, SECOND_REPEAT = 9, 10, 11
"""Seeds of torch's generators in validation."""


def entropy(stream: Stream | EmulatorStream, *keys: int, seed: int | None = None) -> list[int]:
    """The words that fix a stream, `seed` where it takes one, and `keys`.

    Raises ValueError for a seed that is missing, or one too many.
    """
    words: tuple[int | None, ...] = stream.value
    if (SEED in words) != (seed is not None):
        raise ValueError(f"{stream.name} takes {'a' if SEED in words else 'no'} seed")
    own = [seed if word is SEED else word for word in words]
    return [word for word in (*own, *keys) if word is not None]


def generator(stream: Stream | EmulatorStream, *keys: int, seed: int | None = None) -> np.random.Generator:
    """A generator of random numbers that `stream`, `keys` and `seed` fix."""
    return np.random.default_rng(entropy(stream, *keys, seed=seed))


def torch_seed(stream: Stream, *keys: int, seed: int) -> int:
    """A seed for torch: 32 bits, all that its generator on the CPU uses."""
    return int(np.random.SeedSequence(entropy(stream, *keys, seed=seed)).generate_state(1)[0])

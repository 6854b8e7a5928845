"""Spectra with ivar that one process prepares and embeds in a second, and the time that one takes.

OMP_NUM_THREADS=1 python benchmarks/embedding.py model/reference.safetensors survey.h5
"""

import sys
import time
from pathlib import Path

import numpy as np

from model.bundle import load_model
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare
from training.random_streams import Stream
from training.surveys.survey import Survey, add_noise

STARS, ONE = 512, 50

model, survey = load_model(Path(sys.argv[1])), Survey.open(Path(sys.argv[2]))
generator = np.random.default_rng(1)
flux = add_noise(survey.flux(slice(0, STARS)), 100, Stream.SURVEY_NOISE, seed=1).astype(np.float64)
ivar = generator.uniform(5e3, 1.5e4, flux.shape)
ivar[generator.random(flux.shape) < 0.05] = 0
stars = [
    Observation(flux=f, parameters=Parameters(*u), ivar=i)
    for f, u, i in zip(flux, survey.parameters[:STARS], ivar, strict=True)
]


def embed(chosen: list[Observation]) -> None:
    """As the service does."""
    model.embed([prepare(star, model.grid, model.normaliser) for star in chosen])


embed(stars)
rates = []
for _ in range(5):
    wall, cpu = time.monotonic(), time.process_time()
    embed(stars)
    rates.append((STARS / (time.monotonic() - wall), 1e3 * (time.process_time() - cpu) / STARS))
alone = []
for star in stars[:ONE]:
    wall = time.monotonic()
    embed([star])
    alone.append(1e3 * (time.monotonic() - wall))
rate, cpu = np.median(rates, axis=0)
print(f"{rate:.0f} spectra/s in one process, {cpu:.2f} ms of CPU each; one alone {np.median(alone):.1f} ms")

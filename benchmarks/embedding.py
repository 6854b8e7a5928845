"""Spectra with ivar that one process prepares and embeds in a second, and the time that one takes.

OMP_NUM_THREADS=1 python benchmarks/embedding.py model/reference.safetensors survey.h5
OMP_NUM_THREADS=1 python benchmarks/embedding.py model/reference.safetensors survey.h5 OLD NEW

With the folders of two revisions they run in turns, a process on each core at once; it prints medians and the
ratio.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from model.bundle import load_model
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare
from training.random_streams import Stream
from training.surveys.survey import Survey, add_noise

ROUNDS = 5


def in_turns(model: Path, survey: Path, checkouts: list[Path]) -> None:
    """The spectra per second of each checkout, all cores together."""
    rates: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    command = [sys.executable, __file__, str(model.resolve()), str(survey.resolve())]
    for _ in range(ROUNDS):
        for checkout, found in rates.items():
            environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
            processes = [
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                for _ in os.sched_getaffinity(0)
            ]
            found.append(sum(float(process.communicate()[0].split()[0]) for process in processes))
    for checkout, found in rates.items():
        print(f"{checkout}: {np.median(found):.0f} spectra/s, all cores ({min(found):.0f} to {max(found):.0f})")
    print(f"ratio {np.divide(*(np.median(rates[checkout]) for checkout in checkouts[::-1])):.2f}")


if sys.argv[3:]:
    in_turns(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
    raise SystemExit

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

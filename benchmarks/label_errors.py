"""How often `p_same` calls true twins different when their labels have errors.

python -m benchmarks.label_errors model/reference.safetensors pairs.h5

SURVEY is one of pairs without noise, such as `chemtwin survey synthesize pairs.h5 --pairs 3000 --seed 78`. Its
first 1,500 pairs get noise of S/N 100 and Gaussian errors in their labels, which the model knows. Pairs with
a star outside the domain do not count.
"""

import sys
from pathlib import Path

import numpy as np

from model.bundle import load_model
from model.similarity.p_same import p_same
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare
from training.random_streams import Stream
from training.surveys.survey import Survey, add_noise

STARS, SNR = 3000, 100.0
ERRORS = ((0.0, 0.0, 0.0), (70.0, 0.0, 0.0), (0.0, 0.12, 0.0), (0.0, 0.0, 0.04), (70.0, 0.12, 0.04))
"""Of Teff in K, log g and [Fe/H]; the last ones are the default model's typical errors."""

model, survey = load_model(Path(sys.argv[1])), Survey.open(Path(sys.argv[2]))
rows = slice(0, min(STARS, len(survey)))
flux = add_noise(survey.flux(rows), SNR, Stream.EVALUATION_NOISE, 0).astype(np.float64)
ivar = np.full(flux.shape[1], SNR**2)
print("| errors of Teff (K), log g, [Fe/H] | pairs | p_same < 0.01 | < 0.1 |\n|---|---|---|---|")
for errors in ERRORS:
    labels = survey.parameters[rows] + np.random.default_rng(0).normal(size=(len(flux), 3)) * errors
    stars = [
        Observation(own, Parameters(*map(float, (*label, *errors))), ivar)
        for own, label in zip(flux, labels, strict=True)
    ]
    found = model.embed([prepare(star, model.grid, model.normaliser) for star in stars])
    inside = np.array([one.in_domain for one in found]).reshape(-1, 2).all(axis=1)
    (first, other), (one, two) = (
        (values[::2][inside], values[1::2][inside])
        for values in map(np.stack, ([each.latent for each in found], [each.covariance for each in found]))
    )
    same = p_same(np.linalg.norm(first - other, axis=1), model.pair_covariance(one, two), None)
    below = " | ".join(f"{np.mean(same < limit):.3f}" for limit in (0.01, 0.1))
    print(f"| {', '.join(f'{error:g}' for error in errors)} | {len(same)} | {below} |")

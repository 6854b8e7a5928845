"""Twins that a GaussDis model finds in a survey of pairs, by distance and likelihood, and its latents' errors.

python benchmarks/twins_by_noise.py model.safetensors test.h5 100 50 30
"""

import sys
from pathlib import Path

from model.bundle import load_model
from model.methods.gaussdis import GaussDis
from training.evaluation.evaluate import twin_rows, twin_search
from training.evaluation.posteriors import posterior_figures, posteriors
from training.surveys.survey import Survey

model, survey = load_model(Path(sys.argv[1])), Survey.open(Path(sys.argv[2]))
assert isinstance(model, GaussDis)
print(f"{model.card.identity}, {len(survey)} stars")
for level in map(float, sys.argv[3:]):
    means, covariances = posteriors(model, survey, level)
    found, _ = posterior_figures(model, means, covariances, twin_rows(survey))
    likelihood = found["likelihood"]
    print(
        f"S/N {level:g}: by distance {twin_search(means, twin_rows(survey)).recovered:.3f}, by likelihood "
        f"{likelihood['fraction']:.3f} ({likelihood['error']:.3f}), chi2 per dimension {found['chi2']:.2f}",
        flush=True,
    )

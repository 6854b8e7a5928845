"""Twins that a network finds in a survey of pairs, by the model's distance and by likelihood.

python benchmarks/network_twins.py faderdis.safetensors validation.h5 test.h5 inf 100 50 30
"""

import sys
from pathlib import Path

from model.bundle import load_model
from training.evaluation.evaluate import embed_survey, twin_rows, twin_search
from training.evaluation.pair_likelihood import PairLikelihood
from training.random_streams import Stream
from training.surveys.survey import Survey

model, validation, test = load_model(Path(sys.argv[1])), *map(Survey.open, map(Path, sys.argv[2:4]))
twin = twin_rows(test)
print(f"{model.card.identity}, {len(test)} stars")
for level in map(float, sys.argv[4:]):
    pairs = PairLikelihood.of(
        embed_survey(model, validation, level, Stream.METRIC_NOISE), twin_rows(validation)
    )
    latents = embed_survey(model, test, level)
    by_distance, by_likelihood = twin_search(latents, twin), pairs.search(latents, twin)
    print(
        f"S/N {level:g}: by distance {by_distance.recovered:.3f}, by likelihood {by_likelihood.recovered:.3f}",
        flush=True,
    )

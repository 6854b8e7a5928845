"""PolyDis ranked by the sum of absolute differences, as the paper's code ranked it, on every tenth star.

python benchmarks/polydis_l1.py MODEL SURVEY
"""

import sys
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from model.bundle import load_model
from training.evaluation.evaluate import embed_survey
from training.surveys.survey import Survey


def main() -> None:
    model, survey = load_model(Path(sys.argv[1])), Survey.open(Path(sys.argv[2]))
    assert survey.twin is not None
    queries = np.arange(0, len(survey), 10)
    print(
        f"{model.card.identity}, {len(queries)} stars among {len(survey)}\n"
        "| S/N | L1 | Euclidean |\n|---|---|---|"
    )
    for snr in (np.inf, 100, 50, 30):
        latents = embed_survey(model, survey, snr)
        fractions = []
        for kind in ("cityblock", "euclidean"):
            alone = 0
            for part in np.array_split(queries, len(queries) // 200):
                distance = cdist(latents[part], latents, kind)
                own = np.arange(len(part))
                distance[own, part] = np.inf
                alone += np.sum(np.sum(distance <= distance[own, survey.twin[part]][:, None], axis=1) == 1)
            fractions.append(alone / len(queries))
        print(f"| {snr:g} | {fractions[0]:.3f} | {fractions[1]:.3f} |")


if __name__ == "__main__":
    main()

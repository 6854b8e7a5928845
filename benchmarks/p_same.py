"""How uniform p_same is over true twins of a noiseless test survey, at several noise levels.

python benchmarks/p_same.py MODEL SURVEY
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import kstest

from model.bundle import load_model
from model.metric import p_same
from training.evaluate import embed_survey
from training.metric import SNR, noise_covariance
from training.survey import Survey


def main() -> None:
    model, survey = load_model(Path(sys.argv[1])), Survey.open(Path(sys.argv[2]))
    assert survey.twin is not None
    noise = noise_covariance(model, survey) * SNR**2
    print(f"{model.card.identity}, {len(survey) // 2} pairs")
    print("| S/N | below 0.01 | below 0.05 | median | largest departure from uniform |\n|---|---|---|---|---|")
    for snr in (np.inf, 100, 50, 30):
        latents = embed_survey(model, survey, snr)
        distance = np.linalg.norm(latents - latents[survey.twin], axis=1)[::2]
        covariance = model.twins + noise / snr**2
        p = p_same(distance, np.broadcast_to(covariance, (len(distance), *covariance.shape)))
        print(
            f"| {snr:g} | {np.mean(p < 0.01):.3f} | {np.mean(p < 0.05):.3f} | {np.median(p):.2f} "
            f"| {kstest(p, 'uniform').statistic:.2f} |"
        )


if __name__ == "__main__":
    main()

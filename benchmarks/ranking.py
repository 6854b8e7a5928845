"""Time to rank every star of a survey against all stars, exactly, as `chemtwin model evaluate` does.

python benchmarks/ranking.py [STARS] [DIMENSIONS]
"""

import os
import platform
import sys
import time

import numpy as np

from training.evaluation.evaluate import doppelgangers


def main() -> None:
    stars, dimensions = (int(value) for value in (*sys.argv[1:], "50000", "50")[:2])
    latents = np.random.default_rng(1).normal(size=(stars, dimensions))
    twin = np.arange(stars) ^ 1
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        doppelgangers(latents, twin)
        seconds.append(time.perf_counter() - start)
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    print(f"{stars} stars, {dimensions} dimensions")
    print(f"median {np.median(seconds):.1f} s of {[round(s, 1) for s in seconds]}")


if __name__ == "__main__":
    main()

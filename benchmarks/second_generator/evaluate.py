"""Before and after adapting the shipped model to the second generator's single stars.

    python -m benchmarks.second_generator.evaluate FOLDER

FOLDER is what `python -m benchmarks.second_generator` filled. Prints, at S/N 100 and 50 before and after:
how many stars have their twin nearest, the chi-square per dimension of twins' differences, how many twins
have p_same above 0.01, its median, and how many stars are outside the domain.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

from model.bundle import REFERENCE, load_model
from model.methods.gaussdis import GaussDis
from model.similarity.p_same import p_same
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, Spectrum, prepare
from training.fitting.adapt import adapt

SNRS = (100.0, 50.0)


def observe(model: GaussDis, path: Path, snr: float, seed: int) -> list[Spectrum]:
    """Prepared spectra with noise of a noiseless survey."""
    with h5py.File(path) as file:
        flux = file["flux"][:].astype(np.float64)
        labels = np.column_stack([file[f"labels/{name}"][:] for name in ("teff", "logg", "fe_h")])
    flux += np.random.default_rng(seed).normal(size=flux.shape) / snr
    ivar = np.full(flux.shape[1], snr**2)
    return [
        prepare(Observation(one, Parameters(*label), ivar), model.grid, model.normaliser)
        for one, label in zip(flux, labels.tolist(), strict=True)
    ]


def judge(model: GaussDis, pairs: list[Spectrum]) -> str:
    """One line about twins in neighbouring rows."""
    embedded = model.embed(pairs)
    latents = np.array([star.latent for star in embedded], dtype=np.float64)
    covariances = np.array([star.covariance for star in embedded], dtype=np.float64)
    distance = np.linalg.norm(latents[:, None] - latents, axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.mean(distance.argmin(axis=1) == (np.arange(len(latents)) ^ 1))
    gap = latents[::2] - latents[1::2]
    pair = model.pair_covariance(covariances[::2], covariances[1::2])
    chi2 = np.einsum("nd,nd->n", gap, np.linalg.solve(pair, gap[..., None])[..., 0]) / gap.shape[1]
    same = p_same(np.linalg.norm(gap, axis=1), pair)
    outside = np.mean([not star.in_domain for star in embedded])
    return (
        f"twin nearest {nearest:.3f} of {len(latents)}, chi2 per dimension {chi2.mean():.2f}, "
        f"p_same > 0.01 {np.mean(same > 0.01):.3f}, median {np.median(same):.2f}, "
        f"outside the domain {outside:.3f}"
    )


def main(folder: Path) -> None:
    """Print the lines."""
    model = load_model(REFERENCE)
    assert isinstance(model, GaussDis)
    singles = observe(model, folder / "singles.h5", SNRS[0], seed=2)
    adapted = adapt(model, singles, np.full(len(singles), -1), "adapted", "second generator")
    print(f"adapted to {adapted.card.training['adapted']}")
    for snr in SNRS:
        pairs = observe(model, folder / "pairs.h5", snr, seed=1)
        print(f"S/N {snr:g} before: {judge(model, pairs)}")
        print(f"S/N {snr:g} after:  {judge(adapted, pairs)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

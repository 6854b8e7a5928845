"""How many fits of latents do not converge, how many steps they take, and whether other starts end lower.

python benchmarks/convergence.py model/reference.safetensors test.h5

Every star of the survey is embedded with noise of its own S/N, between 20 and 2000, with errors and without.
Some are fitted again from random starts. Then the model's own spectra of the corners of the training range are
embedded with the parameters of the opposite corner.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.bundle import load_model
from model.methods.gauss_newton import STEPS
from model.methods.gaussdis import UNCONVERGED, GaussDis
from model.methods.response import Fit, Response
from model.spectra.grid import Array
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, Spectrum, prepare_all
from training.surveys.survey import Survey

STARS_AT_ONCE, STARTS, EVERY, CORNER_LATENTS = 100, 5, 25, 50
LOWER = 1e-3
"""An objective that is lower by this much belongs to another minimum."""

fits: list[tuple[Response, Array, Array, Array, Fit]] = []
_fit = Response.fit


def recorded(
    response: Response, observed: Array, parameters: Array, precision: Array, *others: Any, **options: Any
) -> Fit:
    """`Response.fit`, noted in `fits`."""
    found = _fit(response, observed, parameters, precision, *others, **options)
    fits.append((response, observed, parameters, precision, found))
    return found


def objective(
    response: Response, observed: Array, parameters: Array, precision: Array, latents: Array
) -> Array:
    """What a fit minimises (N,), at latents (N, D)."""
    residual = observed - response(latents, parameters)
    if precision.ndim == 3 and precision.shape[1] == 1:
        weighted = residual * precision[:, 0]
    else:
        weighted = np.matmul(precision, residual[:, :, None])[:, :, 0]
    return 0.5 * (np.sum(residual * weighted, axis=1) + np.sum(latents**2, axis=1))


def noisy(survey: Survey, errors: bool) -> Iterator[list[Observation]]:
    """The survey's stars with noise, `STARS_AT_ONCE` at a time."""
    generator = np.random.default_rng(1 + errors)
    for start in tqdm(range(0, len(survey), STARS_AT_ONCE), disable=None):
        rows = slice(start, start + STARS_AT_ONCE)
        flux = survey.flux(rows)
        snr = np.exp(generator.uniform(np.log(20), np.log(2000), (len(flux), 1)))
        noise = generator.standard_normal(flux.shape) / snr
        ivar = np.broadcast_to(snr**2, flux.shape)
        yield [
            Observation(f, Parameters(*u), i if errors else None)
            for f, u, i in zip(flux + noise, survey.parameters[rows], ivar, strict=True)
        ]


def opposite(model: GaussDis) -> Iterator[list[Observation]]:
    """Spectra of the corners of the range with the parameters of the opposite ones: all corners in a block."""
    generator = np.random.default_rng(2)
    corners = np.array(list(itertools.product(*model.ranges)))
    for _ in range(CORNER_LATENTS):
        latents = generator.normal(size=(len(corners), model.card.latent_dim)) @ model.metric
        opposite = [Parameters(*u) for u in model.ranges.sum(axis=1) - corners]
        for snr in (20.0, 100.0, 2000.0):
            flux = model.decode(latents, corners)
            flux = flux + generator.standard_normal(flux.shape) / snr
            yield [Observation(f, u, np.full(len(f), snr**2)) for f, u in zip(flux, opposite, strict=True)]
        yield [Observation(f, u) for f, u in zip(flux, opposite, strict=True)]


def measure(model: GaussDis, what: str, blocks: Iterable[list[Observation]]) -> None:
    """Embed as the service does, and print what became of it."""
    generator = np.random.default_rng(3)
    count = failed = again = lower = 0
    steps = np.zeros(STEPS + 2, dtype=np.int64)
    for number, block in enumerate(blocks):
        fits.clear()
        spectra = [s for s in prepare_all(block, model.grid, model.normaliser) if isinstance(s, Spectrum)]
        found = model.embed(spectra)
        count += len(found)
        failed += sum(UNCONVERGED in one.warnings for one in found)
        response, *problem, fit = fits[-1]
        steps += np.bincount(fit.steps, minlength=STEPS + 2)
        if number % EVERY == 0:
            least = objective(response, *problem, fit.latents)
            restarts = [
                _fit(response, *problem, generator.normal(size=fit.latents.shape)).latents
                for _ in range(STARTS)
            ]
            ends = np.min([objective(response, *problem, latents) for latents in restarts], axis=0)
            again, lower = again + len(least), lower + int(np.sum(ends < least - LOWER))
    median = int(np.searchsorted(np.cumsum(steps), steps.sum() / 2))
    print(
        f"{what}: {failed} of {count} did not converge; {median} steps in the median, "
        f"{steps.nonzero()[0][-1]} at most; "
        f"of {again} stars {lower} end lower from one of {STARTS} random starts"
    )


def main() -> None:
    """Measure the model and the survey that the command line names."""
    Response.fit = recorded  # type: ignore[method-assign, assignment]
    model, survey = load_model(Path(sys.argv[1])), Survey.open(Path(sys.argv[2]))
    assert isinstance(model, GaussDis)
    measure(model, "with errors", noisy(survey, True))
    measure(model, "without errors", noisy(survey, False))
    measure(model, "from corner to corner", opposite(model))


if __name__ == "__main__":
    main()

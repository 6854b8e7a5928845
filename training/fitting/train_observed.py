"""GaussDis for an observed survey: a trained model, corrected by the survey's own noisy spectra.

    chemtwin model train survey.h5 --start model/branch.safetensors --out model.safetensors

The start says which latents there are, and how spectra of one chemistry change with Teff, log g and [Fe/H].
The survey alone cannot say that: without a twin of every star, latents may turn with the parameters. What it
can say it does, by maximum marginal likelihood (`training.fitting.marginal_likelihood`). One in five of its
groups is left out of the fit: their siblings correct the size of the misfit, and judge the model. Where there
are few groups, all are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import theilslopes

from model.errors import ChemtwinError, InputError
from model.methods.gaussdis import GaussDis
from model.methods.measured_stars import Measured
from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum
from training.checkpoint import write_checkpoint
from training.evaluation.siblings import Members
from training.fitting import marginal_likelihood
from training.fitting.adapt import measured, unadapted, with_floor, with_mean_residual, with_sibling_metric
from training.fitting.choose_misfit import factor_of, squares
from training.fitting.enough_stars import FEWEST_GROUPS_TO_FIT, FEWEST_TO_TRAIN
from training.fitting.gaussdis import with_tensors
from training.fitting.observed_basis import with_observed_components
from training.random_streams import Stream, generator
from training.surveys.observations import prepared
from training.surveys.survey import Survey
from training.surveys.used_surveys import record

LEFT_OUT = 5
"""One in so many groups is left out."""

SAMPLE = 1000
"""Single stars whose spectra are kept: for the mean residual, the metric and the report."""

MOST_SINGLE = 50_000
"""Single stars that are measured; of more as many are drawn. A fit takes no more, each about once."""

MOST_SIBLINGS = 10_000
"""Siblings whose spectra are kept in memory, whole groups: those that are left out are of these."""

FACTOR_SD = 0.1
"""Standard deviation of the prior of the logarithm of the misfit's factor: few siblings hardly know it."""

STEP = 1.2
"""Factor by which the misfit changes to see what siblings' distances depend on."""

STATE, RUN = "state.pt", "run.json"


@dataclass(frozen=True)
class Trained:
    """A model that was trained on an observed survey, and what judges it.

    Attributes
    ----------
    model : GaussDis
        The model.
    losses : list of float
        Minus the log density of each step, per star.
    left_out : Members
        The siblings that it was not fitted to.
    sample : sequence of Spectrum
        Some of the single stars.
    unusable : dict of str to str
        Why a star was not used.
    """

    model: GaussDis
    losses: list[float]
    left_out: Members
    sample: Sequence[Spectrum]
    unusable: dict[str, str]


def train_observed(start: GaussDis, survey: Survey, name: str, run: Path, device: torch.device) -> Trained:
    """Train GaussDis on an observed survey.

    Parameters
    ----------
    start : GaussDis
        The model to start from. What it learned of other observed stars is dropped.
    survey : Survey
        Spectra with ivar, masked pixels and errors of labels, and groups of siblings.
    name : str
        The model's name.
    run : Path
        Folder of the checkpoint. A stopped run goes on from it.
    device : torch.device
        Where the likelihood is computed.

    Returns
    -------
    Trained
        The model, and what judges it.

    Raises
    ------
    InputError
        For a survey without errors, with too few stars, or a checkpoint of another run.
    """
    if survey.noise is None:
        raise InputError(f"{survey.path} has no errors of its pixels: neither ivar nor error, and no S/N")
    survey.check_grid(start.grid)
    given, start = start, unadapted(start)
    group = _groups(survey)
    _check_enough(survey, len(group), "")
    state, save = _checkpoint(run, start, survey)
    unusable: dict[str, str] = {}
    known: dict[int, Spectrum] = {}
    wanted, kept = _wanted(group)
    for block in _usable(start, survey, "read siblings", unusable, kept):
        known |= block
    spectra = list(known.values())
    start = with_observed_components(with_mean_residual(start, spectra), spectra)
    start = with_residual_variance(start, spectra)
    stars, used = _measured(start, survey, unusable, wanted)
    _check_enough(survey, len(used), f" that {start.card.identity} can use")
    fitted, out = _split(group, used, np.array(list(known)))
    siblings = np.unique(group[used[fitted]], return_counts=True)[1]
    chosen = Measured(*(array[fitted] for array in stars))
    model, losses = marginal_likelihood.fit(
        start, chosen, group[used[fitted]], device=device, state=state, save=save
    )
    judges = used[out].tolist()
    members = Members([known[row] for row in judges], [survey.star_id[row] for row in judges], group[judges])
    factor = _factor(model, members) if len(members.group) else 1.0
    model = with_tensors(model, model.card, misfit=factor * model.misfit)
    sample = [known[row] for row in used[fitted].tolist() if row in known]
    training = start.card.training | {
        "observed": {
            "stars": len(fitted),
            "groups": int((siblings > 1).sum()),
            "siblings": int(siblings[siblings > 1].sum()),
            "from": start.card.identity,
            "factor": round(factor, 2),
            **record(survey),
        }
    }
    model = with_floor(model, sample, stars, name, training)
    return Trained(with_sibling_metric(given, model, sample), losses, members, sample, unusable)


def with_residual_variance(model: GaussDis, spectra: Sequence[Spectrum]) -> GaussDis:
    """The model with the residual variance that is usual outside its basis for observed `spectra`.

    Of a star it is taken as a + b s^2, where s^2 is the median variance of the pixels' noise: residuals of sky
    lines are in proportion to the noise, errors of the continuum or of the resolution are not. Lines through
    all pairs of stars give the median a, and b is the median of what remains. Of b that part counts as noise
    which pixels weighted with ivar have: sky lines have little weight. Of many stars no more than twice
    `SAMPLE` are looked at.
    """
    spectra = spectra[:: max(len(spectra) // SAMPLE, 1)]
    noise = np.array([np.median(1 / s.ivar[s.ivar > 0]) for s in spectra])
    stars = measured(model, spectra)
    usual = theilslopes(stars.unexplained / noise, 1 / noise, method="joint")
    rebuilt = model.basis.rebuild(stars.coefficients, stars.parameters)
    excess = [
        weighted_excess(s, own, stars.coefficients.shape[1]) for s, own in zip(spectra, rebuilt, strict=True)
    ]
    counted = theilslopes(excess, [s.ivar.mean() for s in spectra], method="joint")
    found = np.maximum([usual.slope, usual.intercept, counted.intercept], 0.0)
    return with_tensors(model, model.card, residual_variance=found)


def weighted_excess(spectrum: Spectrum, fitted: Array, numbers: int) -> float:
    """By how much the residuals from flux (P,) with fitted `numbers` exceed noise, in units of it, by ivar."""
    freedom = max(int((spectrum.ivar > 0).sum()) - numbers, 1)
    return float(np.square(spectrum.flux - fitted) @ spectrum.ivar / freedom - 1)


def _factor(model: GaussDis, members: Members) -> float:
    """The factor of the misfit with which siblings that it was not fitted to are as far apart as expected.

    Its logarithm is drawn to 0 by a prior, the more the less the siblings' distances depend on it.
    """

    def scaled(factor: float) -> GaussDis:
        return with_tensors(model, model.card, misfit=factor * model.misfit)

    siblings = members.spectra, members.group
    found = factor_of(lambda factor: [scaled(factor)], [siblings])
    (less, count), (more, _) = (squares(scaled(found * step), *siblings) for step in (1 / STEP, STEP))
    slope = np.log(less / more) / (2 * np.log(STEP))
    precision = 0.5 * count * model.card.latent_dim * slope**2 * FACTOR_SD**2
    return float(found ** (precision / (1 + precision)))


def _groups(survey: Survey) -> NDArray[np.int64]:
    """The number (N,) of each star's group, single stars with groups of their own."""
    rows = np.arange(len(survey))
    if survey.group is not None:
        return np.where(survey.group >= 0, survey.group, survey.group.max() + 1 + rows)
    return rows if survey.twin is None else np.minimum(rows, np.where(survey.twin < 0, rows, survey.twin))


def _check_enough(survey: Survey, stars: int, which: str) -> None:
    """Raise InputError if `stars` are too few to train on; `which` says of what kind they are."""
    if stars < FEWEST_TO_TRAIN:
        raise InputError(
            f"{survey.path} has {stars} stars{which}: training takes {FEWEST_TO_TRAIN}. Adapt a model to them "
            "(chemtwin model adapt)"
        )


def _wanted(group: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which (N,) stars are measured, and of which (N,) the spectra are kept in memory.

    All siblings are measured, and no more than `MOST_SINGLE` single stars. Kept are the siblings, in whole
    groups no more than `MOST_SIBLINGS`, and a sample of the single stars.
    """
    _, own, size = np.unique(group, return_inverse=True, return_counts=True)
    random = generator(Stream.ADAPTATION)
    alone = random.permutation(np.flatnonzero(size[own] == 1))
    groups = random.permutation(np.flatnonzero(size > 1))
    groups = groups[np.cumsum(size[groups]) <= MOST_SIBLINGS]
    wanted, kept = size[own] > 1, np.isin(own, groups)
    wanted[alone[:MOST_SINGLE]] = kept[alone[:SAMPLE]] = True
    return wanted, kept


def _usable(
    model: GaussDis, survey: Survey, description: str, unusable: dict[str, str], wanted: NDArray[np.bool_]
) -> Iterator[dict[int, Spectrum]]:
    """Spectra by row of those of the `wanted` (N,) that can be used; `unusable` gets why others cannot."""
    for block in prepared(survey, model, description, wanted):
        usable: dict[int, Spectrum] = {}
        for row, spectrum in block:
            if isinstance(spectrum, ChemtwinError):
                unusable[survey.star_id[row]] = str(spectrum)
            elif outside := model.outside(spectrum.parameters):
                unusable[survey.star_id[row]] = "; ".join(outside)
            else:
                usable[row] = spectrum
        if usable:
            yield usable


def _measured(
    model: GaussDis, survey: Survey, unusable: dict[str, str], wanted: NDArray[np.bool_]
) -> tuple[Measured, NDArray[np.int64]]:
    """The coefficients of usable stars among `wanted` (N,), covariances in single precision, and their rows."""
    parts, rows = [], []
    for block in _usable(model, survey, "measure", unusable, wanted):
        part = model.measure(list(block.values()))
        parts.append(part._replace(covariances=part.covariances.astype(np.float32)))
        rows += list(block)
    if not rows:
        raise InputError(f"{survey.path}: {model.card.identity} can use no star, {_first(unusable)}")
    return Measured(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))), np.array(rows, np.int64)


def _first(unusable: dict[str, str]) -> str:
    return next(f"{star_id} for one: {reason}" for star_id, reason in unusable.items())


def _split(
    group: NDArray[np.int64], used: NDArray[np.int64], known: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the `used` rows are fitted to, and which are of the groups that are left out, all if few.

    Groups are left out of which the spectra are `known`.
    """
    own = group[used]
    numbers, size = np.unique(own[np.isin(used, known)], return_counts=True)
    siblings = generator(Stream.ADAPTATION).permutation(numbers[size > 1])
    few = len(siblings) < FEWEST_GROUPS_TO_FIT
    out = np.isin(own, siblings if few else siblings[: -(-len(siblings) // LEFT_OUT)])
    return np.flatnonzero(~out), np.flatnonzero(out)


def _checkpoint(
    run: Path, start: GaussDis, survey: Survey
) -> tuple[dict[str, Any] | None, Callable[[dict[str, Any]], None]]:
    """The state of a stopped run in a folder, None for a new one, and the function that saves it there."""
    described = json.dumps({"start": start.card.identity, "survey": survey.identity()})
    run.mkdir(parents=True, exist_ok=True)
    if not (run / STATE).exists():
        (run / RUN).write_text(described)
        return None, lambda state: write_checkpoint(run / STATE, state)
    if (run / RUN).read_text() != described:
        raise InputError(f"{run} holds a checkpoint of another run: remove it, or write to another file")
    state = torch.load(run / STATE, weights_only=True)
    return state, lambda state: write_checkpoint(run / STATE, state)

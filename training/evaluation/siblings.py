"""Do siblings find each other? Scores on groups of real stars that share their chemistry.

    chemtwin model siblings model/reference.safetensors stars.h5 --siblings siblings.csv

Every score is of ordered pairs (star, other star) of the groups' members. Where a model or a metric was learned
from siblings, the row of a star comes from the one learned without its group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from model.methods.base import Model
from model.methods.basis import design
from model.similarity.p_same import P_SAME_LIMIT, fe_h_difference, p_same
from model.spectra.grid import Array
from model.spectra.spectrum import Spectrum

FAR = 0.15
"""Clusters whose median [Fe/H] differ by more (dex) are certainly different."""

TEFF_STEPS = (100.0, 200.0, 400.0, np.inf)
"""Differences in Teff (K) up to which siblings are counted together."""

SMALLEST = 1e-300
RIDGE = 0.1
"""Fraction of the mean variance that is added to each abundance's variance within groups."""


@dataclass(frozen=True)
class Scores:
    """How well siblings find each other.

    Attributes
    ----------
    nearest : float
        Fraction of stars whose nearest other star is a sibling.
    auc : float
        Area under the ROC curve, pairs of siblings against other pairs.
    doppelganger_rate : float
        Fraction of other pairs that are closer than the median pair of siblings; mean over the groups.
    accepted, median : float or None
        Fraction of siblings with `p_same` above 0.01, and their median `p_same`.
    far_accepted : float or None
        Fraction of pairs of groups more than 0.15 dex apart in [Fe/H] with `p_same` above 0.01.
    """

    nearest: float
    auc: float
    doppelganger_rate: float
    accepted: float | None = None
    median: float | None = None
    far_accepted: float | None = None


@dataclass(frozen=True)
class Members:
    """The members of groups: N prepared `spectra`, their ids, and the number of each one's `group` (N,)."""

    spectra: Sequence[Spectrum]
    star_ids: Sequence[str]
    group: NDArray[np.int64]

    @property
    def fe_h(self) -> tuple[Array, Array]:
        """[Fe/H] (N,) and its errors (N,)."""
        parameters = [s.parameters for s in self.spectra]
        return np.array([p.fe_h for p in parameters]), np.array([p.fe_h_err or 0.0 for p in parameters])


Distances = Callable[[int], tuple[Array, Array | None]]
"""Takes a group; gives distances and p_same (N, N) learned without it."""


def always(distance: Array, same: Array | None = None) -> Distances:
    """Distances and p_same (N, N) that were learned from no group."""
    return lambda left_out: (distance, same)


def scores(members: Members, distances: Distances) -> tuple[Scores, Array | None]:
    """The scores of a way to compare stars, and the p_same (N, N) of each star (row) with the others."""
    count = len(members.group)
    apart, same = np.zeros((count, count)), np.zeros((count, count))
    known = True
    for number in np.unique(members.group):
        distance, probability = distances(int(number))
        rows = members.group == number
        apart[rows] = distance[rows]
        known = known and probability is not None
        if probability is not None:
            same[rows] = probability[rows]
    return _scores(members, apart, same if known else None), same if known else None


def _scores(members: Members, apart: Array, same: Array | None) -> Scores:
    group, fe_h = members.group, members.fe_h[0]
    others = ~np.eye(len(group), dtype=bool)
    siblings = (group[:, None] == group) & others
    strangers = group[:, None] != group
    closest = np.argmin(np.where(others, apart, np.inf), axis=1)
    ranks = rankdata(np.concatenate([apart[siblings], apart[strangers]]))
    first, second = int(siblings.sum()), int(strangers.sum())
    auc = 1 - (ranks[:first].sum() - first * (first + 1) / 2) / (first * second)
    rates = [
        np.mean(apart[strangers] <= np.median(apart[siblings & (group == g)[:, None]]))
        for g in np.unique(group)
    ]
    result = Scores(float(np.mean(group[closest] == group)), float(auc), float(np.mean(rates)))
    if same is None:
        return result
    median = np.array([np.median(fe_h[group == g]) for g in group])
    far = np.abs(median[:, None] - median) > FAR
    return dataclasses.replace(
        result,
        accepted=float(np.mean(same[siblings] > P_SAME_LIMIT)),
        median=float(np.median(same[siblings])),
        far_accepted=float(np.mean(same[far] > P_SAME_LIMIT)) if far.any() else None,
    )


def by_p_same(distances: Distances) -> Distances:
    """The same pairs ranked by p_same, with [Fe/H] in it, instead of by the distance of latents."""

    def ranked(left_out: int) -> tuple[Array, Array | None]:
        apart, same = distances(left_out)
        return (apart if same is None else -np.log(np.maximum(same, SMALLEST))), same

    return ranked


def by_model(members: Members, model: Model) -> tuple[Array, Array | None]:
    """Latent distances and p_same (N, N), with [Fe/H] where the model removes it from the latent."""
    embeddings = model.embed(members.spectra)
    latents = np.array([e.latent for e in embeddings], dtype=np.float64)
    distance = np.linalg.norm(latents[:, None] - latents, axis=2)
    if any(e.covariance is None for e in embeddings):
        return distance, None
    covariances = np.array([e.covariance for e in embeddings], dtype=np.float64)
    fe_h, error = members.fe_h
    same = np.zeros_like(distance)
    for row in range(len(latents)):
        pair = model.pair_covariance(covariances[row][None], covariances)
        if pair is None:
            return distance, None
        away = fe_h_difference(fe_h, error, fe_h[row], error[row]) if "fe_h" in model.parameter_names else None
        same[row] = p_same(distance[row], pair, away)
    return distance, same


def by_flux(members: Members, model: Model) -> Mapping[str, Array]:
    """Distances (N, N) of raw flux, of flux less a polynomial of u, and of PolyDis."""
    flux = np.array([s.flux for s in members.spectra])
    ivar = np.array([s.ivar for s in members.spectra])
    parameters = np.array([s.parameters.values(model.parameter_names) for s in members.spectra])
    monomials = design(parameters, model.ranges, 1)
    residual = flux - monomials @ np.linalg.lstsq(monomials, flux, rcond=None)[0]
    variance = np.where(ivar > 0, 1 / np.maximum(ivar, 1e-30), np.inf)
    coefficients = model.basis.project(flux, parameters, variance)
    return {
        "raw flux": _masked(flux, ivar),
        "flux less a polynomial of u": _masked(residual, ivar),
        "PolyDis": np.linalg.norm(coefficients[:, None] - coefficients, axis=2),
    }


def by_abundances(members: Members, abundances: Array) -> Distances:
    """Distances of abundances (N, E), in units of their scatter within the other groups."""

    def distances(left_out: int) -> tuple[Array, None]:
        used = members.group != left_out
        deviations = np.concatenate(
            [
                abundances[used & (members.group == g)] - abundances[used & (members.group == g)].mean(axis=0)
                for g in np.unique(members.group[used])
            ]
        )
        within = np.cov(deviations.T)
        within += RIDGE * np.trace(within) / len(within) * np.eye(len(within))
        white = abundances @ np.linalg.cholesky(np.linalg.inv(within))
        return np.linalg.norm(white[:, None] - white, axis=2), None

    return distances


def lonely(members: Members, same: Array) -> list[str]:
    """Ids of the stars that no sibling accepts."""
    siblings = (members.group[:, None] == members.group) & ~np.eye(len(members.group), dtype=bool)
    accepted = np.where(siblings, same, 0.0).max(axis=1) > P_SAME_LIMIT
    return [star_id for star_id, known in zip(members.star_ids, accepted, strict=True) if not known]


def accepted_by_teff(members: Members, same: Array) -> list[tuple[float, int, float]]:
    """How many pairs of siblings accept each other, the farther they are apart in Teff.

    Parameters
    ----------
    members : Members
        The N members.
    same : array (N, N)
        Their p_same.

    Returns
    -------
    list of (float, int, float)
        For each of `TEFF_STEPS` that has pairs: the largest difference (K), how many pairs, and the fraction of
        them with `p_same` above 0.01.
    """
    teff = np.array([one.parameters.teff for one in members.spectra])
    first, second = np.nonzero(np.triu(members.group[:, None] == members.group, 1))
    step = np.searchsorted(TEFF_STEPS, np.abs(teff[first] - teff[second]))
    accepted = same[first, second] > P_SAME_LIMIT
    return [
        (TEFF_STEPS[number], int((step == number).sum()), float(accepted[step == number].mean()))
        for number in np.unique(step).tolist()
    ]


def table(rows: Mapping[str, Scores]) -> str:
    """The scores of several ways to compare stars, one a line."""
    width = max(map(len, rows))
    head = f"{'':{width}}  nearest    AUC  doppelgangers  siblings accepted  median p_same  far accepted"
    return "\n".join([head, *(f"{name:{width}}  {_line(row)}" for name, row in rows.items())])


def _line(row: Scores) -> str:
    text = f"{row.nearest:7.3f}  {row.auc:5.3f}  {100 * row.doppelganger_rate:11.2f} %"
    if row.accepted is None:
        return text
    far = "" if row.far_accepted is None else f"  {row.far_accepted:12.3f}"
    return f"{text}  {row.accepted:17.3f}  {row.median:13.2f}{far}"


def _masked(values: Array, ivar: Array) -> Array:
    """Root mean square differences (N, N) over the pixels that are good in both stars."""
    good = (ivar > 0).astype(np.float64)
    filled = values * good
    squares = (filled**2) @ good.T
    return np.sqrt(np.maximum(squares + squares.T - 2 * filled @ filled.T, 0) / np.maximum(good @ good.T, 1))

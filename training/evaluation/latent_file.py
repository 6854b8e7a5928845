"""Any method's latents of a survey, measured exactly as a model's: research/benchmark.md.

    chemtwin lab evaluate-latents mine.npz --survey test.h5 --limit research/report/limit.json --out mine.json

The npz file has `star_id` (N,) and, for each noise level, `latent_<S/N>` (N, D): `latent_inf`, `latent_100`.
Of latents that are posterior means, `covariance_<S/N>` (N, D, D) has the covariances, `prior` (D, D) that of
the prior, the unit matrix if it is not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.similarity.likelihood_ratio import Likelihood
from model.spectra.grid import Array
from training.evaluation import probes
from training.evaluation.evaluate import twin_rows, twin_search
from training.evaluation.limit import siblings, survey_name
from training.evaluation.posteriors import likelihood_recovery
from training.evaluation.rates import random_pairs, rates_by_way
from training.reports.markdown import table
from training.surveys.survey import Survey

LATENT, COVARIANCE, PRIOR = "latent_", "covariance_", "prior"
COUNTS = np.array([1, 10, 100, 1000])
"""Numbers of doppelgangers of figure 3 that are reported."""

NAMED = 3
"""Stars that a message names."""

TWINS = (
    "Fraction of stars with fewer than N doppelgangers, stars at most as far as the twin (figure 3): with "
    "N = 1 the twin is the nearest of all. In brackets the fraction of the limit, where it was measured."
)
GROUPS = "Group finding, and the fraction of random pairs at least as alike as the median pair of siblings."
LEFT = "Fraction of each parameter's variance that a regressor predicts from the noiseless latents."


@dataclass(frozen=True)
class LatentFile:
    """Latents of a survey's stars, in the survey's order.

    Attributes
    ----------
    latents : dict of str to array (N, D)
        By noise level, "inf" or the S/N.
    covariances : dict of str to array (N, D, D)
        Posterior covariances of some of the levels.
    prior : array (D, D)
        The covariance of the latents' prior.
    """

    latents: dict[str, Array]
    covariances: dict[str, Array]
    prior: Array

    @classmethod
    def read(cls, path: Path, survey: Survey) -> LatentFile:
        """Read an npz file.

        Raises
        ------
        InputError
            For a file that is no npz, has other stars than `survey` or none, or arrays of a wrong shape.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (ValueError, OSError, AttributeError) as error:
            raise InputError(f"{path} is not an npz file of numbers and text: {error}") from error
        rows = _rows(arrays.pop("star_id", np.array([])), survey, path)
        levels = sorted(
            (_level(name, path) for name in arrays if name.startswith(LATENT)), key=float, reverse=True
        )
        if not levels:
            raise InputError(f"{path} has no latents: an array {LATENT}inf or {LATENT}100 for each noise level")
        size = arrays[LATENT + levels[0]].shape[-1]
        shapes: dict[str, tuple[int, ...]] = {f"{LATENT}{level}": (len(rows), size) for level in levels}
        shapes |= {f"{COVARIANCE}{level}": (len(rows), size, size) for level in levels} | {PRIOR: (size, size)}
        for name, values in arrays.items():
            if name not in shapes:
                raise InputError(f"{path} has an unknown array {name}; known are {', '.join(shapes)}")
            if values.shape != shapes[name] or not _is_finite(values):
                raise InputError(f"{path}: {name} must be finite numbers of shape {shapes[name]}")
        values = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
        return cls(
            {level: values[LATENT + level][rows] for level in levels},
            {level: values[COVARIANCE + level][rows] for level in levels if COVARIANCE + level in values},
            values.get(PRIOR, np.eye(size)),
        )

    def likelihood(self, level: str) -> Likelihood | None:
        """The posteriors at a level, scaled to a unit prior; None without covariances."""
        if level not in self.covariances:
            return None
        unit = np.linalg.inv(np.linalg.cholesky(self.prior)).T
        return Likelihood.of(self.latents[level] @ unit, unit.T @ self.covariances[level] @ unit)


def _rows(ids: NDArray[Any], survey: Survey, path: Path) -> NDArray[np.intp]:
    """Rows of the file (N,) in the survey's order. Raises InputError unless each star is there once."""
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in ids.reshape(-1).tolist()]
    row = {name: i for i, name in enumerate(names)}
    if len(row) < len(names):
        raise InputError(f"{path}: {len(names) - len(row)} star_id are there twice")
    for text, wrong in (
        ("lacks", [name for name in survey.star_id if name not in row]),
        (f"has stars that {survey.path} lacks:", sorted(set(row) - set(survey.star_id))),
    ):
        if wrong:
            raise InputError(f"{path} {text} {', '.join(wrong[:NAMED])} ({len(wrong)} stars)")
    return np.array([row[name] for name in survey.star_id], dtype=np.intp)


def _level(name: str, path: Path) -> str:
    """The noise level in an array's name. Raises InputError for one that is no S/N."""
    level = name.removeprefix(LATENT)
    try:
        known = float(level) > 0
    except ValueError:
        known = False
    if not known:
        raise InputError(f"{path}: {name} names no S/N: {LATENT}inf, {LATENT}100")
    return level


def _is_finite(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iuf" and bool(np.isfinite(values).all())


def measure_latents(
    path: Path, survey: Survey, removed: tuple[str, ...], limits: dict[str, Any]
) -> dict[str, Any]:
    """Measure the latents in an npz file.

    Parameters
    ----------
    path : Path
        The file.
    survey : Survey
        Pairs or groups without noise.
    removed : tuple of str
        The parameters u that the method was given.
    limits : dict
        The content of limit.json, {} where the limit is not known.

    Returns
    -------
    dict
        For pairs `twins` and `limit` by noise level, for groups `groups` and `rates`; `dependence` on u where
        there are noiseless latents.

    Raises
    ------
    InputError
        For a wrong file, a survey of neither kind or with noise, and for pairs that differ in [Fe/H] where it
        was not removed.
    """
    if survey.own_fe_h and "fe_h" not in removed:
        raise InputError(f"twins of {survey.path} differ in [Fe/H]: measure methods that remove it")
    survey.check_noiseless()
    entry = LatentFile.read(path, survey)
    found: dict[str, Any] = {"survey": survey_name(survey), "stars": len(survey), "removed": list(removed)}
    known = limits.get(survey_name(survey), {})
    observer = known.get("removed", {}).get(", ".join(removed), {}) if known.get("stars") == len(survey) else {}
    if survey.twin is not None:
        found["twins"] = {level: _twins(entry, level, survey) for level in entry.latents}
        found["limit"] = {
            level: at["recovered"]["fraction"]
            for level, at in observer.get("twins", {}).items()
            if level in entry.latents
        }
    elif survey.group is not None:
        near, far = siblings(survey.group), random_pairs(survey.group)
        fe_h = survey.parameters[:, 2] if "fe_h" in removed else None
        found["groups"] = {level: probes.group_finding(z, survey.group) for level, z in entry.latents.items()}
        found["rates"] = {
            level: rates_by_way(z, entry.likelihood(level), near, far, fe_h)
            for level, z in entry.latents.items()
        }
    else:
        raise InputError(f"{survey.path} holds neither twins nor groups")
    if "inf" in entry.latents:
        found["dependence"] = probes.dependence_on(survey, removed, entry.latents["inf"])
    return found


def _twins(entry: LatentFile, level: str, survey: Survey) -> dict[str, Any]:
    """The twin search at one noise level."""
    twin = twin_rows(survey)
    search = twin_search(entry.latents[level], twin, float(level))
    curve = dict(zip(map(str, COUNTS), search.fewer_than(COUNTS).tolist(), strict=True))
    found = {**search.summary(), "fewer_than": curve}
    stars = entry.likelihood(level)
    return found if stars is None else found | {"likelihood": likelihood_recovery(stars, twin)}


def latents_report(found: dict[str, Any]) -> str:
    """The figures of `measure_latents` as Markdown."""
    head = f"{found['survey']}, {found['stars']} stars, {', '.join(found['removed'])} removed."
    parts = [head]
    if "twins" in found:
        parts += [TWINS, _twins_table(found)]
    if "groups" in found:
        ways = list(next(iter(found["rates"].values())))
        rows = [
            [
                _name(level),
                *(f"{at[key]:.3f}" for key in ("members", "adjusted_rand", "homogeneity")),
                *(f"{100 * found['rates'][level][way]['fraction']:.4f}" for way in ways),
            ]
            for level, at in found["groups"].items()
        ]
        columns = [
            "noise",
            "members",
            "K-means adjusted Rand",
            "homogeneity",
            *(f"rate by {w}, %" for w in ways),
        ]
        parts += [GROUPS, table(columns, rows)]
    if "dependence" in found:
        rows = [
            [regressor, *(f"{value:.3f}" for value in fractions.values())]
            for regressor, fractions in found["dependence"].items()
        ]
        parts += [LEFT, table(["regressor", *found["removed"]], rows)]
    return "\n\n".join(parts)


def _twins_table(found: dict[str, Any]) -> str:
    rows = []
    for level, at in found["twins"].items():
        best = found["limit"].get(level)
        fractions = [at["recovered"], *([at["likelihood"]["fraction"]] if "likelihood" in at else [])]
        first = [f"{f:.3f}" + (f" ({f / best:.2f})" if best else "") for f in fractions]
        curve = [f"{at['fewer_than'][str(count)]:.3f}" for count in COUNTS[1:]]
        rows.append([_name(level), first[0], *curve, f"{at['auc']:.4f}", *(first[1:] or ["-"])])
    columns = ["noise", *(f"N = {count}" for count in COUNTS), "ROC area", "nearest by likelihood"]
    return table(columns, rows)


def _name(level: str) -> str:
    return "none" if level == "inf" else f"S/N {level}"

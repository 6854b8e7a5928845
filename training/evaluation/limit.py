"""The limit: the upper bound on twin recovery, set by the noise alone and reached by the ideal observer.

    chemtwin lab limit test.h5 test_xfe.h5 groups.h5 --report limit

The ideal observer is given u, the derivatives of the spectra by the abundances and the distribution of these;
its estimate of a star's abundances is Gaussian about the truth with the inverse of the Fisher information as
its covariance. docs/explanation/limit.md has the formulas and the figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.similarity.likelihood_ratio import ranked_doppelgangers, shortlists
from model.spectra.grid import Array
from training.emulator.derivatives import information
from training.emulator.emulator import Emulator
from training.evaluation.ideal_observer import IdealObserver, emulator_labels, varied
from training.evaluation.limit_fits import against_fits
from training.random_streams import Stream, generator
from training.reports.html_page import publish
from training.reports.markdown import table
from training.surveys.survey import Survey

REMOVED = (("teff", "logg", "fe_h"), ("teff", "logg"))
"""The choices of u."""

LEVELS = (np.inf, 100.0, 70.0, 50.0, 30.0, 20.0)
GROUP_LEVELS = (100.0, 50.0)
HIGHEST = 1e4
"""The S/N that stands for no noise."""

CHECKED = 20
"""Queries per noise level that are ranked among all stars, to check the shortlist."""

LIMIT = (
    "Fraction of stars whose twin the ideal observer finds, with standard errors: first of all others, or "
    "among the first ten; and how many of the checked stars change when all candidates are ranked exactly. "
    "Below it, the same with abundances fitted to noisy spectra."
)


def _fraction(hits: int, of: int) -> dict[str, float]:
    found = hits / of
    return {"fraction": found, "error": float(np.sqrt(found * (1 - found) / of))}


def doppelganger_rate(near: Array, far: Array, unlike: int = 0) -> dict[str, float]:
    """Fraction of random pairs at least as alike as the median pair of siblings, from the similarities of both.

    `unlike` is a number of extra random pairs that are known to be less alike.
    """
    hits, pairs = int(np.sum(far >= np.median(near))), len(far) + unlike
    return _fraction(hits, pairs)


def recovery(observer: IdealObserver, twin: NDArray[np.int64], pairs: int, snr: float) -> dict[str, Any]:
    """Fraction of stars, one of each of `pairs` pairs picked at random, whose twin ranks first of all.

    They are those that models are ranked on (`training.evaluation.posteriors`).
    """
    stars = observer.draw(min(snr, HIGHEST))
    first = np.flatnonzero(np.arange(len(twin)) < twin)
    picked = generator(Stream.RANKED_TWINS).permutation(first)[:pairs]
    count = ranked_doppelgangers(stars, twin, picked)
    among_all = ranked_doppelgangers(stars, twin, picked[:CHECKED], nearest=len(stars))
    return {
        "recovered": _fraction(int(np.sum(count == 0)), len(count)),
        "within_ten": _fraction(int(np.sum(count < 10)), len(count)),
        "checked": len(among_all),
        "changed": int(np.sum((count[:CHECKED] == 0) != (among_all == 0))),
    }


def group_rate(observer: IdealObserver, group: NDArray[np.int64], snr: float) -> dict[str, float]:
    """The observer's doppelganger rate among all pairs of stars of different groups."""
    stars, rows = observer.draw(snr), np.arange(len(group))
    relatives = siblings(group)
    far = []
    for row, candidates in shortlists(stars, rows):
        unrelated = candidates[(candidates > row) & (group[candidates] != group[row])]
        if len(unrelated):
            far.append(stars.ratio(stars[row : row + 1], unrelated))
    listed = np.concatenate(far)
    pairs = len(group) * (len(group) - 1) // 2 - len(relatives)
    return doppelganger_rate(stars.pairs(*relatives.T), listed, pairs - len(listed))


def siblings(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """All pairs of rows (M, 2) of one group."""
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return np.array([pair for rows in members for pair in combinations(rows, 2)], dtype=np.int64)


def survey_kind(survey: Survey) -> str:
    """Which stars of a survey have the same chemistry: groups, or pairs of one of two kinds."""
    return "groups" if survey.twin is None else "[X/Fe] pairs" if survey.own_fe_h else "paper's pairs"


def survey_name(survey: Survey) -> str:
    """A survey's kind and seed."""
    return f"{survey_kind(survey)}/{survey.seed}"


def limit(survey: Survey, emulator: Emulator, pairs: int) -> dict[str, Any]:
    """The limit of one survey, for models that remove Teff, log g and [Fe/H].

    Where its twins have equal [Fe/H] also for models that do not remove it. Raises InputError for a survey
    without twins, groups or abundances.
    """
    if survey.twin is None and survey.group is None:
        raise InputError(f"{survey.path} holds neither twins nor groups")
    labels = emulator_labels(survey, emulator)
    columns = varied(labels, emulator)
    fisher = information(emulator, labels, columns)
    result: dict[str, Any] = {"identity": survey.identity(), "stars": len(survey), "removed": {}}
    for removed in REMOVED:
        if survey.own_fe_h and "fe_h" not in removed:
            continue
        chosen = [i for i, column in enumerate(columns) if emulator.labels[column] not in removed]
        used = [columns[i] for i in chosen]
        observer = IdealObserver.of(labels[:, used], fisher[:, chosen][:, :, chosen])
        found: dict[str, Any] = {"abundances": [emulator.labels[column] for column in used]}
        if survey.twin is not None:
            found["twins"] = {f"{snr:g}": recovery(observer, survey.twin, pairs, snr) for snr in LEVELS}
            found["fits"] = against_fits(emulator, labels, used, survey.twin)
        elif survey.group is not None:
            found["groups"] = {f"{snr:g}": group_rate(observer, survey.group, snr) for snr in GROUP_LEVELS}
        result["removed"][", ".join(removed)] = found
    return result


def measure(paths: Sequence[Path], folder: Path, pairs: int) -> str:
    """Measure the surveys that limit.json in `folder` does not have; returns the report of all, limit.md."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "limit.json"
    known: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    surveys = [Survey.open(path) for path in paths]
    emulator = Emulator.load()
    for survey in surveys:
        name = survey_name(survey)
        if known.get(name, {}).get("identity") == survey.identity():
            continue
        known[name] = limit(survey, emulator, pairs)
        partial = out.with_name(out.name + ".partial")
        partial.write_text(json.dumps(known, indent=1) + "\n")
        partial.replace(out)
    sections = [section for name, result in known.items() for section in report_sections(name, result)]
    text = "\n\n".join(["# The limit", LIMIT, *sections])
    publish(folder, "limit", text)
    return text


def report_sections(name: str, result: dict[str, Any]) -> list[str]:
    """A survey's figures as sections of Markdown."""
    sections = []
    for parameters, found in result["removed"].items():
        sections.append(f"## {name}, {parameters} removed")
        sections.append(f"{result['stars']} stars; {len(found['abundances'])} abundances vary.")
        if "twins" in found:
            rows = [
                [
                    _level(snr),
                    _with_error(at["recovered"]),
                    _with_error(at["within_ten"]),
                    f"{at['changed']} of {at['checked']}",
                ]
                for snr, at in found["twins"].items()
            ]
            sections.append(table(["S/N", "recovered", "within ten", "otherwise among all"], rows))
        if "fits" in found:
            rows = [
                [
                    _level(snr),
                    str(at["stars"]),
                    _with_error(at["ideal_observer"]),
                    _with_error(at["fits"]),
                    _chi2(at["chi2"]),
                ]
                for snr, at in found["fits"].items()
            ]
            sections.append(table(["S/N", "stars", "ideal observer", "fits", "chi2 (expected)"], rows))
        if "groups" in found:
            rows = [
                [_level(snr), f"{at['fraction']:.2e} ± {at['error']:.1e}"]
                for snr, at in found["groups"].items()
            ]
            sections.append(table(["S/N", "doppelganger rate"], rows))
    return sections


def _level(snr: str) -> str:
    return "no noise" if snr == "inf" else snr


def _with_error(figure: dict[str, float]) -> str:
    return f"{figure['fraction']:.3f} ± {figure['error']:.3f}"


def _chi2(chi2: dict[str, float]) -> str:
    return f"{chi2['mean']:.2f} ± {chi2['error']:.2f} ({chi2['expected']})"

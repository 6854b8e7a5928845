"""What a survey has, in lines of text."""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np

from model.spectra.parameters import PARAMETER_UNITS
from training.surveys.groups import bad_groups
from training.surveys.survey import Survey


def describe(survey: Survey) -> Iterator[str]:
    """Lines on a survey's stars, errors and groups, and on groups that cannot be right."""
    group = survey.group
    kind = ", with twins" if survey.twin is not None else ", in groups" if group is not None else ""
    pixels, first, last = len(survey.wavelength), survey.wavelength[0], survey.wavelength[-1]
    yield f"{survey.path}: {len(survey)} stars{kind}, {pixels} pixels from {first:.1f} to {last:.1f} Angstrom"
    if survey.noise == "snr":
        yield f"  pixels: noise of 1 / snr, median S/N {np.median(survey.snr):.0f}"
    elif survey.noise is not None:
        yield f"  pixels: errors in {survey.noise}, {survey.masked.mean():.1%} masked"
    if len(known := [_error(survey, column) for column in range(3) if _known(survey, column)]):
        yield f"  labels: median errors {', '.join(known)}"
    if group is None or survey.twin is not None:
        return
    sizes = np.unique(group[group >= 0], return_counts=True)[1]
    siblings = sizes[sizes > 1]
    yield f"  groups: {len(siblings)} of two stars or more, {siblings.sum()} stars in them"
    if not survey.own_fe_h:
        names = _clusters(survey)
        for bad in bad_groups(survey.parameters[:, 2], survey.errors[:, 2], group):
            name = f"{bad.group}, {names[bad.rows[0]]}," if names else str(bad.group)
            yield f"  group {name} cannot be right: {bad.reason(survey.star_id)}"


def _clusters(survey: Survey) -> list[str]:
    """The name of each star's group; none if the file does not have them."""
    with h5py.File(survey.path) as file:
        named = "cluster" in file and h5py.check_string_dtype(file["cluster"].dtype) is not None
        return list(file["cluster"].asstr(errors="replace")[:]) if named else []


def _known(survey: Survey, column: int) -> bool:
    return bool(np.isfinite(survey.errors[:, column]).any())


def _error(survey: Survey, column: int) -> str:
    name, unit = list(PARAMETER_UNITS.items())[column]
    return f"{name} {np.nanmedian(survey.errors[:, column]):.3g} {unit.split()[0]}"

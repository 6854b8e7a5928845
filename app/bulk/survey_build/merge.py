"""Which of the spectra that were read are in the survey: one of each star, with its group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bulk.survey_build.star_labels import key
from app.bulk.survey_build.stored_block import NUMBERS
from model.spectra.parameters import PARAMETER_UNITS
from training.observed.duplicates import best_of_each, same_stars
from training.surveys.survey_check import NO_GROUP, label_outliers


@dataclass(frozen=True)
class Spectra:
    """What the merge needs of all M spectra that were read.

    Attributes
    ----------
    name, star_id, reason, cluster
        Texts (M,) as bytes; `reason` is empty for spectra that can be used.
    row
        Rows (M,) of the table of labels.
    digest
        Digests (M,) of the usable spectra.
    numbers
        Labels, errors, position and S/N (M,) by name.
    starts
        The first spectrum of each block, and M.
    """

    name: NDArray[np.bytes_]
    star_id: NDArray[np.bytes_]
    reason: NDArray[np.bytes_]
    cluster: NDArray[np.bytes_]
    row: NDArray[np.int64]
    digest: NDArray[np.uint64]
    numbers: Mapping[str, NDArray[np.float64]]
    starts: NDArray[np.int64]

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Spectra:
        """From the stored blocks, without their flux."""
        names = ("name", "star_id", "reason", "cluster", "row", "digest", *NUMBERS)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        for path in paths:
            with np.load(path) as block:
                for name in names:
                    parts[name].append(block[name])
        whole = {name: np.concatenate(part) for name, part in parts.items()}
        starts = np.cumsum([0, *(len(part) for part in parts["row"])])
        numbers = {name: whole.pop(name) for name in NUMBERS}
        return cls(**whole, numbers=numbers, starts=starts)


@dataclass
class Selection:
    """Which spectra are in the survey, in the order of their files.

    Attributes
    ----------
    chosen
        Spectra (N,) that are in the survey.
    refused
        By spectrum that could be used and is not in the survey: the reason and text.
    star
        The number (M,) of the star of each usable spectrum, -1 for the others.
    """

    chosen: NDArray[np.int64]
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    star: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def select(spectra: Spectra) -> Selection:
    """One spectrum of each star, without stars whose labels are far from all others'."""
    usable = np.flatnonzero(spectra.reason == b"")
    star = np.full(len(spectra.row), -1, np.int64)
    if not len(usable):
        return Selection(usable, {}, star)
    known = {name: values[usable] for name, values in spectra.numbers.items()}
    keys = [key(one.decode()) for one in spectra.star_id[usable].tolist()]
    star[usable] = same_stars(keys, spectra.digest[usable], known["ra"], known["dec"])
    best = usable[best_of_each(star[usable], known["snr"])]
    refused = {}
    for one, other in zip(usable.tolist(), best.tolist(), strict=True):
        if one != other:
            refused[one] = _duplicate(spectra, one, other)
    chosen = usable[usable == best]
    while len(chosen):
        far = {name: label_outliers(spectra.numbers[name][chosen]) for name in PARAMETER_UNITS}
        out = np.any(list(far.values()), axis=0)
        for index in np.flatnonzero(out).tolist():
            one = int(chosen[index])
            labels = [f"{name} = {spectra.numbers[name][one]:g}" for name in far if far[name][index]]
            refused[one] = "outlier", f"{', '.join(labels)} would widen a model's range"
        if not out.any():
            break
        chosen = chosen[~out]
    return Selection(chosen, refused, star)


def _duplicate(spectra: Spectra, one: int, other: int) -> tuple[str, str]:
    """The reason and text for a spectrum beside an`other` one of its star, which is in the survey."""
    taken = f"{spectra.name[other].decode()} of {spectra.star_id[other].decode()}"
    if spectra.digest[one] == spectra.digest[other]:
        return "identical", f"identical to {taken}"
    snr = spectra.numbers["snr"]
    return "duplicate", f"{taken} has S/N {snr[other]:.4g}, this {snr[one]:.4g}"


@dataclass(frozen=True)
class Membership:
    """The groups of the N stars of a survey.

    Attributes
    ----------
    names
        The groups that have two or more stars, by number, sorted.
    group
        The number (N,) of each star's group, -1 for none.
    small
        Groups that have one star only, which is in no group then.
    missing
        Stars that were named and are not in the survey.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    small: tuple[str, ...]
    missing: tuple[str, ...]


def members(spectra: Spectra, selection: Selection, named: Mapping[str, str] | None) -> Membership:
    """The groups of the survey's stars.

    Parameters
    ----------
    spectra, selection
        The spectra, and those of them that are in the survey.
    named
        The group of each id, any of a star's ids; None for the clusters that came with the spectra.
    """
    stars = selection.star[selection.chosen].tolist()
    in_survey, of_star, found = set(stars), dict[int, str](), set[str]()
    star_ids = {key(star_id): star_id for star_id in named or ()}
    for index in np.flatnonzero(selection.star >= 0).tolist():
        if (star := int(selection.star[index])) not in in_survey:
            continue
        if named is None:
            group = spectra.cluster[index].decode()
        else:
            star_id = star_ids.get(key(spectra.star_id[index].decode()), "")
            group = named.get(star_id, "")
            found.add(star_id)
        if group:
            of_star.setdefault(star, group)
    count = Counter(of_star.values())
    names = tuple(sorted(name for name, size in count.items() if size > 1))
    number = {name: index for index, name in enumerate(names)}
    return Membership(
        names,
        np.array([number.get(of_star.get(star, ""), NO_GROUP) for star in stars], np.int64),
        tuple(name for name, size in count.items() if size == 1),
        tuple(star_id for star_id in named or () if star_id not in found),
    )


def fluxes(
    paths: Sequence[Path], spectra: Spectra, chosen: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Flux and inverse variance (n, P) of the chosen spectra, block by block."""
    for path, start, stop in zip(paths, spectra.starts[:-1], spectra.starts[1:], strict=True):
        usable = start + np.flatnonzero(spectra.reason[start:stop] == b"")
        wanted = np.isin(usable, chosen)
        if wanted.any():
            with np.load(path) as block:
                yield block["flux"][wanted], block["ivar"][wanted]


def warnings(paths: Sequence[Path], spectra: Spectra, chosen: NDArray[np.int64]) -> list[str]:
    """What the files of the chosen spectra (N,) say against them, one warning a line; "" for nothing."""
    found: list[str] = []
    for path, start, stop in zip(paths, spectra.starts[:-1], spectra.starts[1:], strict=True):
        with np.load(path) as block:
            wanted = block["warnings"][np.isin(np.arange(start, stop), chosen)]
        found += (one.decode() for one in wanted.tolist())
    return found

"""Labels of stars that fill the giant branch, for models of all giants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from training.emulator.domain import BRANCH
from training.emulator.emulator import Emulator
from training.random_streams import Stream, generator
from training.surveys.chemistry import Chemistry
from training.surveys.paper_tables import TABLE_1

Array = NDArray[np.float64]

BRANCH_CHEMISTRY = Path(__file__).with_name("branch_chemistry.json")
"""The distribution of real giants of the whole branch (`chemtwin lab chemistry --branch`)."""

RANGES = {
    "teff": (float(BRANCH[0, 0]), float(BRANCH[-1, 0])),
    "logg": (0.0, float(BRANCH[:, 2].max())),
    "fe_h": (-2.2, 0.5),
}
"""The box around the branch: K, dex."""

BROAD = {
    "C": (-0.08, 0.15), "N": (0.20, 0.25), "O": (0.10, 0.09), "Na": (0.00, 0.30), "Mg": (0.10, 0.07),
    "Al": (0.10, 0.15), "Si": (0.10, 0.07), "S": (0.10, 0.09), "K": (0.02, 0.10), "Ca": (0.05, 0.05),
    "Ti": (0.03, 0.08), "V": (-0.01, 0.13), "Mn": (-0.03, 0.10), "Ni": (0.02, 0.05), "P": (0.00, 0.20),
    "Cr": (-0.01, 0.08), "Co": (0.00, 0.15), "Rb": (0.00, 0.29),
}  # fmt: skip
"""Mean and standard deviation (dex) of [X/Fe]: wider than of real giants, so that these lie well inside."""

ALPHA = {"O": 1.0, "Mg": 1.0, "Si": 0.8, "S": 0.9, "Ca": 0.5, "Ti": 0.6}
ALPHA_SD = 0.09
"""The alpha elements have a part in common: its standard deviation (dex), times these."""

USUAL_FE_H = (-0.1, 0.3)
USUAL_WIDTH = 0.6
"""Every other group has [Fe/H] of this mean and standard deviation, and [X/Fe] so much nearer to 0."""

HOT_METAL_POOR = {"teff": (4700.0, 5300.0), "fe_h": (-2.2, -0.8)}
"""Lines change most there: one group of `EVERY` is drawn from it."""

EVERY = 8
"""Another group of so many has Teff and log g of the paper's table 1, in part beyond the branch."""

ROUNDS = 1000


def draw_branch_labels(
    groups: int,
    seed: int,
    emulator: Emulator,
    *,
    members: int = 2,
    own_fe_h: bool = False,
    chemistry: Chemistry | None = None,
) -> Array:
    """Draw labels of groups of stars along the giant branch.

    Parameters
    ----------
    groups : int
        Number of groups.
    seed : int
        Seed of the random numbers.
    emulator : Emulator
        Labels that it does not cover are drawn again.
    members : int
        Stars of a group, in neighbouring rows.
    own_fe_h : bool
        Members have equal [X/Fe], but each its own [Fe/H].
    chemistry : Chemistry, optional
        The distribution of real giants. By default Teff and log g fill the branch evenly and [X/Fe] are
        Gaussians. [Fe/H] is 0.5 - 2.7 t^1.6 with t uniform, or the usual one in every other group. One group
        of `EVERY` lies in the paper's range of Teff and log g, another is hot and metal-poor.

    Returns
    -------
    array (groups * members, L)
        Labels in the emulator's order: K and dex.

    Raises
    ------
    InputError
        For `own_fe_h` with a `chemistry`, and if the emulator covers next to none of the distribution.
    """
    if chemistry is not None and own_fe_h:
        raise InputError("real [X/Fe] depend on [Fe/H]: stars of one [X/Fe] cannot have their own [Fe/H]")
    random = generator(Stream.SURVEY_LABELS, seed=seed)
    labels = np.zeros((groups, members, len(emulator.labels)))
    left = np.arange(groups)
    for _ in range(ROUNDS):
        if chemistry is None:
            labels[left] = _broad(random, left, members, emulator.labels, own_fe_h)
        else:
            labels[left] = _realistic(random, len(left), members, emulator.labels, chemistry)
        flat = labels[left].reshape(-1, labels.shape[-1])
        left = left[~emulator.covers(flat).reshape(-1, members).all(axis=1)]
        if len(left) == 0:
            return labels.reshape(groups * members, -1)
    raise InputError("the emulator covers next to none of this distribution")


def _broad(
    random: np.random.Generator,
    number: NDArray[np.int64],
    members: int,
    names: tuple[str, ...],
    own_fe_h: bool,
) -> Array:
    """Labels (G, members, L) of groups of these numbers (G,), which say what each is like."""
    groups = len(number)
    usual, hot, paper = number % 2 == 1, number % EVERY == 0, number % EVERY == 1
    width = np.where(usual & ~paper, USUAL_WIDTH, 1.0)
    labels = np.zeros((groups, members, len(names)))
    alpha = ALPHA_SD * random.standard_normal(groups)
    for name, (mean, sd) in BROAD.items():
        drawn = mean + ALPHA.get(name, 0.0) * alpha + sd * random.standard_normal(groups)
        labels[:, :, names.index(name)] = (width * drawn)[:, None]
    own = _on_branch(random, (groups, members), RANGES["teff"])
    own[hot] = _on_branch(random, (int(hot.sum()), members), HOT_METAL_POOR["teff"])
    own[paper] = np.stack([random.uniform(*TABLE_1[n], (int(paper.sum()), members)) for n in TABLE_1], axis=2)
    labels[:, :, [names.index(name) for name in TABLE_1]] = own
    shape = (groups, members if own_fe_h else 1)
    low, high = RANGES["fe_h"]
    iron = high - (high - low) * random.uniform(size=shape) ** 1.6
    mean, sd = USUAL_FE_H
    iron[hot] = random.uniform(*HOT_METAL_POOR["fe_h"], (int(hot.sum()), shape[1]))
    near = np.clip(mean + sd * random.standard_normal(shape), low, high)
    labels[:, :, names.index("fe_h")] = np.where(usual[:, None], near, iron)
    return labels


def _on_branch(random: np.random.Generator, shape: tuple[int, int], within: tuple[float, float]) -> Array:
    """Teff (K) and log g, (*shape, 2), uniform over the part of the branch `within` a range of Teff."""
    count = shape[0] * shape[1]
    teff, logg = np.empty(0), np.empty(0)
    while len(teff) < count:
        drawn = random.uniform(*within, size=count)
        height = random.uniform(*RANGES["logg"], size=count)
        low, high = (np.interp(drawn, BRANCH[:, 0], BRANCH[:, side]) for side in (1, 2))
        inside = (height >= low) & (height <= high)
        teff, logg = np.append(teff, drawn[inside]), np.append(logg, height[inside])
    return np.stack([teff[:count], logg[:count]], axis=1).reshape(*shape, 2)


def _realistic(
    random: np.random.Generator, groups: int, members: int, names: tuple[str, ...], chemistry: Chemistry
) -> Array:
    """Labels (groups, members, L): one chemistry for a group, Teff and log g of each star at its [Fe/H]."""
    own = [names.index("teff"), names.index("logg")]
    common = [column for column in range(len(names)) if column not in own]
    labels = np.zeros((groups, members, len(names)))
    labels[:, :, common] = chemistry.abundances_of(random, groups, [names[i] for i in common])[:, None]
    iron = labels[:, :, names.index("fe_h")].ravel()
    labels[:, :, own] = chemistry.branch.draw_given_last(random, iron).reshape(groups, members, 2)
    return labels

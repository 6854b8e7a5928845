"""Globular clusters among groups: their giants differ in light elements, so they are no siblings.

Even as single stars metal-poor giants make an adapted model's errors too large (research/giant-branch.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.spectra.grid import Array

METAL_POOR = -0.6
"""Median [Fe/H] below which a group is taken for a globular cluster: open clusters have more metals."""

WHY = f"median [Fe/H] below {METAL_POOR}, as of globular clusters, whose giants differ in light elements"


def globular_groups(fe_h: Array, group: NDArray[np.int64]) -> list[int]:
    """The numbers of the groups that are taken for globular clusters.

    Parameters
    ----------
    fe_h : array (N,)
        The stars' [Fe/H], dex.
    group : array of int (N,)
        The number of each star's group, -1 for none.

    Returns
    -------
    list of int
        In ascending order.
    """
    numbers = np.unique(group[group >= 0]).tolist()
    return [number for number in numbers if np.median(fe_h[group == number]) < METAL_POOR]


def adaptable(fe_h: Array, group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which stars (N,) to adapt a model to: none of `globular_groups`, and no single metal-poor star."""
    return ~np.isin(group, globular_groups(fe_h, group)) & ~((group < 0) & (fe_h < METAL_POOR))

"""Whether stars and groups are enough to adapt a model to them, for the advice of a build and for `adapt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.fitting.adapt import LEFT_OUT_PARTS, rows_without
from training.fitting.enough_stars import FEWEST_GROUPS, FEWEST_TO_ADAPT


@dataclass(frozen=True)
class EnoughToAdapt:
    """What counts of stars that a model is to be adapted to.

    Attributes
    ----------
    stars : int
        Stars with errors inside the model's range.
    groups : int
        Groups of two such stars or more.
    without_a_group : int
        Those of `stars` that remain when groups are left out as `adapted_without` does: the fewest.
    """

    stars: int
    groups: int
    without_a_group: int

    @classmethod
    def of(cls, usable: NDArray[np.bool_], group: NDArray[np.int64]) -> Self:
        """Count stars: which are `usable` (N,), and the number (N,) of each one's group, -1 for none."""
        numbers = np.flatnonzero(np.bincount(group[usable & (group >= 0)]) > 1)
        parts = np.unique(numbers % LEFT_OUT_PARTS).tolist()
        remain = [int(usable[rows_without(group, part)].sum()) for part in parts]
        return cls(int(usable.sum()), len(numbers), min(remain, default=int(usable.sum())))

    def problem(self) -> str:
        """Why a model cannot be adapted to all of the stars; "" if it can."""
        if self.stars >= FEWEST_TO_ADAPT:
            return ""
        return (
            f"adapting takes {FEWEST_TO_ADAPT} stars with errors of the flux inside the model's range, "
            f"not {self.stars}"
        )

    def problem_of_groups(self) -> str:
        """Why groups cannot be left out in turn; "" if they can."""
        if self.groups >= FEWEST_GROUPS:
            return ""
        return (
            f"leaving one group out takes at least {FEWEST_GROUPS} groups with two siblings inside the model's "
            f"range, not {self.groups}"
        )

    def problem_without_a_group(self) -> str:
        """Why a model cannot be adapted with a group left out in turn; "" if it can."""
        if problem := self.problem() or self.problem_of_groups():
            return problem
        if self.without_a_group >= FEWEST_TO_ADAPT:
            return ""
        return (
            f"with a group left out {self.without_a_group} stars with errors of the flux remain inside the "
            f"model's range, and adapting takes {FEWEST_TO_ADAPT}"
        )

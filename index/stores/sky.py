"""Circles on the sky: which stars of a store lie within one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 1e-9
"""Degrees by which a box is wider than its circle, for rounding."""


Box = tuple[float, float, float, float, float, float]
"""A range of declinations and two ranges of right ascensions, in degrees, all inclusive."""


@dataclass(frozen=True)
class Circle:
    """The directions within `radius` of a centre; all in degrees, ICRS; `radius` at most 180."""

    ra: float
    dec: float
    radius: float

    def box(self) -> Box:
        """A box around the circle."""
        reach = self.radius + MARGIN
        low, high = self.dec - reach, self.dec + reach
        if low <= -90 or high >= 90:
            return low, high, 0.0, 360.0, 0.0, 360.0
        half = (
            math.degrees(math.asin(math.sin(math.radians(reach)) / math.cos(math.radians(self.dec)))) + MARGIN
        )
        west, east = self.ra - half, self.ra + half
        if west < 0:
            return low, high, west + 360, 360.0, 0.0, east
        if east > 360:
            return low, high, west, 360.0, 0.0, east - 360
        return low, high, west, east, west, east

    def separation(self, ra: Sequence[float], dec: Sequence[float]) -> NDArray[np.float64]:
        """Degrees (n,) from the centre to positions in degrees, by the haversine formula."""
        there, centre = np.radians(np.array([ra, dec])), np.radians([self.ra, self.dec])
        halves = np.sin((there - centre[:, None]) / 2) ** 2
        square = halves[1] + np.cos(there[1]) * math.cos(centre[1]) * halves[0]
        return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(square, 0, 1)))))

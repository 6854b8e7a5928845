"""What an emulator covers: one or more regions of labels, each between two lines in log g."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BRANCH = np.array(
    [[3700.0, 0.0, 1.24], [4300.0, 0.0, 2.8], [4300 + 2500 / 6.5, 2.25 / 2.6, 3.8], [5300.0, 2.25, 3.8]]
)
"""Teff (K), least and greatest log g of the design of Turbospectrum spectra along the giant branch, (4, 3)."""

LOGG = 1
_SLACK = 1e-6


@dataclass(frozen=True)
class Domain:
    """The union of R regions.

    Attributes
    ----------
    lo, hi : array (R, L)
        Box of each region; the first two labels are Teff (K) and log g.
    logg_range : array (R, V, 3)
        Teff, least and greatest log g at V vertices, linear between them.
    """

    lo: Array
    hi: Array
    logg_range: Array

    def inside(self, labels: Array) -> npt.NDArray[np.bool_]:
        """Whether each label of `labels` (N, L) is in each region, (R, N, L)."""
        lo, hi = self.limits(labels)
        slack = _SLACK * (self.hi - self.lo)[:, None]
        within: npt.NDArray[np.bool_] = (labels >= lo - slack) & (labels <= hi + slack)
        return within

    def limits(self, labels: Array) -> tuple[Array, Array]:
        """Least and greatest labels, two arrays (R, N, L), of each region at the Teff of `labels` (N, L)."""
        shape = (len(self.lo), *labels.shape)
        lo, hi = (np.broadcast_to(side[:, None], shape).copy() for side in (self.lo, self.hi))
        for region, (teff, least, greatest) in enumerate(self.logg_range.transpose(0, 2, 1)):
            lo[region, :, LOGG] = np.interp(labels[:, 0], teff, least)
            hi[region, :, LOGG] = np.interp(labels[:, 0], teff, greatest)
        return lo, hi


def box_range(lo: Array, hi: Array) -> Array:
    """The `logg_range` (4, 3) of a region that is the box `lo` to `hi` (L,)."""
    teff = np.linspace(lo[0], hi[0], len(BRANCH))
    return np.column_stack([teff, np.full(len(teff), lo[LOGG]), np.full(len(teff), hi[LOGG])])

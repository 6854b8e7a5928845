"""Synthetic APOGEE-like spectra of red giants with Turbospectrum: how the emulator's training grid is made.

Offline only, and the one part of the house that needs a Fortran compiler: `build.sh` builds
Turbospectrum, `atmosphere` interpolates the model atmospheres, `synthesis` computes one star and
`grid` the many that the emulator is fitted to. README.md has the provenance of every data file.
"""

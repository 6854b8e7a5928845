"""Spectra by another generator than the emulator's: MARCS atmospheres, uncorrected atomic lines.

The shipped model is developed and measured on these as a stand-in for real stars, which must not be tuned to.
"""

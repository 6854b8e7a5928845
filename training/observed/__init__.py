"""Observed spectra of real stars that the product ships."""

"""Surveys, synthetic and observed: labels, spectra, known pairs, checks."""

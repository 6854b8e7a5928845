"""The spectral emulator: fitting, measuring, spectra and their derivatives."""

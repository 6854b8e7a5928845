"""What a model is: wavelength grid, Spectrum, inference (embed, recast) and the model file."""

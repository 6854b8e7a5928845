"""The methods, at inference: what turns a spectrum into a latent and back."""

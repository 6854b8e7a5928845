"""FactorDis and FaderDis: conditional autoencoders (paper, section 3.2), at inference.

The encoder takes a spectrum and its parameters u to a latent, the decoder a latent and any u to a spectrum. The
two methods differ in how they were trained (`training.networks.losses`), not in what is here. A network's
inputs are either pixels (the paper's appendix A) or coefficients of a spectral basis (the compact presets).

Inference runs in double precision and is rounded once, to single, at the end of `Model.embed`: so the same star
gets the same latent whatever batch, thread count or process it comes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model.methods.base import Card, Model
from model.methods.basis import Basis, scaled
from model.spectra.continuum import Normaliser
from model.spectra.grid import Array, Grid
from model.spectra.spectrum import Spectrum

FLUX_SCALE, FLUX_SHIFT = 4.0, 3.5
"""The paper's scaling of normalised flux to about -1 to 1 (appendix A)."""


def feedforward(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with SELU between them (appendix A), initialised as SELU wants (LeCun)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=inputs**-0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.SELU()]
    return nn.Sequential(*layers[:-1])


def _network(prefix: str, tensors: dict[str, NDArray[Any]]) -> nn.Sequential:
    """The network whose tensors are named `prefix`.<layer>.weight and .bias, in double precision."""
    state = {
        name.removeprefix(prefix): torch.from_numpy(tensors.pop(name).astype(np.float64))
        for name in sorted(tensors)
        if name.startswith(prefix)
    }
    weights = [state[f"{layer}.weight"] for layer in range(0, len(state), 2)]
    widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
    with torch.device("meta"):
        network = feedforward(widths)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


class Autoencoder(Model):
    """A conditional autoencoder with its spectral basis, which completes masked spectra.

    Tensors: those of `Basis`; `scale` (K,) of the networks' inputs, empty if these are pixels;
    `encoder.<layer>.weight` and so on, and `decoder...`; `metric` (D, D), the linear map from the encoder's
    output to the latent; `twins` (`Model.twins`).
    """

    def __init__(
        self,
        card: Card,
        grid: Grid,
        normaliser: Normaliser | None,
        *,
        scale: NDArray[Any],
        metric: NDArray[Any],
        twins: NDArray[Any],
        **tensors: NDArray[Any],
    ) -> None:
        super().__init__(card, grid, normaliser, twins)
        self.encoder = _network("encoder.", tensors)
        self.decoder = _network("decoder.", tensors)
        self.basis = Basis(self.ranges, **tensors)
        self.scale = scale.astype(np.float64)
        self.metric = metric.astype(np.float64)
        if self.metric.shape != (card.latent_dim, card.latent_dim):
            raise ValueError(f"a metric of shape {self.metric.shape} for {card.latent_dim} latents")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors for the model file."""
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        weights = {
            f"{name}.{key}": value.numpy().astype(np.float32)
            for name, network in networks.items()
            for key, value in network.state_dict().items()
        }
        own = {name: getattr(self, name).astype(np.float32) for name in ("scale", "metric", "twins")}
        return {**self.basis.arrays(), **own, **weights}

    def encode(self, flux: Array, parameters: Array, variance: Array | None = None) -> Array:
        """Latents (N, D); missing pixels are first completed by the basis (`Basis.project`)."""
        inputs = self._inputs(flux, parameters, variance)
        return np.asarray(self.encoder(self._conditioned(inputs, parameters)).numpy() @ self.metric)

    def decode(self, latents: Array, parameters: Array) -> Array:
        """Flux (N, P) of latents (N, D) at parameters (N, U)."""
        if self.scale.size:
            return self.basis.rebuild(self.coefficients(latents, parameters), parameters)
        return np.asarray((self._decoded(latents, parameters) + FLUX_SHIFT) / FLUX_SCALE)

    def coefficients(self, latents: Array, parameters: Array) -> Array:
        """Coefficients (N, K) in the spectral basis of the flux that `decode` gives."""
        if self.scale.size:
            return np.asarray(self._decoded(latents, parameters) * self.scale)
        return super().coefficients(latents, parameters)

    def covariance(self, spectrum: Spectrum) -> Array:
        """Pixel noise, missing pixels and the parameters' errors, propagated to first order (D, D)."""
        known = spectrum.parameters.values(self.parameter_names)
        errors = spectrum.parameters.errors(self.parameter_names)
        variance = self.variance(spectrum)
        complete, missing = self.basis.completion(spectrum, variance)
        good = spectrum.ivar > 0
        flux_slope = self.basis.slope(known)
        coefficient_slope = -complete @ (self.basis.components @ np.where(good, flux_slope, 0.0).T)
        inputs = self._inputs(spectrum.flux[None], known[None], variance[None])
        by_input, by_known = self._jacobian(inputs, known)
        label = by_known * 2 / (self.ranges[:, 1] - self.ranges[:, 0])
        if self.scale.size:
            by_input = by_input / self.scale
            noise = complete @ self.basis.noise(spectrum) @ complete.T + missing
            covariance = by_input @ noise @ by_input.T
            label = label + by_input @ coefficient_slope
        else:
            by_input = by_input * FLUX_SCALE
            filled = by_input[:, ~good] @ self.basis.components[:, ~good].T
            total = by_input[:, good] + filled @ complete @ self.basis.components[:, good]
            noisy = total / np.sqrt(spectrum.ivar[good])
            covariance = noisy @ noisy.T + filled @ missing @ filled.T
            label = label + by_input[:, ~good] @ flux_slope[:, ~good].T + filled @ coefficient_slope
        label = label * errors
        return np.asarray(self.metric.T @ (covariance + label @ label.T) @ self.metric)

    def _inputs(self, flux: Array, parameters: Array, variance: Array | None) -> Array:
        """The encoder's inputs (N, M): scaled coefficients, or completed and scaled pixels."""
        if self.scale.size:
            return self.basis.project(flux, parameters, variance) / self.scale
        if variance is not None and not np.isfinite(variance).all():
            coefficients = self.basis.project(flux, parameters, variance)
            flux = np.where(np.isfinite(variance), flux, self.basis.rebuild(coefficients, parameters))
        return np.asarray(FLUX_SCALE * flux - FLUX_SHIFT)

    def _decoded(self, latents: Array, parameters: Array) -> Array:
        """The decoder's output (N, M)."""
        raw = np.asarray(np.linalg.solve(self.metric.T, latents.T).T)
        return np.asarray(self.decoder(self._conditioned(raw, parameters)).numpy())

    def _conditioned(self, values: Array, parameters: Array) -> torch.Tensor:
        """Network input (N, M + U): `values` (N, M) and the scaled parameters (N, U)."""
        return torch.from_numpy(np.concatenate([values, scaled(parameters, self.ranges)], axis=1))

    def _jacobian(self, inputs: Array, parameters: Array) -> tuple[Array, Array]:
        """Derivatives (D, M), (D, U) of the encoder's output by its input (1, M) and the scaled parameters."""
        point = self._conditioned(inputs, parameters[None])[0]
        jacobian = torch.func.jacrev(self.encoder)(point).numpy()
        return jacobian[:, : inputs.shape[1]], jacobian[:, inputs.shape[1] :]


class FactorDis(Autoencoder):
    """Trained against a Wasserstein critic on (x, u, z) (paper, section 3.3.1)."""

    method: ClassVar[str] = "factordis"


class FaderDis(Autoencoder):
    """Trained against an auxiliary network that predicts the binned u from z (paper, section 3.3.2)."""

    method: ClassVar[str] = "faderdis"

"""The two disentanglement losses of the paper: a Wasserstein critic and an auxiliary classifier.

An adversary is a network with a loss of its own, and a penalty that it puts on the autoencoder. The inputs
of both are the network inputs x (B, M), the scaled parameters u (B, U) and the latents z (B, D).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from model.methods.autoencoder import feedforward
from training.config import NetworkConfig

Decoder = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def padded(width: int, multiple: int) -> int:
    """`width` rounded up to a multiple."""
    return -(-width // multiple) * multiple


def joined(parts: list[torch.Tensor], width: int) -> torch.Tensor:
    """The parts (B, M1), (B, M2) ... side by side, with zeros up to `width`."""
    missing = width - sum(part.shape[1] for part in parts)
    return torch.cat([*parts, parts[0].new_zeros(len(parts[0]), missing)], dim=1)


class Adversary(ABC, nn.Module):
    """A network whose penalty makes z independent of u."""

    @abstractmethod
    def loss(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, decode: Decoder, generator: torch.Generator
    ) -> torch.Tensor:
        """The loss that the adversary itself minimises."""

    @abstractmethod
    def penalty(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, decode: Decoder, generator: torch.Generator
    ) -> torch.Tensor:
        """The penalty that, times lambda, is added to the autoencoder's loss."""


class Auxiliary(Adversary):
    """FaderDis: predicts the bin of u from z by cross entropy (equation 8).

    Bins are equally wide in each parameter's training range. Joint, they are bins**U classes (appendix A);
    otherwise each parameter has classes of its own, whose cross entropies add up.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.bins, self.joint = config.bins, config.joint_bins
        count = len(config.parameters)
        classes = config.bins**count if config.joint_bins else config.bins * count
        self.network = feedforward([config.latents, *config.adversary, classes])

    def classes(self, u: torch.Tensor) -> torch.Tensor:
        """The class (B, 1) or classes (B, U) of scaled parameters (B, U)."""
        each = ((u + 1) / 2 * self.bins).long().clamp(0, self.bins - 1)
        if not self.joint:
            return each
        return (each * self.bins ** torch.arange(u.shape[1], device=u.device)).sum(dim=1, keepdim=True)

    def loss(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, decode: Decoder, generator: torch.Generator
    ) -> torch.Tensor:
        """Cross entropy of the predicted classes, nats."""
        classes = self.classes(u)
        scores = self.network(z).float().chunk(classes.shape[1], dim=1)
        return torch.stack(
            [functional.cross_entropy(s, c) for s, c in zip(scores, classes.T, strict=True)]
        ).sum()

    def penalty(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, decode: Decoder, generator: torch.Generator
    ) -> torch.Tensor:
        """The negative of the classifier's loss."""
        return -self.loss(x, u, z, decode, generator)


class Critic(Adversary):
    """FactorDis: separates (x, u, z) from (D(z, u'), u', z) with u' scrambled in the batch (equations 5 to 7).

    In noisy training x has noise and D(z, u') has none, which discriminates them without u and z; so the
    critic's input can be D(z, u) instead of x.
    """

    def __init__(self, config: NetworkConfig, inputs: int, multiple: int = 1) -> None:
        super().__init__()
        self.weight, self.rebuilds = config.gradient_penalty, config.critic_sees == "reconstructions"
        self._inputs = inputs + len(config.parameters) + config.latents
        self._width = padded(self._inputs, multiple)
        self.network = feedforward([self._width, *config.adversary, 1])

    def _samples(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, decode: Decoder, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples of p(x, u, z) and of q(x, u, z) = p(x | u, z) p(u) p(z)."""
        scrambled = u[torch.rand(len(u), generator=generator, device=u.device).argsort()]
        spectra = decode(z, u).to(x.dtype) if self.rebuilds else x
        factored = joined([decode(z, scrambled).to(x.dtype), scrambled, z], self._width)
        return joined([spectra, u, z], self._width), factored

    def loss(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, decode: Decoder, generator: torch.Generator
    ) -> torch.Tensor:
        """Equation 6: Wasserstein distance and gradient penalty (Gulrajani et al. 2017)."""
        joint, factored = self._samples(x, u, z, decode, generator)
        fraction = torch.rand(len(x), 1, generator=generator, device=x.device)
        between = (fraction * joint + (1 - fraction) * factored).requires_grad_()
        (gradient,) = torch.autograd.grad(self.network(between).sum(), between, create_graph=True)
        steepness = torch.linalg.vector_norm(gradient[:, : self._inputs].float(), dim=1)
        distance = self.network(joint).float().mean() - self.network(factored).float().mean()
        penalty: torch.Tensor = self.weight * (steepness - 1).square().mean() - distance
        return penalty

    def penalty(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, decode: Decoder, generator: torch.Generator
    ) -> torch.Tensor:
        """The critic's estimate of the distance between p and q (equation 5)."""
        joint, factored = self._samples(x, u, z, decode, generator)
        distance: torch.Tensor = self.network(joint).float().mean() - self.network(factored).float().mean()
        return distance

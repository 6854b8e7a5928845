"""One step of training an autoencoder against its adversary, on one process or several."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from model.errors import InputError
from model.methods.autoencoder import FLUX_SCALE, feedforward
from training.config import NetworkConfig
from training.networks.batches import Batches, Resident, coefficients, fits, pixel_source, unit_parameters
from training.networks.graphs import Graphs
from training.networks.losses import Adversary, Auxiliary, Critic, joined, padded
from training.networks.preprocessing import Frontend
from training.random_streams import Stream, torch_seed
from training.surveys.survey import Survey

LOG_VARIANCE = (-14.0, 4.0)
"""Bounds of the posterior's log variance, against overflow."""


MULTIPLE = 64
"""Widths of pixels are padded to a multiple of this on a GPU, whose matrix units want aligned rows."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together (`torchrun`)."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Join the group that torchrun announces, if it does."""
        if "RANK" not in os.environ:
            return cls()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of all processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, value: bool) -> bool:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        tensor = torch.tensor([float(value)])
        tensor = tensor.cuda() if dist.get_backend() == "nccl" else tensor
        dist.broadcast(tensor, 0)
        return bool(tensor.item())


class Trainer:
    """Networks, optimisers and data of one run; only `step` and `restore` change them."""

    def __init__(
        self,
        survey: Survey,
        frontend: Frontend,
        config: NetworkConfig,
        device: torch.device,
        processes: Processes,
        *,
        resident: bool | None = None,
    ) -> None:
        torch.set_float32_matmul_precision("highest" if config.precision == "float32" else "high")
        self.config, self.frontend, self.device, self.processes = config, frontend, device, processes
        if config.batch % processes.count:
            raise InputError(f"a batch of {config.batch} cannot be divided among {processes.count} processes")
        fixed = config.snr[0] if config.noise == "fixed" else np.inf
        if config.inputs == "pixels":
            in_memory = fits(survey, device) if resident is None else resident
            source: Any = pixel_source(survey, frontend.normaliser, fixed, device, in_memory)
            width = len(survey.wavelength)
        else:
            values = coefficients(survey, frontend.normaliser, frontend.basis, config.parameters, fixed, device)
            source = Resident(torch.from_numpy((values / frontend.scale).astype(np.float32)).to(device))
            width = len(frontend.scale)
        known = unit_parameters(survey, config.parameters, frontend.basis.ranges)
        self.batches = Batches(source, torch.from_numpy(known).to(device), config.batch, config.seed)
        self.unit = self._unit(width)
        self.colour = None if frontend.noise is None else self._tensor(frontend.noise.T)
        torch.manual_seed(config.seed)
        conditioned, latents = len(config.parameters), config.latents
        means = 2 * latents if config.kl else latents
        multiple = MULTIPLE if device.type == "cuda" else 1
        self._width, self._inputs = width, width + conditioned
        self._padded = padded(self._inputs, multiple)
        self.encoder = feedforward([self._padded, *config.encoder, means]).to(device)
        self.decoder = feedforward([latents + conditioned, *config.decoder, padded(width, multiple)]).to(device)
        adversary: Adversary = (
            Auxiliary(config) if config.method == "faderdis" else Critic(config, width, multiple)
        )
        self.adversary = adversary.to(device)
        graphed = device.type == "cuda" and processes.count == 1
        self.optimiser = torch.optim.Adam(self._autoencoder(), fused=True, capturable=graphed)
        self.opponent = torch.optim.Adam(self.adversary.parameters(), fused=True, capturable=graphed)
        self.done = 0
        self._random = torch.Generator(device)
        self._update_all: Callable[[bool, torch.Tensor, torch.Tensor], dict[str, torch.Tensor]] = (
            Graphs(self._updates, self._random) if graphed else self._updates
        )

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device)

    def _unit(self, width: int) -> torch.Tensor:
        """Each network input (M,) for one unit of flux or of a coefficient."""
        if self.config.inputs == "pixels":
            return torch.full((width,), FLUX_SCALE, device=self.device)
        return self._tensor(1 / self.frontend.scale)

    def _autoencoder(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    def encode(self, x: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean (B, D) of the latents and, in a variational run, log variance."""
        out = self.encoder(joined([x, u], self._padded)).float()
        if not self.config.kl:
            return out, None
        mean, log_variance = out.chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def decode(self, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Network outputs (B, M)."""
        out: torch.Tensor = self.decoder(torch.cat([z, u], dim=1))
        return out[:, : self._width].float()

    def step(self) -> dict[str, torch.Tensor]:
        """One batch: the adversary learns, and every `critic_steps` batches the autoencoder."""
        self._schedule()
        x, u = self.batches(self.done, self.processes.rank, self.processes.count)
        self._random.manual_seed(torch_seed(Stream.TRAINING_STEP, self.done, seed=self.config.seed))
        losses = self._update_all(self.done % self.config.critic_steps == 0, x, u)
        self.done += 1
        return losses

    def _updates(self, learns: bool, x: torch.Tensor, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """Update the adversary and, if it `learns`, the autoencoder. Returns the losses."""
        config, generator = self.config, self._random
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            x, sigma = self._noisy(x, generator)
            with torch.set_grad_enabled(learns):
                mean, log_variance = self.encode(x, u)
                z = mean
                if log_variance is not None:
                    z = mean + torch.exp(0.5 * log_variance) * self._randn(mean.shape[1], generator)
            against = self.adversary.loss(x, u, z.detach(), torch.no_grad()(self.decode), generator)
        self._update(against, self.opponent)
        if not learns:
            return {"adversary": against.detach()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            reconstruction = self._reconstruction(self.decode(z, u), x, sigma)
            penalty = self.adversary.penalty(x, u, z, self.decode, generator)
        loss = reconstruction + config.disentangle * penalty
        losses = {"adversary": against, "reconstruction": reconstruction, "penalty": penalty}
        if log_variance is not None:
            spread = mean.square() + log_variance.exp() - 1 - log_variance
            losses["kl"] = 0.5 * spread.sum(dim=1).mean()
            loss = loss + config.kl * losses["kl"]
        self._update(loss, self.optimiser)
        return {name: value.detach() for name, value in losses.items()}

    def state(self) -> dict[str, Any]:
        """The state that the next step depends on, beside data and configuration."""
        modules = ("encoder", "decoder", "adversary", "optimiser", "opponent")
        return {"done": self.done, **{name: getattr(self, name).state_dict() for name in modules}}

    def restore(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.done = state["done"]
        for name, values in state.items():
            if name != "done":
                getattr(self, name).load_state_dict(values)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Encoder (its means only) and decoder as in a model file."""
        out = {
            f"{name}.{key}": value.detach().float().cpu().numpy().copy()
            for name, network in (("encoder", self.encoder), ("decoder", self.decoder))
            for key, value in network.state_dict().items()
        }
        last = f"encoder.{2 * len(self.config.encoder)}", f"decoder.{2 * len(self.config.decoder)}"
        for layer, outputs in zip(last, (self.config.latents, self._width), strict=True):
            for key in (f"{layer}.weight", f"{layer}.bias"):
                out[key] = out[key][:outputs]
        out["encoder.0.weight"] = out["encoder.0.weight"][:, : self._inputs]
        return out

    def operations(self) -> float:
        """Floating-point operations for one star and step, by the usual count of 6 for each weight.

        The adversary's part counts a forward and backward pass, three of these for a critic, whose step has
        the joint, the scrambled and the penalty's samples; the autoencoder's is divided by `critic_steps`. The
        critic's samples, decoded without gradients, are not counted.
        """

        def size(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters())

        passes = 3 if isinstance(self.adversary, Critic) else 1
        per_step = 1 / self.config.critic_steps
        return 6 * (per_step * (size(self.encoder) + size(self.decoder)) + passes * size(self.adversary))

    def _schedule(self) -> None:
        config = self.config
        cosine = 0.5 * (1 + math.cos(math.pi * min(self.done / config.steps, 1)))
        rate = max(cosine, 1e-3) if config.schedule == "cosine" else 1.0
        for optimiser, highest in (
            (self.optimiser, config.learning_rate),
            (self.opponent, config.adversary_learning_rate),
        ):
            group = optimiser.param_groups[0]
            if group["capturable"]:
                group["lr"] = torch.as_tensor(group["lr"], device=self.device).fill_(highest * rate)
            else:
                group["lr"] = highest * rate

    def _randn(self, width: int, generator: torch.Generator) -> torch.Tensor:
        """Standard normal numbers (B, width): this process's rows of the whole batch's."""
        shape = (self.config.batch, width)
        whole = torch.randn(shape, generator=generator, device=self.device)
        return whole[self.processes.rank :: self.processes.count]

    def _noisy(self, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs with fresh noise, and its standard deviation (B, 1) in flux."""
        low, high = self.config.snr
        if self.config.noise != "redrawn":
            return x, torch.full((len(x), 1), 1 / low, device=self.device)
        fraction = torch.rand((self.config.batch, 1), generator=generator, device=self.device)
        fraction = fraction[self.processes.rank :: self.processes.count]
        sigma = 1 / (low * (high / low) ** fraction)
        white = self._randn(x.shape[1], generator)
        return x + sigma * self.unit * (white if self.colour is None else white @ self.colour), sigma

    def _reconstruction(self, rebuilt: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Mean square of the scaled inputs' error (paper), or its Gaussian negative log likelihood (nats)."""
        if self.config.reconstruction == "mse":
            return (rebuilt - x).square().mean()
        return 0.5 * ((rebuilt - x) / (sigma * self.unit)).square().sum(dim=1).mean()

    def _update(self, loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
        parameters = optimiser.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.processes.average(parameters)
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

"""Training FactorDis and FaderDis (paper, sections 3.2 to 4.2, appendix A).

    chemtwin train train.h5 --validation validation.h5 --method faderdis --preset compact --out m.safetensors
    torchrun --nproc-per-node 4 --no-python chemtwin train ...        # the same, on four GPUs

Every random number is a function of the seed and the step, so a run that was stopped goes on from its last
checkpoint as if nothing had happened. Flux and parameters are all that training sees; a validation survey's
pairs decide when to stop and which step to keep (`training.validation`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.autoencoder import FLUX_SCALE, Autoencoder, FactorDis, FaderDis, feedforward
from model.base import Card
from model.grid import Grid
from training.config import NetworkConfig
from training.disentangle import Adversary, Auxiliary, Critic
from training.frontend import Frontend
from training.loader import Batches, Resident, coefficients, fits, pixel_source, unit_parameters
from training.survey import Survey
from training.validation import Validation, check_validation

FORMAT = 1
FRONTEND, STATE = "frontend.npz", "state.pt"
CHECKPOINT_SECONDS = 120.0
LOG_EVERY = 100
LOG_VARIANCE = (-14.0, 4.0)
"""Bounds of the posterior's log variance, against overflow."""


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
        """The first process's answer, in all of them."""
        if self.count == 1:
            return value
        answer = torch.tensor([float(value)])
        answer = answer.cuda() if dist.get_backend() == "nccl" else answer
        dist.broadcast(answer, 0)
        return bool(answer.item())


def step_seed(seed: int, step: int) -> int:
    """The seed of a step's random numbers: 32 bits, all that torch's generator for the CPU looks at."""
    return int(np.random.SeedSequence([seed, 3, step]).generate_state(1)[0])


class Trainer:
    """Networks, optimisers and data of one run; `step` is the only thing that changes them."""

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
        self.config, self.frontend, self.device, self.processes = config, frontend, device, processes
        if config.batch % processes.count:
            raise ValueError(f"a batch of {config.batch} cannot be shared by {processes.count} processes")
        fixed = config.snr[0] if config.noise == "fixed" else np.inf
        if config.inputs == "pixels":
            stays = fits(survey, device) if resident is None else resident
            source: Any = pixel_source(survey, frontend.normaliser, fixed, device, stays)
            width = len(survey.wavelength)
        else:
            values = coefficients(survey, frontend.normaliser, frontend.basis, config.parameters, fixed)
            source = Resident(torch.from_numpy((values / frontend.scale).astype(np.float32)).to(device))
            width = len(frontend.scale)
        known = unit_parameters(survey, config.parameters, frontend.basis.ranges)
        self.batches = Batches(source, torch.from_numpy(known).to(device), config.batch, config.seed)
        self.unit = self._unit(width)
        self.colour = None if frontend.noise is None else self._tensor(frontend.noise.T)
        torch.manual_seed(config.seed)
        conditioned, latents = len(config.parameters), config.latents
        means = 2 * latents if config.kl else latents
        self.encoder = feedforward([width + conditioned, *config.encoder, means]).to(device)
        self.decoder = feedforward([latents + conditioned, *config.decoder, width]).to(device)
        adversary: Adversary = Auxiliary(config) if config.method == "faderdis" else Critic(config, width)
        self.adversary = adversary.to(device)
        self.optimiser = torch.optim.Adam(self._autoencoder(), lr=config.learning_rate, fused=True)
        self.opponent = torch.optim.Adam(
            self.adversary.parameters(), lr=config.adversary_learning_rate, fused=True
        )
        self.done = 0
        self._encode: Any = self.encoder
        self._decode: Any = self.decoder
        if config.compile and device.type == "cuda":
            self._encode, self._decode = torch.compile(self.encoder), torch.compile(self.decoder)

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device)

    def _unit(self, width: int) -> torch.Tensor:
        """How much each network input (M,) is for one unit of flux or of a coefficient."""
        if self.config.inputs == "pixels":
            return torch.full((width,), FLUX_SCALE, device=self.device)
        return self._tensor(1 / self.frontend.scale)

    def _autoencoder(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    def encode(self, x: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean (B, D) of the latents and, in a variational run, log variance."""
        out = self._encode(torch.cat([x, u], dim=1)).float()
        if not self.config.kl:
            return out, None
        mean, log_variance = out.chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def decode(self, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Network outputs (B, M)."""
        out: torch.Tensor = self._decode(torch.cat([z, u], dim=1))
        return out.float()

    def step(self) -> dict[str, torch.Tensor]:
        """One batch: the adversary learns, and every `critic_steps` batches the autoencoder."""
        config = self.config
        self._schedule()
        x, u = self.batches(self.done, self.processes.rank, self.processes.count)
        generator = torch.Generator(self.device).manual_seed(step_seed(config.seed, self.done))
        learns = self.done % config.critic_steps == 0
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            x, sigma = self._noisy(x, generator)
            with torch.set_grad_enabled(learns):
                mean, log_variance = self.encode(x, u)
                z = mean
                if log_variance is not None:
                    z = mean + torch.exp(0.5 * log_variance) * self._randn(mean.shape[1], generator)
            against = self.adversary.loss(x, u, z.detach(), torch.no_grad()(self.decode), generator)
        self._update(against, self.opponent)
        self.done += 1
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
        """Everything that the next step depends on, beside data and configuration."""
        modules = ("encoder", "decoder", "adversary", "optimiser", "opponent")
        return {"done": self.done, **{name: getattr(self, name).state_dict() for name in modules}}

    def restore(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.done = state["done"]
        for name, values in state.items():
            if name != "done":
                getattr(self, name).load_state_dict(values)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Encoder (its means only) and decoder as a model file holds them."""
        out = {
            f"{name}.{key}": value.detach().float().cpu().numpy().copy()
            for name, network in (("encoder", self.encoder), ("decoder", self.decoder))
            for key, value in network.state_dict().items()
        }
        last = f"encoder.{2 * len(self.config.encoder)}"
        for key in (f"{last}.weight", f"{last}.bias"):
            out[key] = out[key][: self.config.latents]
        return out

    def operations(self) -> float:
        """Floating-point operations for one star and step, by the usual count of 6 for each weight.

        The adversary's share counts a forward and backward pass, three of these for a critic, whose step has
        the joint, the scrambled and the penalty's samples; the autoencoder's is divided by `critic_steps`. The
        critic's samples, decoded without gradients, are left out.
        """

        def size(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters())

        passes = 3 if isinstance(self.adversary, Critic) else 1
        share = 1 / self.config.critic_steps
        return 6 * (share * (size(self.encoder) + size(self.decoder)) + passes * size(self.adversary))

    def _schedule(self) -> None:
        config = self.config
        cosine = 0.5 * (1 + math.cos(math.pi * min(self.done / config.steps, 1)))
        rate = max(cosine, 1e-3) if config.schedule == "cosine" else 1.0
        self.optimiser.param_groups[0]["lr"] = config.learning_rate * rate
        self.opponent.param_groups[0]["lr"] = config.adversary_learning_rate * rate

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
        share = torch.rand((self.config.batch, 1), generator=generator, device=self.device)
        share = share[self.processes.rank :: self.processes.count]
        sigma = 1 / (low * (high / low) ** share)
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


class Log:
    """What a run tells: a progress bar, TensorBoard files, and the history of validations."""

    def __init__(self, folder: Path, steps: int, done: int, shown: bool) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=done) if shown else None
        self._bar = tqdm(total=steps, initial=done, unit="step", desc="train", disable=None if shown else True)

    def step(self, done: int, losses: dict[str, torch.Tensor]) -> None:
        """One step is done."""
        self._bar.update()
        if self._writer is not None and done % LOG_EVERY == 0:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value.item(), done)

    def validation(self, done: int, figures: dict[str, float]) -> None:
        """A validation was made."""
        told = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        tqdm.write(f"step {done}: {told}", file=sys.stderr)
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"validation/{name}", value, done)

    def close(self) -> None:
        """Flush and close."""
        self._bar.close()
        if self._writer is not None:
            self._writer.close()


@dataclass
class Run:
    """A trained model and how it came about."""

    model: Autoencoder
    record: dict[str, Any]


def train(
    survey: Survey,
    validation: Survey | None,
    config: NetworkConfig,
    folder: Path,
    *,
    name: str,
    device: torch.device,
    resident: bool | None = None,
    judge: Callable[[int, float], None] | None = None,
) -> Run:
    """Train on `survey`; go on from the checkpoint in `folder` if there is one.

    `judge` is told step and score of every validation. Raises ValueError when the checkpoint is of another
    survey or configuration.
    """
    if validation is not None:
        check_validation(survey, validation, config.parameters)
    processes = Processes.join(device)
    torch.set_float32_matmul_precision("highest" if config.precision == "float32" else "high")
    folder.mkdir(parents=True, exist_ok=True)
    if processes.rank == 0:
        _same_run(folder, survey, validation, config)
    frontend = _frontend(folder, survey, config, processes)
    trainer = Trainer(survey, frontend, config, device, processes, resident=resident)
    measure = None if validation is None else Validation(validation, frontend, config, device)
    state: dict[str, Any] = {"best": None, "waited": 0, "history": [], "seconds": 0.0}
    if (folder / STATE).exists():
        saved = torch.load(folder / STATE, map_location=device, weights_only=True)
        trainer.restore(saved.pop("trainer"))
        state = saved
    log = Log(folder / "tensorboard", config.steps, trainer.done, shown=processes.rank == 0)
    started = time.monotonic() - state["seconds"]
    last = time.monotonic()
    stop = state["waited"] >= config.patience
    while trainer.done < config.steps and not stop:
        losses = trainer.step()
        log.step(trainer.done, losses)
        due = trainer.done % config.validate_every == 0 or trainer.done == config.steps
        if due and measure is not None:
            if processes.rank == 0:
                figures = measure(trainer.encode, trainer.decode)
                log.validation(trainer.done, figures)
                state["history"].append({"step": trainer.done, **figures})
                better = state["best"] is None or figures["score"] > state["best"]["score"]
                state["waited"] = 0 if better else state["waited"] + 1
                if better:
                    tensors = {key: torch.from_numpy(value) for key, value in trainer.weights().items()}
                    state["best"] = {"score": figures["score"], "step": trainer.done, "weights": tensors}
                if judge is not None:
                    judge(trainer.done, figures["score"])
            stop = processes.agree(state["waited"] >= config.patience)
        if processes.rank == 0 and (due or time.monotonic() - last > CHECKPOINT_SECONDS):
            state["seconds"] = time.monotonic() - started
            _write(folder / STATE, {**state, "trainer": trainer.state()})
            last = time.monotonic()
    log.close()
    best = state["best"]
    if best is None and not all(np.isfinite(values).all() for values in trainer.weights().values()):
        raise ValueError("the training has diverged: try a lower learning_rate, or clip_norm")
    kept = trainer.weights() if best is None else {k: v.cpu().numpy() for k, v in best["weights"].items()}
    model = _model(name, survey, validation, frontend, config, kept)
    return Run(model, _record(trainer, state, device))


def _same_run(folder: Path, survey: Survey, validation: Survey | None, config: NetworkConfig) -> None:
    """Refuse to go on from a checkpoint of something else."""
    surveys = [survey.identity(), None if validation is None else validation.identity()]
    told = json.dumps({"format": FORMAT, "surveys": surveys, **dataclasses.asdict(config)}, indent=1)
    path = folder / "run.json"
    if not (folder / STATE).exists():
        if path.exists() and path.read_text() != told:
            (folder / FRONTEND).unlink(missing_ok=True)
        path.write_text(told)
    elif path.read_text() != told:
        raise ValueError(f"{folder} holds a checkpoint of another run: remove it, or write to another file")


def _frontend(folder: Path, survey: Survey, config: NetworkConfig, processes: Processes) -> Frontend:
    if processes.rank == 0 and not (folder / FRONTEND).exists():
        save_frontend(folder, Frontend.fit(survey, config))
    if processes.count > 1:
        dist.barrier()
    with np.load(folder / FRONTEND) as arrays:
        return Frontend.from_arrays(dict(arrays), survey, config)


def save_frontend(folder: Path, frontend: Frontend) -> None:
    """Put a fitted frontend where `train` looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{FRONTEND}"
    arrays: Any = frontend.arrays()
    np.savez(partial, **arrays)
    partial.replace(folder / FRONTEND)


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _record(trainer: Trainer, state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """How a run went; rates count training alone, without validation only if there was none."""
    stars = trainer.done * trainer.config.batch
    return {
        "steps": trainer.done,
        "best_step": None if state["best"] is None else state["best"]["step"],
        "seconds": round(state["seconds"], 1),
        "spectra_per_s": round(stars / max(state["seconds"], 1e-9)),
        "tflop_per_s": round(stars * trainer.operations() / max(state["seconds"], 1e-9) / 1e12, 4),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": trainer.processes.count,
        "history": state["history"],
    }


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: infinity, no noise, becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def _model(
    name: str,
    survey: Survey,
    validation: Survey | None,
    frontend: Frontend,
    config: NetworkConfig,
    weights: dict[str, NDArray[np.float32]],
) -> Autoencoder:
    """The model of these weights."""
    kind = FaderDis if config.method == "faderdis" else FactorDis
    card = Card(
        name=name,
        version="unsaved",
        method=config.method,
        parameters={
            parameter: (float(low), float(high))
            for parameter, (low, high) in zip(config.parameters, frontend.basis.ranges, strict=True)
        },
        latent_dim=config.latents,
        metric="Euclidean distance of the latents",
        error_floor=config.error_floor,
        training={
            "stars": len(survey),
            "survey_seed": survey.seed,
            "validation_seed": None if validation is None else validation.seed,
            "config": _plain(dataclasses.asdict(config)),
        },
    )
    return kind(
        card,
        Grid(survey.wavelength),
        frontend.normaliser,
        scale=frontend.scale.astype(np.float32),
        metric=np.eye(config.latents, dtype=np.float32),
        twins=np.zeros((0, 0), dtype=np.float32),
        **frontend.basis.arrays(),
        **weights,
    )

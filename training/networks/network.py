"""Training FactorDis and FaderDis (paper, sections 3.2 to 4.2, appendix A).

    chemtwin model train train.h5 --validation validation.h5 --method faderdis --out m.safetensors
    torchrun --nproc-per-node 4 --no-python chemtwin model train ...        # the same, on four GPUs

Every random number is a function of the seed and the step, so a stopped run that is resumed from its
last checkpoint gives the same model. Training uses flux and parameters only; a validation survey's pairs decide
when to stop and which step is best (`training.networks.validation`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.errors import InputError
from model.methods.autoencoder import Autoencoder, FactorDis, FaderDis
from model.methods.base import Card
from model.spectra.grid import Grid
from training.checkpoint import write_checkpoint
from training.config import NetworkConfig
from training.networks.preprocessing import Frontend
from training.networks.trainer import Processes, Trainer
from training.networks.validation import Validation, check_validation
from training.spectral_basis import named_ranges
from training.surveys.survey import Survey
from training.surveys.used_surveys import record

FORMAT = 1
FRONTEND, STATE, TENSORBOARD = "frontend.npz", "state.pt", "tensorboard"
CHECKPOINT_SECONDS = 120.0
LOG_EVERY = 100


class Log:
    """The log of a run: a progress bar, TensorBoard files, and a line for each validation."""

    def __init__(self, folder: Path, steps: int, done: int, shown: bool) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=done + 1) if shown else None
        self._bar = tqdm(total=steps, initial=done, unit="step", desc="train", disable=None if shown else True)

    def step(self, done: int, losses: dict[str, torch.Tensor]) -> None:
        """Log one step."""
        self._bar.update()
        if self._writer is not None and done % LOG_EVERY == 0:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value.item(), done)

    def validation(self, done: int, figures: dict[str, float]) -> None:
        """Log a validation."""
        values = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        tqdm.write(f"step {done}: {values}", file=sys.stderr)
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
    """A trained model and the record of its training."""

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
    on_score: Callable[[int, float], None] | None = None,
) -> Run:
    """Train a network; a run with a checkpoint in `folder` is resumed.

    Parameters
    ----------
    survey : Survey
        The stars to train on.
    validation : Survey or None
        The pairs that decide when to stop and which step is best; without them the last step is taken.
    config : NetworkConfig
        The settings.
    folder : Path
        Where checkpoints and TensorBoard files are written.
    name : str
        The model's name.
    device : torch.device
        Where to train.
    resident : bool, optional
        Whether pixels stay in the device's memory, by default if they fit.
    on_score : callable, optional
        Called with step and score of every validation.

    Returns
    -------
    Run
        The model and the record of its training.

    Raises
    ------
    InputError
        For a checkpoint of another survey or configuration, and for a training that diverges.
    """
    if validation is not None:
        check_validation(survey, validation, config.parameters)
    processes = Processes.join(device)
    folder.mkdir(parents=True, exist_ok=True)
    if processes.rank == 0:
        _same_run(folder, survey, validation, config)
    frontend = _frontend(folder, survey, config, processes, device)
    trainer = Trainer(survey, frontend, config, device, processes, resident=resident)
    score = None if validation is None else Validation(validation, frontend, config, device)
    state = _restored(folder, trainer, device)
    log = Log(folder / TENSORBOARD, config.steps, trainer.done, shown=processes.rank == 0)
    validate = None if score is None else partial(_validate, trainer, score, state, log, on_score)
    _step_until_done(trainer, config, state, log, folder, validate)
    log.close()
    model = _model(name, survey, validation, frontend, config, _best_weights(trainer, state))
    return Run(model, _record(trainer, state, device))


def _step_until_done(
    trainer: Trainer,
    config: NetworkConfig,
    state: dict[str, Any],
    log: Log,
    folder: Path,
    validate: Callable[[], None] | None,
) -> None:
    """Train to the last step, or until `patience` validations in a row were no better; write checkpoints."""
    processes = trainer.processes
    started = time.monotonic() - state["seconds"]
    saved = time.monotonic()
    stop = state["waited"] >= config.patience
    while trainer.done < config.steps and not stop:
        losses = trainer.step()
        log.step(trainer.done, losses)
        due = trainer.done % config.validate_every == 0 or trainer.done == config.steps
        if due and validate is not None:
            if processes.rank == 0:
                state["seconds"] = time.monotonic() - started
                validate()
            stop = processes.agree(state["waited"] >= config.patience)
        if processes.rank == 0 and (due or time.monotonic() - saved > CHECKPOINT_SECONDS):
            state["seconds"] = time.monotonic() - started
            write_checkpoint(folder / STATE, {**state, "trainer": trainer.state()})
            saved = time.monotonic()


def _restored(folder: Path, trainer: Trainer, device: torch.device) -> dict[str, Any]:
    """The state of a run in `folder`, with its trainer's restored; that of a new run where there is none."""
    if not (folder / STATE).exists():
        return {"best": None, "waited": 0, "history": [], "seconds": 0.0}
    state: dict[str, Any] = torch.load(folder / STATE, map_location=device, weights_only=True)
    trainer.restore(state.pop("trainer"))
    return state


def _validate(
    trainer: Trainer,
    score: Validation,
    state: dict[str, Any],
    log: Log,
    on_score: Callable[[int, float], None] | None,
) -> None:
    """Validate the current networks, and write what was found into the run's `state`."""
    figures = score(trainer.encode, trainer.decode)
    log.validation(trainer.done, figures)
    state["history"].append({"step": trainer.done, "seconds": round(state["seconds"], 1), **figures})
    better = state["best"] is None or figures["score"] > state["best"]["score"]
    state["waited"] = 0 if better else state["waited"] + 1
    if better:
        tensors = {key: torch.from_numpy(value) for key, value in trainer.weights().items()}
        state["best"] = {"score": figures["score"], "step": trainer.done, "weights": tensors}
    if on_score is not None:
        on_score(trainer.done, figures["score"])


def _best_weights(trainer: Trainer, state: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The weights of the best step, without a validation of the last. Raises InputError if they diverged."""
    if state["best"] is not None:
        return {key: value.cpu().numpy() for key, value in state["best"]["weights"].items()}
    weights = trainer.weights()
    if not all(np.isfinite(values).all() for values in weights.values()):
        raise InputError("the training has diverged: try a lower learning_rate, or clip_norm")
    return weights


def _same_run(folder: Path, survey: Survey, validation: Survey | None, config: NetworkConfig) -> None:
    """Raise InputError for a checkpoint of other surveys or another configuration."""
    surveys = [survey.identity(), None if validation is None else validation.identity()]
    described = json.dumps({"format": FORMAT, "surveys": surveys, **dataclasses.asdict(config)}, indent=1)
    path = folder / "run.json"
    if not (folder / STATE).exists():
        if path.exists() and path.read_text() != described:
            (folder / FRONTEND).unlink(missing_ok=True)
        path.write_text(described)
    elif path.read_text() != described:
        raise InputError(f"{folder} holds a checkpoint of another run: remove it, or write to another file")


def _frontend(
    folder: Path, survey: Survey, config: NetworkConfig, processes: Processes, device: torch.device
) -> Frontend:
    if processes.rank == 0 and not (folder / FRONTEND).exists():
        save_frontend(folder, Frontend.fit(survey, config, device))
    if processes.count > 1:
        dist.barrier()
    with np.load(folder / FRONTEND) as arrays:
        return Frontend.from_arrays(dict(arrays), survey, config)


def save_frontend(folder: Path, frontend: Frontend) -> None:
    """Write a fitted frontend to the run's `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{FRONTEND}"
    arrays: Any = frontend.arrays()
    np.savez(partial, **arrays)
    partial.replace(folder / FRONTEND)


def _record(trainer: Trainer, state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The record of a run; its rates include the time of validations."""
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
    """`value` for JSON: infinity, no noise, becomes null."""
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
        parameters=named_ranges(frontend.basis, config.parameters),
        units=survey.units(config.parameters),
        latent_dim=config.latents,
        metric="Euclidean distance of the latents",
        error_floor=config.error_floor,
        training={
            "stars": len(survey),
            **record(survey),
            **({"validation_seed": None} if validation is None else record(validation, "validation")),
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

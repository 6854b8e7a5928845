"""Train large networks and measure them, on one GPU, within a given time.

python -m benchmarks.gpu OUT [--seconds 500] [--preset full] [--work FOLDER] [--only NAME] [--set KEY=VALUE]

Draws the surveys, then trains FaderDis and FactorDis for both conditionings, each within its part of the time,
and measures each on 50,000 fresh stars. OUT gets gpu.md and figures.json. The folder --work (OUT/work) gets
surveys, checkpoints and models; the same command goes on from there. With --small, networks and surveys are so
small that a CPU trains them in seconds.

It needs PyTorch, numpy, scipy, h5py, safetensors, tqdm and tensorboard, and no network.
"""

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.chip import Ceilings, seconds_per_step
from benchmarks.gpu.measure import Measured, Networks
from benchmarks.gpu.page import page
from benchmarks.gpu.surveys import TEST, TEST_XFE, TRAIN, best_device, drawn
from model.bundle import save_model
from training.config import NetworkConfig, preset_path, read_config
from training.networks.network import save_frontend, train
from training.networks.preprocessing import Frontend
from training.networks.validation import Stars
from training.surveys.survey import Survey

U2, U3 = ("teff", "logg"), ("teff", "logg", "fe_h")
VALIDATIONS = 4
MEASURING = 20.0
"""Seconds of a part's time that are left for its validations, checkpoints and measurement."""

SMALL = ("encoder=[64]", "decoder=[64]", "adversary=[32]", "components=10", "batch=64", "precision=float32")


@dataclass(frozen=True)
class Part:
    """A network to train, with its share of the time, and what it changes of the preset."""

    name: str
    method: str
    parameters: tuple[str, ...]
    share: float
    changes: tuple[str, ...] = ()

    @property
    def validation(self) -> str:
        """The survey that selects its best step."""
        return "validation" if "fe_h" in self.parameters else "validation2"

    @property
    def tests(self) -> tuple[str, ...]:
        """The surveys that it is measured on: twins with their own [Fe/H] only where that is removed."""
        return (TEST, TEST_XFE) if "fe_h" in self.parameters else (TEST,)


PARTS = (
    Part("faderdis-3", "faderdis", U3, 0.30),
    Part("faderdis-2", "faderdis", U2, 0.28),
    Part("factordis-3", "factordis", U3, 0.21),
    Part("factordis-2", "factordis", U2, 0.21, ("disentangle=30.0",)),
)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=500.0, help="time for all of it")
    parser.add_argument("--preset", choices=["full", "paper-fast"], default="full")
    parser.add_argument("--work", type=Path, help="surveys, checkpoints and models (default: OUT/work)")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="some of the networks")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    started = time.monotonic()
    out, work = arguments.out, arguments.work or arguments.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    device = best_device()
    surveys = drawn(work, arguments.small)
    changes = [*(SMALL if arguments.small else ()), *arguments.changes]
    run = _Run(out, work, device, surveys, Ceilings.of(device), arguments.preset, changes)
    run.log["surveys drawn, s"] = time.monotonic() - started
    parts = [part for part in PARTS if arguments.only is None or part.name in arguments.only]
    for i, part in enumerate(parts):
        left = arguments.seconds - (time.monotonic() - started)
        share = part.share / sum(each.share for each in parts[i:])
        run(part, left * share)
        run.write()
    print(f"{time.monotonic() - started:.0f} s in all")


@dataclass
class _Run:
    """What one call of the command has and found so far."""

    out: Path
    work: Path
    device: torch.device
    surveys: dict[str, Survey]
    ceilings: Ceilings
    preset: str
    changes: list[str]
    log: dict[str, float] = dataclasses.field(default_factory=dict)
    prepared: dict[Any, Stars] = dataclasses.field(default_factory=dict)
    figures: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def __call__(self, part: Part, seconds: float) -> None:
        """Train and measure one network, in about `seconds`."""
        started, folder = time.monotonic(), self.work / part.name
        path = preset_path(part.method, self.preset)
        config = read_config(path, [f"parameters={list(part.parameters)}", *part.changes, *self.changes])
        assert isinstance(config, NetworkConfig)
        config, step = self._planned(folder, config, seconds, started)
        train_survey, validation = self.surveys[TRAIN], self.surveys[part.validation]
        trained = train(train_survey, validation, config, folder, name=part.name, device=self.device)
        save_model(trained.model, folder / "model.safetensors")
        networks = Networks(trained.model, config, self.device, self.prepared)
        measured = networks.measure(validation, [self.surveys[name] for name in part.tests])
        shares = self.ceilings.shares(networks.sizes(), config, step)
        self.figures.append(self._figures(part, config, step, trained.record, measured) | shares)
        print(f"{part.name}: {time.monotonic() - started:.0f} s, {json.dumps(self.figures[-1])}", flush=True)

    def _planned(
        self, folder: Path, config: NetworkConfig, seconds: float, started: float
    ) -> tuple[NetworkConfig, float]:
        """The configuration with as many steps as fit in `seconds`, and the seconds of a step.

        A run that is resumed keeps its own.
        """
        plan = folder / "plan.json"
        if not plan.exists():
            frontend = Frontend.fit(self.surveys[TRAIN], config, self.device)
            save_frontend(folder, frontend)
            step = seconds_per_step(self.surveys[TRAIN], frontend, config, self.device)
            left = seconds - (time.monotonic() - started) - (0 if self.device.type == "cpu" else MEASURING)
            every = max(int(left / step / VALIDATIONS), 10)
            plan.write_text(json.dumps({"step": step, "every": every}))
        planned = json.loads(plan.read_text())
        every = planned["every"]
        return dataclasses.replace(config, steps=VALIDATIONS * every, validate_every=every), planned["step"]

    def _figures(
        self, part: Part, config: NetworkConfig, step: float, record: dict[str, Any], measured: Measured
    ) -> dict[str, Any]:
        """All figures of a network, for JSON."""
        return {
            "name": part.name,
            "method": part.method,
            "parameters": list(part.parameters),
            "batch": config.batch,
            "learning_rate": config.learning_rate,
            **{key: record[key] for key in ("steps", "best_step", "seconds", "history")},
            "seconds_per_step": step,
            "floor": measured.floor,
            "searches": measured.searches,
            "recast": measured.recast,
        }

    def write(self) -> None:
        """Write what was found so far."""
        found = {"chip": dataclasses.asdict(self.ceilings), **self.log, "networks": self.figures}
        (self.out / "figures.json").write_text(json.dumps(found, indent=1).replace("Infinity", "null"))
        (self.out / "gpu.md").write_text(page(found))


if __name__ == "__main__":
    main()

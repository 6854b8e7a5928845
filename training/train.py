"""Training a model of any method into a model file, with a record and a report of the run beside it."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch

from model.bundle import BRANCH, load_model, save_model
from model.errors import InputError
from model.methods.base import Model
from model.methods.gaussdis import GaussDis
from training.config import Config, PolyDisConfig
from training.evaluation.evaluate import twin_covariance
from training.evaluation.whitening import fit_whitening
from training.fitting import polydis, train_gaussdis, train_observed
from training.networks import network
from training.networks.network import TENSORBOARD
from training.networks.run_report import losses, training_report
from training.networks.validation import check_validation
from training.observed_report import observed_report
from training.surveys import used_surveys
from training.surveys.survey import Survey


def checkpoint_folder(out: Path) -> Path:
    """The folder of checkpoints and TensorBoard logs of a run that writes `out`."""
    return out.with_name(out.name + ".run")


def train_model(
    survey: Path, validation: Path | None, config: Config, out: Path, *, name: str, device: str | None
) -> str:
    """Train, write `out`, `out`.json and the report `out`.html, and return a summary in one paragraph."""
    started = time.monotonic()
    stars = Survey.open(survey)
    validation_survey = None if validation is None else Survey.open(validation)
    if validation_survey is not None:
        check_validation(stars, validation_survey, config.parameters)
    record: dict[str, Any]
    model: Model
    if isinstance(config, PolyDisConfig):
        model = polydis.fit(
            stars,
            name=name,
            parameters=config.parameters,
            degree=config.degree,
            components=config.components,
            snr=config.snr,
            normalise=config.continuum == "pseudo",
            error_floor=config.error_floor,
        )
        record = {"seconds": round(time.monotonic() - started, 1)}
    else:
        run = network.train(
            stars, validation_survey, config, checkpoint_folder(out), name=name, device=choose_device(device)
        )
        model, record = run.model, run.record
        if config.metric == "whitened" and validation_survey is not None and not _is_follower():
            record["metric"] = fit_whitening(run.model, stars, validation_survey, config.validate_snr)
    if _is_follower():
        return ""
    if validation_survey is not None:
        model.twins = twin_covariance(model, validation_survey)
        training = model.card.training | used_surveys.record(validation_survey, "validation")
        model.card = dataclasses.replace(model.card, training=training)
    save_model(model, out)
    record["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    identity = load_model(out).card.identity
    out.with_name(out.name + ".json").write_text(json.dumps({"model": identity, **record}, indent=1) + "\n")
    report = out.with_name(out.name + ".html")
    curves = losses(checkpoint_folder(out) / TENSORBOARD) if "history" in record else {}
    report.write_text(training_report(identity, config, record, stars, validation_survey, curves))
    facts = ", ".join(f"{key} {value}" for key, value in record.items() if key != "history")
    return f"{identity} written to {out} ({out.stat().st_size / 1e6:.1f} MB), report to {report}\n{facts}"


def train_gaussdis_model(
    survey: Path, start: Path | None, validation: Path | None, out: Path, *, name: str, device: str | None
) -> str:
    """Train GaussDis, write `out` and, of a survey with noise, the report `out`.html; return a summary."""
    started = time.monotonic()
    stars = Survey.open(survey)
    if stars.noise is None and start is None:
        tests = None if validation is None else Survey.open(validation)
        save_model(train_gaussdis.train(stars, tests, name), out)
        return _summary(out, started)
    if validation is not None:
        raise InputError("a survey with noise takes no --validation: groups left out judge the model")
    first, run = load_model(start or BRANCH), checkpoint_folder(out)
    if not isinstance(first, GaussDis):
        raise InputError(f"{start} is a {first.card.method}: training on noisy spectra starts from a gaussdis")
    trained = train_observed.train_observed(first, stars, name, run, choose_device(device))
    save_model(trained.model, out)
    report = out.with_name(out.name + ".html")
    report.write_text(observed_report(load_model(out).card.identity, trained, first, stars, run))
    return f"{_summary(out, started)}, report to {report}"


def _summary(out: Path, started: float) -> str:
    card, size = load_model(out).card, out.stat().st_size / 1e6
    seconds = time.monotonic() - started
    return f"{card.identity} written to {out} ({size:.1f} MB): {card.latent_dim} latents, {seconds:.0f} s"


def _is_follower() -> bool:
    """Whether another process of the same run writes the model."""
    return int(os.environ.get("RANK", "0")) > 0


def choose_device(name: str | None) -> torch.device:
    """The device of this name; by default this process's GPU, or the CPU."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(name)
    return torch.device(name)

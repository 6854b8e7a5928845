"""Search for the loss weights, of which the paper says that they decide (section 3.3.1), by Optuna.

    chemtwin lab search-weights train.h5 --validation validation.h5 --method faderdis --trials 9 --folder search

Every trial trains from the same start and is scored by the validation survey alone; those with low scores are
stopped early (shorten all with --set steps=...). A stopped search can be resumed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from model.errors import InputError
from training.config import NetworkConfig
from training.networks.network import save_frontend, train
from training.networks.preprocessing import Frontend
from training.networks.validation import check_validation
from training.surveys.survey import Survey

DECADES = 10.0
"""Weights are drawn log-uniformly within this factor of the configuration's own, either way."""

ENDED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def search(
    survey: Survey,
    validation: Survey,
    config: NetworkConfig,
    folder: Path,
    *,
    keys: tuple[str, ...],
    trials: int,
    device: torch.device,
) -> str:
    """Search for the best loss weights.

    Parameters
    ----------
    survey, validation : Survey
        The stars to train on, and the pairs that score a trial.
    config : NetworkConfig
        The settings that all trials share.
    folder : Path
        Where the study and the trials are written; a study there is resumed.
    keys : tuple of str
        The settings to search.
    trials : int
        Number of trials, those of a resumed study included.
    device : torch.device
        Where to train.

    Returns
    -------
    str
        A line for each trial, and the best settings as options for `chemtwin model train`.

    Raises
    ------
    InputError
        For a key that is no positive number in `config`, and for a folder of another search.
    """
    start = {key: getattr(config, key, None) for key in keys}
    for key, value in start.items():
        if not isinstance(value, float) or value <= 0:
            raise InputError(f"{key} is no positive number in this configuration: there is nothing to search")
    check_validation(survey, validation, config.parameters)
    folder.mkdir(parents=True, exist_ok=True)
    objective = _Objective(
        survey, validation, config, folder, keys, device, Frontend.fit(survey, config, device)
    )
    study = _study(folder, [survey.identity(), validation.identity(), str(config), list(keys)])
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    study.enqueue_trial(start, skip_if_exists=True)
    remaining = trials - len(study.get_trials(deepcopy=False, states=ENDED))
    study.optimize(objective, n_trials=max(0, remaining), catch=(InputError,))
    return _summary(study)


@dataclass(frozen=True)
class _Objective:
    """Trains a network with a trial's weights, and scores it; a network that does badly is stopped early."""

    survey: Survey
    validation: Survey
    config: NetworkConfig
    folder: Path
    keys: tuple[str, ...]
    device: torch.device
    frontend: Frontend

    def __call__(self, trial: optuna.Trial) -> float:
        """The best score of the network's validations."""
        weights: dict[str, Any] = {
            key: trial.suggest_float(key, value / DECADES, value * DECADES, log=True)
            for key, value in ((key, getattr(self.config, key)) for key in self.keys)
        }
        folder = self.folder / f"trial-{trial.number}"
        save_frontend(folder, self.frontend)

        def report(step: int, score: float) -> None:
            trial.report(score, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        run = train(
            self.survey,
            self.validation,
            dataclasses.replace(self.config, **weights),
            folder,
            name="trial",
            device=self.device,
            on_score=report,
        )
        return max(float(figures["score"]) for figures in run.record["history"])


def _study(folder: Path, identity: list[Any]) -> optuna.Study:
    """The study in `folder`, where interrupted trials are queued again. Raises InputError for another's."""
    study = optuna.create_study(
        study_name="weights",
        storage=f"sqlite:///{folder / 'study.db'}",
        load_if_exists=True,
        direction="maximize",
    )
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise InputError(f"{folder} holds a search of something else: remove it, or search in another folder")
    study.set_user_attr("identity", identity)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _summary(study: optuna.Study) -> str:
    """A line for each trial, and the best weights as options for `chemtwin model train`."""
    lines = [
        f"trial {t.number}: {', '.join(f'{key} {value:.3g}' for key, value in t.params.items())}: "
        + (t.state.name.lower() if t.value is None else f"score {t.value:.4f}")
        for t in study.trials
    ]
    if not study.get_trials(deepcopy=False, states=ENDED[:1]):
        return "\n".join([*lines, "no trial was completed"])
    best = " ".join(f"--set {key}={value:.4g}" for key, value in study.best_params.items())
    return "\n".join([*lines, f"best: {best} (score {study.best_value:.4f})"])

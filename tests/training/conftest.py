from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import made_once
from tests.training.small_surveys import thinned
from training.config import PRESETS, NetworkConfig, read_config
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

TINY = (
    "steps=60",
    "validate_every=30",
    "components=20",
    "encoder=[48]",
    "decoder=[48]",
    "adversary=[32]",
    "batch=128",
)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., NetworkConfig]:
    """A compact preset made small, with changes as key=value."""

    def make(method: str = "faderdis", *changes: str) -> NetworkConfig:
        config = read_config(PRESETS / f"{method}-compact.toml", (*TINY, 'continuum="survey"', *changes))
        assert isinstance(config, NetworkConfig)
        return config

    return make


@pytest.fixture(scope="session")
def xfe_survey(tmp_path_factory, emulator) -> Survey:
    """600 pairs that share [X/Fe] but differ in Teff, log g and [Fe/H]."""

    def make(folder: Path) -> None:
        synthesize(folder / "xfe.h5", emulator, 600, seed=404, own_fe_h=True)

    return Survey.open(made_once(tmp_path_factory, "xfe", make) / "xfe.h5")


@pytest.fixture(scope="session")
def thin_survey(tmp_path_factory, survey) -> Survey:
    """The pairs of `survey` at each fifth pixel, for trainings and fits that do not need APOGEE's grid."""

    def make(folder: Path) -> None:
        thinned(survey.path, folder / "thin.h5")

    return Survey.open(made_once(tmp_path_factory, "thin", make) / "thin.h5")


@pytest.fixture(scope="session")
def thin_xfe_survey(tmp_path_factory, xfe_survey) -> Survey:
    """The pairs of `xfe_survey` at each fifth pixel."""

    def make(folder: Path) -> None:
        thinned(xfe_survey.path, folder / "thin_xfe.h5")

    return Survey.open(made_once(tmp_path_factory, "thin_xfe", make) / "thin_xfe.h5")

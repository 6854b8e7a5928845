from collections.abc import Callable

import pytest

from tests.training.surveys import thinned
from training.config import PRESETS, NetworkConfig, read_config
from training.survey import Survey, synthesize

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
    path = tmp_path_factory.mktemp("xfe") / "xfe.h5"
    synthesize(path, emulator, 600, seed=404, own_fe_h=True)
    return Survey.open(path)


@pytest.fixture(scope="session")
def thin_survey(tmp_path_factory, survey) -> Survey:
    """The pairs of `survey` at each fifth pixel, for trainings and fits that do not need APOGEE's grid."""
    return Survey.open(thinned(survey.path, tmp_path_factory.mktemp("thin") / "thin.h5"))


@pytest.fixture(scope="session")
def thin_xfe_survey(tmp_path_factory, xfe_survey) -> Survey:
    """The pairs of `xfe_survey` at each fifth pixel."""
    return Survey.open(thinned(xfe_survey.path, tmp_path_factory.mktemp("thin") / "xfe.h5"))

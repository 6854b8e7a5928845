import dataclasses
from pathlib import Path

import pytest

from tests.training.test_config import NAMES
from training.config import NetworkConfig

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "training.md").read_text()


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(NetworkConfig)])
def test_every_key_of_a_configuration_is_documented(key):
    assert any(f"`{key}`" in line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `"))


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_documented(name):
    assert f"`{name}`" in TEXT

"""docs/settings.md against the settings."""

import re

from app.settings import Settings
from model.bundle import SHIPPED
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "settings.md"


def row(name):
    field = Settings.model_fields[name]
    default = "the shipped model" if field.default == SHIPPED else f"`{field.default}`"
    return f"| `CHEMTWIN_{name.upper()}` | {default} | {field.description} |\n"


def test_the_table_has_every_setting_and_no_other(write_outputs):
    table = "".join(row(name) for name in Settings.model_fields)
    before, after = re.split(r"(?:^\| `.*\n)+", PAGE.read_text(), flags=re.MULTILINE)
    if write_outputs:
        PAGE.write_text(before + table + after)
    assert PAGE.read_text() == before + table + after

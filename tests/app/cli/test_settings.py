"""docs/reference/settings.md against the settings."""

import re
from pathlib import Path

from app.settings import Settings
from model.bundle import SHIPPED
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "reference" / "settings.md"


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


def test_the_cache_is_beside_a_file_and_in_the_data_folder_for_a_database():
    assert Settings(data_dir="d").cache_folder == Path("d")
    assert Settings(data_dir="d", store="elsewhere/s.sqlite").cache_folder == Path("elsewhere")
    assert Settings(data_dir="d", store="postgresql://host/stars").cache_folder == Path("d")

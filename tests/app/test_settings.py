from pathlib import Path

from app.settings import Settings
from tests.conftest import ROOT


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        line = next((line for line in text.splitlines() if f"`CHEMTWIN_{name.upper()}`" in line), None)
        assert line is not None, f"docs/settings.md does not list CHEMTWIN_{name.upper()}"
        assert field.description in line
        if not isinstance(field.default, Path):
            assert f"`{field.default}`" in line


def test_every_documented_setting_exists():
    text = (ROOT / "docs" / "settings.md").read_text()
    listed = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `CHEMTWIN_")}
    assert listed == {f"CHEMTWIN_{name.upper()}" for name in Settings.model_fields}


def test_the_cache_is_beside_a_file_and_in_the_data_folder_for_a_database():
    assert Settings(data_dir="d").cache_folder == Path("d")
    assert Settings(data_dir="d", store="elsewhere/s.sqlite").cache_folder == Path("elsewhere")
    assert Settings(data_dir="d", store="postgresql://host/stars").cache_folder == Path("d")

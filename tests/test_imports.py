"""Which package may import which: the contracts in pyproject.toml."""

from importlinter.cli import lint_imports

from tests.conftest import ROOT


def test_imports_go_one_way_and_in_no_circle(capsys):
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out

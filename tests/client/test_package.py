"""The client stands alone: it imports what it declares, and nothing of the service."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

CLIENT = ROOT / "client"
PROJECT = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
BLOCKED = ("torch", "faiss", "fastapi", "pydantic", "uvicorn", "h5py", "app", "index", "model", "training")


@pytest.mark.slow
def test_it_imports_without_torch_and_without_the_service(tmp_path):
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r})); sys.path.insert(0, {str(CLIENT)!r})\n"
        "import chemtwin_client\n"
        "assert 'specutils' not in sys.modules  # it takes seconds, and only recasts need it\n"
        "chem = chemtwin_client.Chemtwin()\n"
        "from specutils import Spectrum\n"
        "print(chem)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PATH": ""},
    )  # fmt: skip
    assert done.stdout == "Chemtwin('http://localhost:8000')\n"


def test_what_it_imports_is_what_it_declares():
    found = set()
    for path in (CLIENT / "chemtwin_client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.partition(".")[0] for name in names}
    declared = {re.split(r"[>=]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert found - sys.stdlib_module_names - {"chemtwin_client"} == declared


@pytest.mark.slow
def test_it_builds_with_its_types_and_can_be_installed(tmp_path):
    build = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    copy = tmp_path / "client"  # setuptools builds beside the sources
    subprocess.run(["cp", "-r", str(CLIENT), str(copy)], check=True)
    subprocess.run([*build, str(copy)], check=True, capture_output=True)
    assert (tmp_path / "site" / "chemtwin_client" / "py.typed").exists()
    (metadata,) = (tmp_path / "site").glob("chemtwin_client-*.dist-info/METADATA")
    written = metadata.read_text()
    assert "Requires-Dist: specutils>=2.0" in written
    assert "Version: 0.1.0" in written

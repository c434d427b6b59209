"""The three laws and the floors of the house. (Laws 1 and 2 at work: test_run.py.)"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_store import record

import sparsebench
from sparsebench.errors import StoreError
from sparsebench.record import OUTCOMES, Record

ROOT = Path(__file__).parent.parent
BANNED = ("torch", "cupy", "triton")
NOUNS_AND_DESK = """
import importlib, pkgutil, sys
import sparsebench
from sparsebench.kernel import load_kernels
for module in pkgutil.walk_packages(sparsebench.__path__, "sparsebench."):
    if module.name.split(".")[1] not in ("lab", "kernels", "suites", "cli", "commands"):
        importlib.import_module(module.name)
load_kernels()
print(*[name for name in sys.modules if name.split(".")[0] in {banned}])
"""


def test_the_package_docstring_states_the_laws():
    for law in (
        "1. One trial makes exactly one record",
        "2. No time without a green check",
        "3. The desk never imports torch",
    ):
        assert law in (sparsebench.__doc__ or "")


@pytest.mark.parametrize("outcome", [outcome for outcome in OUTCOMES if outcome != "ok"])
def test_law_2_times_exist_only_on_ok(outcome):
    with pytest.raises(StoreError, match="times exist only on ok"):
        record(outcome=outcome)
    line = record().to_json().replace('"outcome":"ok"', f'"outcome":"{outcome}"')
    with pytest.raises(StoreError, match="times exist only on ok"):
        Record.from_json(line)


def test_law_3_nouns_desk_and_faces_load_without_torch_cupy_or_triton():
    code = NOUNS_AND_DESK.replace("{banned}", repr(set(BANNED)))
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


# As where they are not installed. (None in sys.modules would not do: scipy takes a name in there for a module.)
NOT_INSTALLED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {banned}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def test_law_3_the_desk_works_where_torch_cannot_be_imported():
    code = (NOT_INSTALLED + NOUNS_AND_DESK).replace("{banned}", repr(BANNED))
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for name in BANNED:
        blocked = (NOT_INSTALLED + f"import {name}").replace("{banned}", repr(BANNED))
        assert subprocess.run([sys.executable, "-c", blocked], check=False, capture_output=True).returncode == 1


def test_every_package_is_in_the_wheel():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {path.parent for path in (ROOT / "sparsebench").rglob("*.py")}
    assert listed == {".".join(folder.relative_to(ROOT).parts) for folder in folders} | {
        "sparsebench.kernels",
        "sparsebench.suites",
    }


def test_the_command_line_starts_without_torch():
    code = "import sys, sparsebench.cli; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_top_level_module_is_called_kernels_or_suites():
    code = "import importlib.util as u, sys; sys.exit(bool(u.find_spec('kernels') or u.find_spec('suites')))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_floors_hold():
    """import-linter reads the contract in pyproject.toml: nouns <- lab | desk <- cli, and no cycles."""
    pytest.importorskip("importlinter", reason="import-linter is not installed (extra ci)")
    lint = "from importlinter.cli import lint_imports_command as lint; lint()"
    found = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr

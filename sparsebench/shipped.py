"""Suites, networks and plans by name: an existing file wins, else one that ships with the package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from sparsebench.errors import SuiteError
from sparsebench.yaml_marks import near

_HOME = Path(str(files("sparsebench.suites")))


def shipped_suites() -> dict[str, Path]:
    """The suites that ship with the package, by name."""
    return {path.stem: path for path in sorted(_HOME.glob("*.yaml"))}


def shipped_networks() -> dict[str, Path]:
    """The networks that ship with the package, by name."""
    return {path.stem: path for path in sorted((_HOME / "networks").glob("*.yaml"))}


def shipped_plans() -> dict[str, Path]:
    """The plans that ship with the package, by name."""
    return {path.stem: path for path in sorted((_HOME / "plans").glob("*.yaml"))}


def resolve_suite(name_or_path: str) -> Path:
    """The file of a suite; SuiteError where there is neither such a file nor a shipped suite of that name."""
    return _resolve("suite", name_or_path, shipped_suites(), Path())


def resolve_network(name_or_path: str, root: Path = Path()) -> Path:
    """The file of a network, relative to `root`; SuiteError where there is neither such a file nor a shipped one."""
    return _resolve("network", name_or_path, shipped_networks(), root)


def resolve_plan(name_or_path: str) -> Path:
    """The file of a plan; SuiteError where there is neither such a file nor a shipped plan of that name."""
    return _resolve("plan", name_or_path, shipped_plans(), Path())


def _resolve(what: str, name: str, shipped: Mapping[str, Path], root: Path) -> Path:
    if _is_file(root / name):
        return root / name
    if name in shipped:
        return shipped[name]
    raise SuiteError(
        f"{what} {name!r} is neither a file below {root.resolve()} nor one that ships{near(name, shipped)}"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or a zero byte in it
        return False

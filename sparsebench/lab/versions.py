"""Versions of what made the code that runs, read without importing any of it: they are part of every record's key."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from sparsebench.lab.build import compiler_version

# The wheels of CuPy are named after the CUDA they were built for.
_PACKAGES = ("torch", "numpy", "scipy", "triton", "cupy", "cupy-cuda12x", "cupy-cuda13x")


@lru_cache(maxsize=1)
def code_versions() -> dict[str, str]:
    """{package or "cc": version} of what is installed; what is absent is left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if cc := compiler_version():
        found["cc"] = cc
    return found


def host_facts() -> dict[str, Any]:
    """What surrounds a measurement: the system, and the load of the last minute (1.0 is one busy core)."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(psutil.getloadavg()[0], 2),
    }

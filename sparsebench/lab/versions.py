"""Versions of what made the code that runs, read without importing any of it: they are part of every record's key."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from sparsebench.lab.build import compiler_version

# The wheels of CuPy are named after the CUDA they were built for.
_PACKAGES = (
    "torch", "numpy", "scipy", "triton", "cupy", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cuda-nvrtc",
    "nvidia-cuda-nvrtc-cu12", "mkl", "sparse_dot_mkl",
)  # fmt: skip


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


@lru_cache(maxsize=1)
def driver() -> str | None:
    """Version of the NVIDIA driver by NVML, or None without one."""
    try:
        import pynvml  # nvidia-ml-py: comes with the CUDA extras

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no module, no library, no driver: no GPU to speak of
        return None


def host_facts() -> dict[str, Any]:
    """What surrounds a measurement: the system, the GPU's driver, the load of the last minute (1.0: one busy core)."""
    return {
        **({"driver": found} if (found := driver()) else {}),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(psutil.getloadavg()[0], 2),
    }

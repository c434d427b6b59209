"""What several test files share: how hypothesis draws, and one toolchain in which each body is compiled once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cuda_on_cpu.toolchain import ShimToolchain
from hypothesis import settings
from kernel_cases import strict_compiler
from own_builds import build_all

from sparsebench.lab.build import CpuToolchain, missing_need

# No deadline: on a shared machine any example may take long. In CI the examples are fixed, so that red stays red.
settings.register_profile("calm", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("calm")


@pytest.fixture(scope="session", autouse=True)
def _every_process_compiles_alike() -> Iterator[None]:
    """Workers and guarded processes find in the user's cache what this one built; a warning is an error to all."""
    with pytest.MonkeyPatch.context() as patch:
        if missing_need("cc") is None:
            patch.setenv("CC", strict_compiler())
        yield


@pytest.fixture(scope="session")
def toolchain(_every_process_compiles_alike: None) -> CpuToolchain:
    """One toolchain for all, with every own body built (where there is a compiler)."""
    shared = CpuToolchain()
    if missing_need("cc") is None:
        build_all(shared)
    return shared


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ShimToolchain]:
    """Makes toolchains that run CUDA bodies here, one cache for all; $SPARSEBENCH_SHIM_CACHE keeps it for later."""
    kept = os.environ.get("SPARSEBENCH_SHIM_CACHE")
    cache = Path(kept) if kept else tmp_path_factory.mktemp("shim")
    return lambda **asked: ShimToolchain(cache, **asked)

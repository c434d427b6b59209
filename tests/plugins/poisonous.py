"""Kernels whose faults outlive their own trial: blame must not fall on whoever comes next in the same process."""

from __future__ import annotations

import ctypes

import numpy as np

from sparsebench.formats import Csr
from sparsebench.kernel import Kernel, Launch

POISONED: list[str] = []


def product(packed: Csr, x: np.ndarray) -> np.ndarray:
    """The right answer, slowly."""
    return (packed.to_dense() @ x).astype(np.float32)


def giver(case, packed, x, toolchain) -> Launch:
    """Right itself, but from now on the process is not what it was."""
    POISONED.append("giver")
    return Launch(lambda: product(packed, x))


def taker(case, packed, x, toolchain) -> Launch:
    """Right in a fresh process, dead in one that `giver` ran in."""
    if POISONED:
        ctypes.string_at(0)
    return Launch(lambda: product(packed, x))


def deadly(case, packed, x, toolchain) -> Launch:
    """Dead wherever it runs."""
    return Launch(lambda: ctypes.string_at(0))


KERNELS = [
    Kernel(name=f"poison.{each.__name__}", format=Csr, prepare=each, about="a planted fault", source="tests")
    for each in (giver, taker, deadly)
]

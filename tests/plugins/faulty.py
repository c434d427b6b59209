"""Kernels that misbehave, each in one way, on top of a right one. The lab must turn every one into its own record."""

from __future__ import annotations

import ctypes
import time
from collections import Counter

import numpy as np

from sparsebench.formats import Csr
from sparsebench.kernel import Kernel, Launch

CALLS: Counter[str] = Counter()
LATER = 8  # beyond the two checked calls, within the at least twelve of a hot timing: in the middle of the clock


def product(packed: Csr, x: np.ndarray) -> np.ndarray:
    """The right answer, slowly."""
    return (packed.to_dense() @ x).astype(np.float32)


def crash(case, packed, x, toolchain) -> Launch:
    return Launch(lambda: ctypes.string_at(0))


def crash_in_the_clock(case, packed, x, toolchain) -> Launch:
    """Right for the checks and the first warm-up calls, dead in the middle of the timing."""

    def run() -> np.ndarray:
        CALLS["crash_in_the_clock"] += 1
        return product(packed, x) if CALLS["crash_in_the_clock"] < LATER else ctypes.string_at(0)  # type: ignore[return-value]

    return Launch(run)


def hang(case, packed, x, toolchain) -> Launch:
    return Launch(lambda: time.sleep(3600))


def endless(case, packed, x, toolchain) -> Launch:
    def run() -> np.ndarray:
        held = []
        while True:
            held.append(np.ones(2**24))  # 128 MiB a turn

    return Launch(run)


def silent(case, packed, x, toolchain) -> Launch:
    y = toolchain.output((case.m, case.n))
    return Launch(lambda: y, y)


def turning(case, packed, x, toolchain) -> Launch:
    """Right for its first calls, wrong later: what a check before the clock alone would let pass."""

    def run() -> np.ndarray:
        CALLS["turning"] += 1
        return product(packed, x) + (CALLS["turning"] >= LATER)

    return Launch(run)


def remembering(case, packed, x, toolchain) -> Launch:
    """Answers what it computed when it was prepared, whatever X holds now."""
    y = product(packed, x)
    return Launch(y.copy)


def caching(case, packed, x, toolchain) -> Launch:
    """Computes when the first entry of X has changed, else answers what it has."""
    y, seen = toolchain.output((case.m, case.n)), []

    def run() -> np.ndarray:
        if seen != x.flat[:1].tolist():
            seen[:] = x.flat[:1].tolist()
            y[...] = product(packed, x)
        return y

    return Launch(run, y)


def lazy(case, packed, x, toolchain) -> Launch:
    """Right while it is checked, then it leaves Y as it is until it is checked again."""
    y = toolchain.output((case.m, case.n))

    def run() -> np.ndarray:
        CALLS["lazy"] += 1
        if CALLS["lazy"] < LATER:
            y[...] = product(packed, x)
        return y

    return Launch(run, y)


def changing(case, packed, x, toolchain) -> Launch:
    """Changes X by less than any gate sees in Y."""
    y = toolchain.output((case.m, case.n))

    def run() -> np.ndarray:
        y[...] = product(packed, x)
        x[0, 0] = np.nextafter(x[0, 0], np.float32(9), dtype=np.float32)
        return y

    return Launch(run, y)


def scribbling(case, packed, x, toolchain) -> Launch:
    """Right, and writes one byte too many."""
    y = toolchain.output((case.m, case.n))

    def run() -> np.ndarray:
        y[...] = product(packed, x)
        ctypes.memset(y.ctypes.data + y.nbytes, 0, 1)
        return y

    return Launch(run, y)


def raising(case, packed, x, toolchain) -> Launch:
    raise ZeroDivisionError("planted")


def _kernel(prepare) -> Kernel:
    return Kernel(
        name=f"fault.{prepare.__name__}", format=Csr, prepare=prepare, about="a planted fault", source="tests"
    )


FAULTS = (
    crash, crash_in_the_clock, hang, endless, silent, turning,
    remembering, caching, lazy, changing, scribbling, raising,
)  # fmt: skip
KERNELS = [_kernel(prepare) for prepare in FAULTS]

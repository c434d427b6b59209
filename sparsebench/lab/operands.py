"""Operands where a kernel finds them: fenced, in its layout, and one output full of NaN for all of its launches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import NUMPY_DTYPES, Case
from sparsebench.kernel import Launch
from sparsebench.lab.build import CpuToolchain
from sparsebench.lab.stopwatch import Stopwatch
from sparsebench.lab.tamper import fenced

LAYOUT_ROUNDS = 9


class OutputToolchain(CpuToolchain):
    """The toolchain of one contestant: all its launches write one Y, so that rotating over W does not cool Y too."""

    def __init__(self, threads: int, watch: Stopwatch | None = None) -> None:
        super().__init__(threads)
        self._watch = watch or Stopwatch()
        self._outputs: dict[tuple[tuple[int, ...], str], np.ndarray] = {}

    def c(self, body: Path, **macros: int) -> Any:
        """As CpuToolchain.c; the time counts as `build`."""
        with self._watch.part("build"):
            return super().c(body, **macros)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """The one buffer of this shape and dtype, filled with NaN."""
        if (shape, dtype) not in self._outputs:
            self._outputs[shape, dtype] = fenced(np.full(shape, np.nan, NUMPY_DTYPES[dtype]))
        return self._outputs[shape, dtype]


def in_layout(x: np.ndarray, case: Case) -> np.ndarray:
    """X [k, n] as the layout and dtype of `case` store it, a copy of its own; activation tensors stay as they are."""
    native = x if case.conv is not None or case.layout == "feature" else x.T
    return fenced(native.astype(NUMPY_DTYPES[case.dtype], copy=False))


def fill_with_nan(launch: Launch) -> None:
    """Fill the output with NaN, so that an entry never written shows."""
    if launch.y is not None:
        (launch.y.fill_ if hasattr(launch.y, "fill_") else launch.y.fill)(np.nan)


def run_filled(launch: Launch) -> Any:
    """One call with its output filled with NaN first; a copy of Y."""
    fill_with_nan(launch)
    y = launch.run()
    return y.clone() if hasattr(y, "clone") else np.array(y)


def layout_change_s(case: Case, native: Case) -> float:
    """Median seconds to bring X from the case's layout to the native one and Y back; 0 where they agree."""
    if case.layout == native.layout or case.conv is not None:
        return 0.0
    import torch  # its transposing copy is blocked; numpy's walks one side with a stride and takes several times longer

    shapes = [(case.k, case.n), (case.n, case.m)] if case.layout == "feature" else [(case.n, case.k), (case.m, case.n)]
    dtype = getattr(torch, case.dtype)
    pairs = [(torch.zeros(shape, dtype=dtype), torch.empty(shape[::-1], dtype=dtype)) for shape in shapes]
    times_s = []
    for _ in range(LAYOUT_ROUNDS):
        start_s = time.perf_counter()
        for source, target in pairs:
            target.copy_(source.T)
        times_s.append(time.perf_counter() - start_s)
    return float(np.median(times_s))

"""Operands where a kernel finds them: fenced, in its layout, and outputs full of NaN that its launches share."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import NUMPY_DTYPES, Case
from sparsebench.kernel import Launch
from sparsebench.lab.build import CpuToolchain
from sparsebench.lab.stopwatch import Stopwatch
from sparsebench.lab.tamper import fenced

LAYOUT_ROUNDS = 9
SCRATCH_AXES = 5  # of scratch; no Y has as many


class OutputToolchain(CpuToolchain):
    """The toolchain of one contestant: its launches write a few Ys in turn and share all scratch.

    Where Y lies matters, and goes on to matter for as long as it lies there: ten Ys of 320x1536 made csr.c 0.79 to 1.14
    times as fast as dense, each the same in all rounds, while ten copies of W or X differed by 2 % (EPYC, Zen 3, whose
    first-level cache guesses ways from a hash of the address). In a network Y is elsewhere in every call. One Y would
    be one draw of that luck for a whole trial, however many rounds it has.

    Many launches write the same Y before it is the next one's turn (gates.STAY). One that rested for eight rounds is in
    no cache, and libraries, which allocate their own, write one that they have just freed, as layers of a network do.
    With another Y in every call bsr.c took 0.50 ms for 512x128 in 4x1 blocks, 90 %, n = 784, with the same one 0.21,
    and 0.21 amid ResNet-50; 0.65 and 0.37 for 64 channels of 56x56 (one Emerald Rapids core, 2 MiB of L2). One of 3 MB
    was at home after six calls: 0.95 0.87 0.79 0.67 0.58 0.45 0.43 0.44 ms.
    """

    def __init__(self, threads: int, watch: Stopwatch | None = None) -> None:
        super().__init__(threads)
        self._watch = watch or Stopwatch()
        self._outputs: dict[tuple[int, tuple[int, ...], str], np.ndarray] = {}
        self._place = 0

    def c(self, body: Path, **macros: int) -> Any:
        """As CpuToolchain.c; the time counts as `build`."""
        with self._watch.part("build"):
            return super().c(body, **macros)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """The buffer of this shape and dtype at the place in turn, filled with NaN; scratch has one place."""
        about = 0 if len(shape) == SCRATCH_AXES else self._place, shape, dtype
        if about not in self._outputs:
            self._outputs[about] = fenced(np.full(shape, np.nan, NUMPY_DTYPES[dtype]))
        return self._outputs[about]

    def turn_to(self, place: int) -> None:
        """Let what is prepared from now on write the Y of this number."""
        self._place = place


def in_layout(x: np.ndarray, case: Case) -> np.ndarray:
    """X as the layout and dtype of `case` store it, a copy of its own.

    [k, n], or [n, k] for `batch`; images are [batch, c, h, w] in both, which for `batch` lie as [batch, h, w, c].
    """
    x = x.astype(NUMPY_DTYPES[case.dtype], copy=False)
    if case.layout == "feature":
        return fenced(x)
    if case.conv is None:
        return fenced(x.T)
    return fenced(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def lying_as(x: Any, case: Case) -> Any:
    """A tensor X as the layout of `case` stores it: itself where it lies so already."""
    import torch

    last = case.conv is not None and case.layout == "batch"
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def spoil(outputs: Iterable[Any]) -> None:
    """Fill Ys with NaN, so that an entry never written shows."""
    for y in outputs:
        (y.fill_ if hasattr(y, "fill_") else y.fill)(np.nan)


def run_filled(launch: Launch) -> Any:
    """One call with its output filled with NaN first; a copy of Y."""
    spoil([launch.y] if launch.y is not None else [])
    y = launch.run()
    return y.clone() if hasattr(y, "clone") else np.array(y)


def layout_change_s(case: Case, native: Case) -> float:
    """Median seconds to bring X from the case's layout to the native one and Y back; 0 where they agree."""
    if case.layout == native.layout:
        return 0.0
    import torch  # its transposing copy is blocked; numpy's walks one side with a stride and takes several times longer

    dtype = getattr(torch, case.dtype)
    if case.conv is None:
        shapes = [(case.k, case.n), (case.n, case.m)]
        shapes = shapes if case.layout == "feature" else [shape[::-1] for shape in shapes]
        pairs = [(torch.zeros(shape, dtype=dtype), torch.empty(shape[::-1], dtype=dtype)) for shape in shapes]
        pairs = [(source.T, target) for source, target in pairs]
    else:
        x, y = torch.zeros(x_shape(case), dtype=dtype), torch.zeros(y_shape(case), dtype=dtype)
        pairs = [(x, lying_as(x, native).clone()), (lying_as(y, native).clone(), y)]
    times_s = []
    for _ in range(LAYOUT_ROUNDS):
        start_s = time.perf_counter()
        for source, target in pairs:
            target.copy_(source)
        times_s.append(time.perf_counter() - start_s)
    return float(np.median(times_s))


def x_shape(case: Case) -> tuple[int, ...]:
    """The shape of X as the layout of `case` stores it."""
    if case.conv is not None:
        return case.conv.batch, case.conv.c, case.conv.h, case.conv.w
    return (case.k, case.n) if case.layout == "feature" else (case.n, case.k)


def y_shape(case: Case) -> tuple[int, ...]:
    """The shape of Y as the layout of `case` stores it."""
    if case.conv is not None:
        return case.conv.batch, case.m, case.conv.oh, case.conv.ow
    return (case.m, case.n) if case.layout == "feature" else (case.n, case.m)

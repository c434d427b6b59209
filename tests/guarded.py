"""Run all own C bodies on arrays that end (or start) at a page without access: one byte too far kills this process.

    python tests/guarded.py end|start|heap CACHE_FOLDER [PLANTED_FAULT]

On the problems of kernel_cases.py, then on shapes that hypothesis draws, the same ones in each run. Prints kernel,
dtype, cache and case before each runs, so the last line names the culprit.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from dataclasses import fields, is_dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    ANY,
    CONVOLUTIONS,
    MACHINE,
    OWN,
    convolution_for,
    drawn_problems,
    in_layout,
    packed_for,
    problems_for,
    question_for,
)
from own_builds import build_all
from sparsebench.kernels import _strips, _structs

from sparsebench import Case, Conv, Kernel
from sparsebench.case import NUMPY_DTYPES, DType
from sparsebench.lab import build
from sparsebench.lab.build import CpuToolchain

PAGE = mmap.PAGESIZE
KEPT: list[mmap.mmap] = []  # a map must outlive the arrays in it
UNOPTIMISED = (*build.FLAGS, "-O0")  # under the sanitizers, where optimising takes minutes
LIBC = ctypes.CDLL(None, use_errno=True)
EVERY = {(kernel.name, dtype) for kernel in OWN for dtype in kernel.dtypes}  # each is the start of a printed line
# Drawn shapes a dtype of a kernel, and of a convolution. They are small: a small cache has them cut all the same.
GEMMS, CONVS = 35, 15
CACHES = (_strips.l2_bytes(), 2**12)  # bytes of the second level


def guarded(array: np.ndarray, side: str) -> np.ndarray:
    """A copy of `array` whose first or last byte touches a page that may be neither read nor written.

    With side "heap" it is a plain copy, whose ends the address sanitizer knows.
    """
    if side == "heap":
        return np.array(array)
    pages = -(-max(array.nbytes, 1) // PAGE) + 1
    memory = mmap.mmap(-1, pages * PAGE)
    KEPT.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    no_access = start if side == "start" else start + (pages - 1) * PAGE
    if LIBC.mprotect(ctypes.c_void_p(no_access), ctypes.c_size_t(PAGE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE if side == "start" else (pages - 1) * PAGE - array.nbytes
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def guarded_fields(packed: Any, side: str) -> Any:
    """`packed` with all its arrays guarded, those of its levels too."""
    if isinstance(packed, np.ndarray):
        return guarded(packed, side)
    if isinstance(packed, tuple):
        return tuple(guarded_fields(part, side) for part in packed)
    if is_dataclass(packed) and not isinstance(packed, type):
        return replace(packed, **{f.name: guarded_fields(getattr(packed, f.name), side) for f in fields(packed)})
    return packed


class GuardedToolchain(CpuToolchain):
    """Hands out guarded output buffers, and remembers which builds it was asked for."""

    side = "end"

    def __init__(self, cache: Path) -> None:
        super().__init__(cache=cache)
        self.asked: set[tuple[str, tuple[tuple[str, int], ...]]] = set()

    def c(self, body: Path, **macros: int) -> ctypes.CDLL:
        self.asked.add((str(body.resolve()), tuple(sorted(macros.items()))))
        return super().c(body, **macros)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        return guarded(np.full(shape, np.nan, NUMPY_DTYPES[dtype]), self.side)


def run(kernel: Kernel, case: Case, toolchain: GuardedToolchain, cache_bytes: int = CACHES[0]) -> None:
    """One answer from guarded operands, made as for this cache; exits when it is wrong."""
    print(kernel.name, case.dtype, f"cache={cache_bytes}", case, flush=True)
    _strips.l2_bytes = lambda: cache_bytes
    question, draw = question_for(case, "integers")
    packed = guarded_fields(packed_for(kernel, case, question, draw), toolchain.side)
    launch = kernel.prepare(case, packed, guarded(in_layout(question.x, case), toolchain.side), toolchain)
    verdict = question.judge(launch.run(), case)
    if not verdict.ok:
        sys.exit(f"{kernel.name}: {verdict.reason}")
    KEPT.clear()


def run_listed(kernel: Kernel, dtype: DType, toolchain: GuardedToolchain) -> None:
    """All problems of kernel_cases.py."""
    for problem in problems_for(kernel, dtype):
        for n, layout in product(problem.columns, kernel.layouts):
            run(kernel, problem.case(kernel, n, layout, dtype), toolchain)
    for conv in CONVOLUTIONS if "conv2d" in kernel.ops else ():
        run(kernel, convolution_for(kernel, conv, dtype=dtype), toolchain)


@st.composite
def gemms(draw: st.DrawFn, kernel: Kernel, dtype: DType) -> Case:
    """Any product that this kernel takes, m and k up to about 40 and n up to 150."""
    pattern = draw(st.sampled_from(kernel.format.patterns or ANY))
    m, k, params, sparsity = draw(drawn_problems(pattern))
    n, layout, seed = draw(st.integers(1, 150)), draw(st.sampled_from(kernel.layouts)), draw(st.integers(0, 1000))
    weights = {"pattern": pattern, "params": params, "sparsity": sparsity, "seed": seed}
    case = Case(m=m, k=k, n=n, layout=layout, dtype=dtype, **weights)
    assume(kernel.why_not(case, MACHINE) is None)
    return case


@st.composite
def convolutions(draw: st.DrawFn, kernel: Kernel, dtype: DType) -> Case:
    """Any small convolution, kernels that hang over the edges and strides that leave pixels out among them."""
    kh, kw, padding = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(0, 2))
    h, w = (draw(st.integers(max(1, side - 2 * padding), 12)) for side in (kh, kw))
    few = st.integers(1, 3)
    conv = Conv(draw(few), h, w, kh, kw, stride=draw(few), padding=padding, batch=draw(few))
    case = convolution_for(kernel, conv, 4 * draw(st.integers(1, 4)), dtype)
    assume(kernel.why_not(case, MACHINE) is None)
    return case


def run_drawn(kernel: Kernel, dtype: DType, toolchain: GuardedToolchain) -> None:
    """Shapes by hypothesis. Where a wrong answer is found, the last line names the smallest that shows it."""
    asked = {"gemm": (gemms, GEMMS), "conv2d": (convolutions, CONVS)}
    for cases, count in (asked[op] for op in kernel.ops):

        @settings(max_examples=count, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
        @given(cases(kernel, dtype), st.sampled_from(CACHES))
        def draw_and_run(case: Case, cache_bytes: int) -> None:
            run(kernel, case, toolchain, cache_bytes)

        draw_and_run()


def run_all(toolchain: GuardedToolchain) -> None:
    """Every body in every dtype; exits too when it asked for a build that own_builds.py does not list."""
    _structs.placed = lambda array, dtype=None: guarded(np.ascontiguousarray(array, dtype), toolchain.side)
    build_all(toolchain)
    listed = set(toolchain.asked)
    for kernel in OWN:
        for dtype in kernel.dtypes:
            run_listed(kernel, dtype, toolchain)
            run_drawn(kernel, dtype, toolchain)
    if toolchain.asked != listed:
        sys.exit(f"own_builds.py does not list {sorted(toolchain.asked - listed)}")


FAULTS = {
    "none": "y[0] = x[m + k + n];",
    "reads-after-x": "y[m] = x[n * k];",
    "reads-before-x": "y[m + n + k] = x[-1];",
    "writes-after-y": "y[n * m] = x[k];",
}


def run_fault(name: str, toolchain: GuardedToolchain, folder: Path) -> None:
    """A body with a planted fault, in guarded arrays."""
    body = folder / "fault.c"
    body.write_text(f"void fault(long m, long k, long n, const float* x, float* y) {{ {FAULTS[name]} }}\n")
    x, y = (guarded(np.ones(shape, np.float32), toolchain.side) for shape in ((6, 5), (4, 5)))
    addresses = (ctypes.c_void_p(array.ctypes.data) for array in (x, y))
    partial(toolchain.c(body).fault, *map(ctypes.c_long, (4, 6, 5)), *addresses)()


def main(side: str, cache: str, fault: str | None = None) -> None:
    GuardedToolchain.side = side
    # The address sanitizer came first in this process so that it can load bodies; a compiler under it takes minutes.
    os.environ.pop("LD_PRELOAD", None)
    if side == "heap":
        build.FLAGS = UNOPTIMISED
    toolchain = GuardedToolchain(cache=Path(cache))
    if fault:
        run_fault(fault, toolchain, Path(cache))
        print("done")
    else:
        run_all(toolchain)


if __name__ == "__main__":
    main(*sys.argv[1:])

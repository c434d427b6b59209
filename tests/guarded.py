"""Run all own C bodies on arrays that end (or start) at a page without access: one byte too far kills this process.

    python tests/guarded.py end|start|heap CACHE_FOLDER [PLANTED_FAULT]

Prints each kernel and problem before it runs, so the last line names the culprit.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import fields, is_dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from kernel_cases import CONVOLUTIONS, OWN, convolution_for, in_layout, problems_for, question_for
from sparsebench.kernels import _strips

from sparsebench import Case, Kernel
from sparsebench.lab import build
from sparsebench.lab.build import CpuToolchain

PAGE = mmap.PAGESIZE
KEPT: list[mmap.mmap] = []  # a map must outlive the arrays in it
UNOPTIMISED = (*build.FLAGS, "-O0")  # under the sanitizers, where optimising takes minutes
LIBC = ctypes.CDLL(None, use_errno=True)


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
    """Hands out guarded output buffers."""

    side = "end"

    def output(self, shape: tuple[int, ...]) -> np.ndarray:
        return guarded(np.full(shape, np.nan, np.float32), self.side)


def run(kernel: Kernel, case: Case, label: str, toolchain: GuardedToolchain) -> None:
    """One answer from guarded operands; exits when it is wrong."""
    print(kernel.name, label, f"n={case.n}", flush=True)
    question, draw = question_for(case, "integers")
    packed = guarded_fields(kernel.format.from_dense(question.w, draw.mask, draw.structure), toolchain.side)
    launch = kernel.prepare(case, packed, guarded(in_layout(question.x, case), toolchain.side), toolchain)
    verdict = question.judge(launch.run(), case)
    if not verdict.ok:
        sys.exit(f"{kernel.name}: {verdict.reason}")
    KEPT.clear()


def run_all(toolchain: GuardedToolchain) -> None:
    _strips.placed = lambda array, dtype=None: guarded(np.ascontiguousarray(array, dtype), toolchain.side)
    for kernel in OWN:
        for problem in problems_for(kernel):
            for n, layout in product(problem.columns, kernel.layouts):
                run(kernel, replace(problem.case(kernel, n), layout=layout), f"{problem.label} {layout}", toolchain)
        for conv in CONVOLUTIONS if "conv2d" in kernel.ops else ():
            run(kernel, convolution_for(kernel, conv), str(conv), toolchain)


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

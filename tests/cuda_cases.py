"""What the CUDA C++ bodies are asked: few, telling cases for each kernel, dtype, math and layout.

Small enough for the shim: a case takes about half a second of compilation and a few milliseconds to run. Which n meets
which problem turns with dtype and layout, so that all of them together meet each n often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from kernel_cases import CONVOLUTIONS, PROBLEMS, Problem, convolution_for, levels

from sparsebench import Case, Kernel, Machine, load_kernels
from sparsebench.case import NUMPY_DTYPES

GPU = Machine(
    device="cuda", name="NVIDIA H100", memory_gib=80, cores=132, isa=("sm_90",), cache_bytes=50 * 2**20
)  # what limits are asked about
KERNELS = [kernel for kernel in load_kernels() if "cuda" in kernel.devices and (kernel.body or "").endswith(".cu")]
COLUMNS = (1, 2, 3, 7, 8, 16, 17, 33, 64, 65, 130)
ANY = ("unstructured", "dense")  # asked of formats that store every pattern

# Larger than those of kernel_cases.py: several tiles along m and k, rings that turn, warps with more than one part.
LARGER: Mapping[str, tuple[Problem, ...]] = {
    "unstructured": (Problem("many-rows", 150, 300, 0.9), Problem("one-long-row", 3, 700, 0.2)),
    "block": (
        Problem("block-8x8-many", 72, 160, 0.7, {"block": [8, 8]}),
        Problem("block-1x4-many", 70, 200, 0.8, {"block": [1, 4]}),
        Problem("block-4x4", 68, 84, 0.75, {"block": [4, 4]}),
    ),
    "hierarchical": (Problem("levels-many", 96, 160, None, levels((16, 16, 0.5), (4, 1, 0.8), (1, 1, 0.9))),),
    "constant_fan_in": (
        Problem("fan-in-many", 140, 330, 0.9),
        Problem("fan-in-ablated-many", 90, 128, 0.75, {"ablated": 0.3}),
    ),
    "rbgp4": (
        Problem("graphs-16", 128, 64, 0.5, {"tile": [64, 16], "row_repeat": 16}),
        Problem("graphs-16-outer", 256, 96, 0.75, {"tile": [64, 24], "row_repeat": 16, "outer_sparsity": 0.5}),
        Problem("graphs-32", 128, 120, 0.5, {"tile": [128, 24], "row_repeat": 16, "block": [2, 3]}),
        Problem("graphs-64", 256, 48, 0.0, {"tile": [128, 24], "row_repeat": 64}),
        Problem("graphs-ring", 64, 256, 0.0, {"tile": [64, 16], "row_repeat": 32}),
    ),
}


@dataclass(frozen=True)
class Unit:
    """What one test asks of a kernel."""

    kernel: Kernel
    dtype: str
    math: str
    layout: str

    def __str__(self) -> str:
        return f"{self.kernel.name}-{self.dtype}-{self.layout}" + ("" if self.math == "ieee" else f"-{self.math}")

    def answers(self, case: Case) -> bool:
        """Whether the kernel takes `case`."""
        return self.kernel.why_not(case, GPU) is None


@lru_cache(maxsize=1)
def units() -> tuple[Unit, ...]:
    """All that some case can be asked of."""
    found = [
        Unit(kernel, dtype, math, layout)
        for kernel in KERNELS
        for dtype in kernel.dtypes
        for math in kernel.maths
        for layout in kernel.layouts
        if dtype in NUMPY_DTYPES
    ]
    return tuple(unit for unit in found if any(unit.answers(product(unit, *p, 8)) for p in problems(unit.kernel)))


def problems(kernel: Kernel) -> list[tuple[str, Problem]]:
    """(pattern, problem) for all that the kernel's format stores."""
    patterns = kernel.format.patterns or ANY
    return [(name, p) for name in patterns if name in PROBLEMS for p in (*PROBLEMS[name], *LARGER.get(name, ()))]


def products(unit: Unit, every: int) -> Iterator[tuple[str, Case]]:
    """(label, case) of one in `every` problems that the kernel takes, two at least, with one number of columns each."""
    turn = units().index(unit)
    able = [p for p in problems(unit.kernel) if unit.answers(product(unit, *p, 8))]
    every = min(every, max(1, len(able) // 2))
    for at in range(turn % every, len(able), every):
        pattern, problem = able[at]
        n = COLUMNS[(3 * turn + 5 * at) % len(COLUMNS)] if problem.k < 1000 else 1
        yield f"{problem.label} n={n}", product(unit, pattern, problem, n)


def product(unit: Unit, pattern: str, problem: Problem, n: int) -> Case:
    """One problem for n columns, as `unit` asks it."""
    asked = Case(m=problem.m, k=problem.k, n=n, pattern=pattern, params=problem.params, sparsity=problem.sparsity)
    return replace(asked, dtype=unit.dtype, math=unit.math, layout=unit.layout)  # type: ignore[arg-type]


def identities(unit: Unit, count: int) -> Iterator[tuple[str, Case]]:
    """(label, case) of problems with n = k, `count` of them, others for each unit."""
    able = [
        (pattern, p)
        for pattern, p in problems(unit.kernel)
        if 8 <= p.k <= 130 and unit.answers(product(unit, pattern, p, p.k))
    ]
    turn = units().index(unit)
    for i in range(min(count, len(able))):
        pattern, problem = able[(turn + i) % len(able)]
        yield f"{problem.label} identity", product(unit, pattern, problem, problem.k)


def convolutions(unit: Unit, count: int) -> Iterator[tuple[str, Case]]:
    """(label, case) of `count` convolutions, others for each unit; none where the kernel takes none."""
    if "conv2d" not in unit.kernel.ops:
        return
    turn = units().index(unit)
    for i in range(count):
        conv = CONVOLUTIONS[(turn + i) % len(CONVOLUTIONS)]
        case = replace(convolution_for(unit.kernel, conv), dtype=unit.dtype, math=unit.math)  # type: ignore[arg-type]
        if unit.answers(case):
            yield f"{conv.c}x{conv.h}x{conv.w}-{conv.kh}x{conv.kw}-s{conv.stride}p{conv.padding}", case

"""Questions for kernels and formats: each pattern on tiny, ragged, plain and degenerate shapes, really drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from sparsebench import Case, Conv, Kernel, Launch, Machine, load_kernels
from sparsebench.case import NUMPY_DTYPES, DType, Layout
from sparsebench.lab import build
from sparsebench.lab.build import CpuToolchain
from sparsebench.lab.check import NUMPY, Question, as_columns
from sparsebench.lab.reference import Reference
from sparsebench.patterns import Draw, pattern_from

MACHINE = Machine.here("cpu")
KERNELS = [kernel for kernel in load_kernels() if "cpu" in kernel.devices]
OWN = [kernel for kernel in KERNELS if kernel.body]

# Compiler flags for the vectors of other machines; an ARM one has a single width.
NARROWER_VECTORS: Mapping[str, tuple[str, ...]] = {"native": ()} | (
    {"avx2": ("-mno-avx512f",), "no-avx": ("-mno-avx512f", "-mno-avx")} if build.NATIVE == "-march=native" else {}
)

COLUMNS = (1, 3, 16, 17, 63, 64, 65, 200)  # one, few, whole and ragged vectors, tiles and both

CONVOLUTIONS = (
    Conv(c=3, h=5, w=7, kh=3, kw=3, stride=1, padding=1, batch=2),
    Conv(c=4, h=9, w=8, kh=3, kw=2, stride=2, padding=1, batch=2),
    Conv(c=2, h=4, w=3, kh=1, kw=3, stride=3, padding=2, batch=1),  # hangs over both edges
    Conv(c=8, h=6, w=5, kh=1, kw=1, batch=2),  # a product as it is
    Conv(c=1, h=3, w=3, kh=3, kw=3, batch=1),  # one output pixel
)


@dataclass(frozen=True)
class Problem:
    """A shape, a pattern on it and how sparse it is; `label` is the test's id."""

    label: str
    m: int
    k: int
    sparsity: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[int, ...]:
        """The n to ask for; few where X would be large."""
        return COLUMNS if self.k < 1000 else (1, 17)

    def case(self, kernel: Kernel, n: int, layout: Layout = "feature", dtype: DType = "float32") -> Case:
        """This problem for n columns, in the kernel's own layout."""
        pattern = next(name for name, problems in PROBLEMS.items() if self in problems)
        weights: dict[str, Any] = {"pattern": pattern, "params": self.params, "sparsity": self.sparsity}
        return kernel.native(Case(m=self.m, k=self.k, n=n, layout=layout, dtype=dtype, **weights))


def levels(*blocks_and_sparsities: tuple[int, int, float]) -> dict[str, Any]:
    """Params of a hierarchical pattern."""
    return {"levels": [{"block": [bh, bw], "sparsity": sparsity} for bh, bw, sparsity in blocks_and_sparsities]}


PROBLEMS: Mapping[str, tuple[Problem, ...]] = {
    "dense": (Problem("dense-tiny", 1, 1), Problem("dense-ragged", 7, 33), Problem("dense-plain", 64, 128)),
    "unstructured": (
        Problem("tiny", 1, 1, 0.0),
        Problem("ragged", 7, 33, 0.9),
        Problem("plain", 64, 128, 0.75),
        Problem("no-nonzero", 5, 3, 0.99),
        Problem("empty-rows", 40, 30, 0.98),
        Problem("tall", 37, 1, 0.5),
        Problem("wide", 1, 90, 0.3),
    ),
    "block": (
        Problem("block-tiny", 1, 1, 0.0, {"block": [1, 1]}),
        Problem("block-4x1", 28, 33, 0.9, {"block": [4, 1]}),
        Problem("block-16x16", 64, 128, 0.75, {"block": [16, 16]}),
        Problem("block-odd", 21, 35, 0.6, {"block": [3, 5]}),
        Problem("block-7x2", 21, 34, 0.5, {"block": [7, 2]}),
        Problem("block-1x4", 6, 32, 0.7, {"block": [1, 4]}),
        Problem("block-32x1", 64, 20, 0.8, {"block": [32, 1]}),
        Problem("block-8x8", 32, 24, 0.9, {"block": [8, 8]}),
        Problem("block-none", 8, 8, 0.99, {"block": [4, 4]}),
    ),
    "hierarchical": (
        Problem("levels-tiny", 1, 1, None, levels((1, 1, 0.0))),
        Problem("levels-4x1-1x1", 28, 33, None, levels((4, 1, 0.8), (1, 1, 0.9))),
        Problem("levels-three", 32, 64, None, levels((16, 16, 0.75), (4, 4, 0.9), (1, 1, 0.95))),
        Problem("levels-odd", 18, 30, None, levels((6, 10, 0.8), (3, 5, 0.8), (1, 5, 0.9))),
        Problem("levels-rows-meet", 16, 12, None, levels((8, 2, 0.5), (2, 2, 0.8), (2, 1, 0.9))),
        Problem("levels-none", 8, 8, None, levels((4, 4, 0.99), (1, 1, 0.995))),
    ),
    "constant_fan_in": (
        Problem("fan-in-tiny", 1, 1, 0.0),
        Problem("fan-in-ragged", 7, 33, 0.9),
        Problem("fan-in-plain", 64, 128, 0.75),
        Problem("fan-in-one", 9, 20, 0.95),
        Problem("fan-in-none", 5, 3, 0.99),
        Problem("fan-in-ablated", 30, 41, 0.8, {"ablated": 0.5}),
        Problem("fan-in-32-bit", 3, 65537, 0.9998),
        Problem("fan-in-full", 6, 5, 0.0),
    ),
    "rbgp4": (
        Problem("graphs-tiny", 1, 1, 0.0, {"tile": [1, 1]}),
        Problem("graphs-plain", 128, 64, 0.75, {"tile": [32, 16], "row_repeat": 4, "outer_sparsity": 0.5}),
        Problem("graphs-1x1", 32, 32, 0.75, {"tile": [8, 8], "outer_sparsity": 0.5}),
        Problem("graphs-blocks", 48, 40, 0.5, {"tile": [24, 20], "row_repeat": 2, "block": [3, 5]}),
        Problem("graphs-outer", 12, 12, 0.5, {"tile": [3, 3], "row_repeat": 3, "outer_sparsity": 0.5}),
        Problem("graphs-full", 10, 6, 0.0, {"tile": [5, 3], "row_repeat": 5}),
    ),
    "nm": (
        Problem("nm-2-4", 16, 32, None, {"nm": [2, 4]}),
        Problem("nm-1-3", 7, 33, None, {"nm": [1, 3]}),
        Problem("nm-full", 5, 6, 0.0, {"nm": [2, 2]}),
        Problem("nm-tiny", 1, 1, None, {"nm": [1, 1]}),
    ),
}

# Asked of kernels whose format stores any pattern.
ANY = ("dense", "unstructured", "nm")


def problems_for(kernel: Kernel, dtype: DType = "float32") -> list[Problem]:
    """The problems whose pattern this kernel takes, those its limits refuse left out; half in a further dtype."""
    patterns = kernel.format.patterns or (("dense",) if kernel.format.name == "dense" else ANY)
    listed = [problem for name in patterns for problem in PROBLEMS[name]]
    taken = [problem for problem in listed if kernel.why_not(problem.case(kernel, 8, dtype=dtype), MACHINE) is None]
    return taken if dtype == kernel.dtypes[0] else taken[1::2]


def convolution_for(kernel: Kernel, conv: Conv, m: int = 8, dtype: DType = "float32") -> Case:
    """A convolution whose weights [m, k] have this kernel's first pattern; blocks and tiles of one row and column."""
    pattern = next(iter(kernel.format.patterns), "dense" if kernel.format.name == "dense" else "unstructured")
    params: Mapping[str, Any] = {
        "block": {"block": [2, 1]},
        "hierarchical": levels((4, 1, 0.5), (1, 1, 0.8)),
        "rbgp4": {"tile": [4, 1], "row_repeat": 4},
        "nm": {"nm": [1, 1]},
    }.get(pattern, {})
    sparsity = {"dense": None, "hierarchical": None, "rbgp4": 0.0, "nm": None}.get(pattern, 0.5)
    k, n = conv.c * conv.kh * conv.kw, conv.batch * conv.oh * conv.ow
    weights: dict[str, Any] = {"pattern": pattern, "params": params, "sparsity": sparsity}
    return Case(m=m, k=k, n=n, op="conv2d", conv=conv, dtype=dtype, **weights)


def question_for(case: Case, data: str = "normal") -> tuple[Question, Draw]:
    """Operands of `case` with the float64 answer, and the draw they were made from."""
    draw = case.draw()
    reference = Reference(case, draw)
    return reference.integers() if data == "integers" else reference.normal(), draw


def in_layout(x: np.ndarray, case: Case) -> np.ndarray:
    """X as the kernel gets it: a fresh contiguous copy in the case's dtype, [n, k] for layout batch."""
    native = x.T if case.conv is None and case.layout == "batch" else x
    return np.array(native, dtype=NUMPY_DTYPES[case.dtype], order="C")


def example(kernel: Kernel, dtype: DType = "float32") -> Case:
    """A plain case: the kernel's largest problem, or a convolution where it takes nothing else."""
    if "gemm" not in kernel.ops:
        return convolution_for(kernel, CONVOLUTIONS[0], dtype=dtype)
    return max(problems_for(kernel, dtype), key=lambda problem: problem.m).case(kernel, 24, dtype=dtype)


def packed_for(kernel: Kernel, case: Case, question: Question, draw: Draw) -> Any:
    """W of `question` in the kernel's format and the case's dtype."""
    return kernel.format.from_dense(question.w.astype(NUMPY_DTYPES[case.dtype]), draw.mask, draw.structure)


def prepared(
    kernel: Kernel, case: Case, question: Question, draw: Draw, toolchain: CpuToolchain, x: np.ndarray | None = None
) -> Launch:
    """The kernel ready to answer `question`, or to multiply its W with another `x` already in layout."""
    packed = packed_for(kernel, case, question, draw)
    return kernel.prepare(case, packed, in_layout(question.x, case) if x is None else x, toolchain)


def answer(launch: Launch, case: Case) -> np.ndarray:
    """Y [m, n] of one call that finds NaN in its output, in float64."""
    if launch.y is not None:
        launch.y.fill(np.nan)
    return as_columns(NUMPY.answer(launch.run()), case)


def array_of(y: Any) -> np.ndarray:
    """What a kernel returned as an array over the same memory; numpy cannot read torch's bfloat16 itself."""
    if isinstance(y, np.ndarray):
        return y
    import torch

    return y.view(torch.int16).numpy().view(NUMPY_DTYPES["bfloat16"]) if y.dtype is torch.bfloat16 else y.numpy()


def solve(kernel: Kernel, case: Case, toolchain: CpuToolchain, data: str) -> str:
    """What the gate says about one answer: nothing when it is right."""
    question, draw = question_for(case, data)
    launch = prepared(kernel, case, question, draw, toolchain)
    if launch.y is not None:
        launch.y.fill(np.nan)
    return question.judge(launch.run(), case).reason


def each(kernels: list[Kernel]) -> list[Any]:
    """Test parameters, one a kernel; those that lack something here are skipped with what to install."""
    return [pytest.param(kernel, id=kernel.name, marks=lacking(kernel)) for kernel in kernels]


def each_dtype(kernels: list[Kernel]) -> list[Any]:
    """Test parameters (kernel, dtype) for every dtype a kernel takes, as `each` makes them."""
    return [
        pytest.param(kernel, dtype, id=f"{kernel.name}-{dtype}", marks=lacking(kernel, dtype))
        for kernel in kernels
        for dtype in kernel.dtypes
    ]


def lacking(kernel: Kernel, dtype: str = "float32") -> list[pytest.MarkDecorator]:
    """A skip for each need of the kernel that is not met here, and for what this CPU lacks."""
    missing = [reason for need in kernel.needs if (reason := build.missing_need(need))]
    missing += [reason] if (reason := kernel.lacks(dtype, MACHINE)) and "cpu" in kernel.devices else []
    return [pytest.mark.skip(reason=reason) for reason in missing]


def strict_compiler() -> str:
    """The machine's C compiler as $CC names it, with warnings that are errors."""
    return " ".join([*build.compiler(), "-Wall", "-Wextra", "-Werror"])


@st.composite
def drawn_problems(draw: st.DrawFn, pattern: str) -> tuple[int, int, Mapping[str, Any], float | None]:
    """(m, k, params, sparsity) of any problem up to about 40 x 40 that `pattern` can draw."""
    side = st.integers(1, 9)
    sparsity = draw(st.sampled_from((0.0, 0.3, 0.5, 0.8, 0.95)))
    bh, bw, rows, columns = draw(side), draw(side), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    if pattern == "block":
        return bh * rows, bw * columns, {"block": [bh, bw]}, sparsity
    if pattern == "hierarchical":
        coarse = (bh * draw(st.integers(1, 3)), bw * draw(st.integers(1, 3)), 0.5)
        params = levels(coarse, (bh, bw, 0.8), (1, 1, 0.9))
        m, k = coarse[0] * rows * 2, coarse[1] * columns
        assume(pattern_from(pattern, params).why_not(m, k) is None)  # rounding may ask for more blocks than are free
        return m, k, params, None
    if pattern == "rbgp4":
        repeat, inner, outer = draw(st.integers(1, 5)), draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from((1, 4)))
        tile = [repeat * bh * inner, bw * inner]
        choices = {1: 0.0, 2: 0.0, 4: 0.5}
        params = {"tile": tile, "row_repeat": repeat, "block": [bh, bw], "outer_sparsity": choices[outer]}
        return tile[0] * outer, tile[1] * outer, params, 1 - (1 - choices[inner]) * (1 - choices[outer])
    if pattern == "nm":
        return bh * rows, bw * columns, {"nm": [draw(st.integers(1, bw)), bw]}, None
    if pattern == "dense":
        return bh * rows, bw * columns, {}, None
    ablated = {"ablated": draw(st.sampled_from((0.0, 0.4)))} if pattern == "constant_fan_in" and bh * rows > 1 else {}
    return bh * rows, bw * columns, ablated, sparsity

"""What the faces with Triton bodies share: which tile sizes are worth timing, and what they refuse.

What fits is known from compiling ahead of time, by Triton 3.6 for sm_80 and sm_90: tests/test_triton.py compiles the
largest of these tiles and demands that none spills. What is fastest is not known here; _tuning.py times it.
"""

from __future__ import annotations

from sparsebench.case import Case
from sparsebench.kernel import Gpu, Limit

from ._tuning import n_class

MATHS = ("ieee", "tf32", "tf32x3")
SOURCES = ("../_device.py", "../_tuning.py", "../_triton.py")  # for Kernel.sources

ONE_MATH = Limit(
    lambda case: case.dtype == "float32" or case.math == "ieee",
    "tf32 and tf32x3 are for float32: the product of two 16-bit numbers is exact in fp32; use math ieee",
)


def on_tensor_cores(case: Case) -> bool:
    """Whether the product of `case` may use them: for float32 "ieee" means fused multiply-adds on CUDA cores."""
    return case.dtype != "float32" or case.math != "ieee"


def widths(case: Case) -> list[int]:
    """Columns of Y a program may make: none as wide as twice n, none below the 16 that tl.dot takes.

    256 spill where factors are kept in registers: on CUDA cores, and split in two for tf32x3 [compiled].
    """
    wide = (64, 128, 256) if case.dtype != "float32" or case.math == "tf32" else (64, 128)
    return [width for width in wide if width <= n_class(case.n)] or [max(16, n_class(case.n))]


def depths(case: Case) -> tuple[int, ...]:
    """Columns of W that a step may multiply: 64 or 128 bytes of each row."""
    return (32,) if case.dtype == "float32" else (32, 64)


def most_sums(case: Case, gpu: Gpu) -> int:
    """Accumulators a thread may hold without spilling [compiled].

    wgmma reads its factors from shared memory, mma.sync keeps them in registers, and tf32x3 keeps each of them twice.
    """
    if case.dtype != "float32":
        return 128 if gpu.sm >= 90 else 64
    return 32 if case.math == "tf32x3" and gpu.sm < 90 else 64


def warps_for(case: Case, gpu: Gpu, sums: int) -> list[int]:
    """How many warps may share `sums` accumulators: those that hold them, and 8 beside 4 only where 4 have much to do.

    Given little, ptxas aims at many blocks a multiprocessor and spills a few bytes: 8192 sums by 8 warps do, except
    under wgmma [compiled].
    """
    much = 8192 if gpu.sm >= 90 and on_tensor_cores(case) else 16384
    fitting = [warps for warps in (4, 8) if sums <= most_sums(case, gpu) * 32 * warps]
    return fitting[:1] if sums < much else fitting


def fills(gpu: Gpu, programs: int) -> bool:
    """Whether `programs` occupy three quarters of the processors: below that narrower tiles are the better default."""
    return 4 * programs >= 3 * gpu.processors

"""condensed.inductor: SRigL's gather-sum expression as its authors run it: compiled by torch's inductor.

sum(w * x[..., columns], -1) through torch.compile (max-autotune, without its own CUDA graphs: the clock has one).
Inductor fuses gather, product and sum into one kernel that makes none of the n * m * f gathered entries; products and
sums are fp32 in it, also for 16-bit operands. Columns are int64, as the published expression's are.

Only on a GPU: on a CPU it works, but the first compilation of a process took 97 s and the next one 3 s (measured, two
busy cores), which the laws that every CPU kernel keeps would pay for each of their shapes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Condensed
from sparsebench.kernel import CudaToolchain, Kernel, Launch, Limit, least_moved_bytes

from .._device import shape_of_y
from .._switches import DTYPES, SOURCES, Asked, launch_of

MODE = "max-autotune-no-cudagraphs"


def gathered_sum(x: Any, w: Any, columns: Any) -> Any:
    """Y [n, live] of x [n, k], w and columns [live, f]."""
    return (w * x[..., columns]).sum(-1)


def compiled(function: Any) -> Callable[..., Any]:
    """`function` compiled for the shapes it is called with first, apart from what was compiled of it before.

    torch keeps what it compiled with the code object, gives up on one after eight shapes, and compares guards of all of
    them in every call: so each shape gets a code object of its own.
    """
    import torch

    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    make: Any = torch.compile
    result: Callable[..., Any] = make(own, mode=MODE, fullgraph=True, dynamic=False)
    return result


def prepare(case: Case, packed: Condensed, x: Any, toolchain: CudaToolchain) -> Launch:
    """The compiled expression; scattered into zeros where W has rows that are off. Compiles now, not in the clock."""
    values, columns = packed.values[:, : packed.fan_in], packed.columns[:, : packed.fan_in].astype(np.int64)
    weights = [toolchain.tensor(np.ascontiguousarray(array)) for array in (values, columns)]
    everywhere = len(packed.rows) == case.m and packed.fan_in > 0
    y = None if everywhere else toolchain.output(shape_of_y(case), case.dtype)
    bind = _in_place(x) if everywhere else _scattered(packed, x, y, toolchain)
    return launch_of(Asked(bind), weights, y, toolchain.device)


def _compile_now(expression: Callable[..., Any], *operands: Any) -> None:
    """Run `expression` once: torch compiles at the first call, and warns there of what it does to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expression(*operands)


def _in_place(x: Any) -> Callable[..., Callable[[], Any]]:
    expression = compiled(gathered_sum)

    def bind(w: Any, columns: Any) -> Callable[[], Any]:
        _compile_now(expression, x, w, columns)
        return lambda: expression(x, w, columns)

    return bind


def _scattered(packed: Condensed, x: Any, y: Any, toolchain: CudaToolchain) -> Callable[..., Callable[[], Any]]:
    if not packed.nnz:
        return lambda w, columns: y.zero_
    expression, rows = compiled(gathered_sum), toolchain.tensor(packed.rows.astype(np.int64))

    def bind(w: Any, columns: Any) -> Callable[[], Any]:
        _compile_now(expression, x, w, columns)
        return lambda: y.zero_().index_copy_(1, rows, expression(x, w, columns))

    return bind


def moved_bytes(case: Case, packed: Condensed) -> int:
    """Operands and answer once, columns as int64 and no padding."""
    stored = packed.nnz * (packed.values.itemsize + 8) + (packed.rows.nbytes if len(packed.rows) < case.m else 0)
    return least_moved_bytes(case, packed) - packed.nbytes + stored


def _gathered(case: Case) -> float:
    """Entries of x[..., columns]: one for each nonzero and each row of X."""
    return case.n * case.m * case.k * (1 - (case.sparsity or 0))


KERNELS = [
    Kernel(
        name="condensed.inductor",
        format=Condensed,
        prepare=prepare,
        about="sum(w * x[..., columns], -1) compiled by torch's inductor: how SRigL's authors run it",
        source="SRigL (arXiv 2305.02299, algorithm 1), torch (BSD-3-Clause)",
        moved_bytes=moved_bytes,
        layouts=("batch",),
        devices=("cuda",),
        dtypes=DTYPES,
        needs=("torch", "triton"),
        sources=(*SOURCES, "../_device.py"),
        limits=(
            Limit(
                lambda case: _gathered(case) < 2**31,
                "the entries it gathers, n * nonzeros, must be below 2**31, or it would compute in 64-bit offsets and "
                "need their memory where fusion fails; use condensed.cuda",
            ),
        ),
    )
]

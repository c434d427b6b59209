"""dense.compacted: a GEMM on (1 - sparsity) k columns: what the same sparsity costs a dense library at the least.

No GEMM of that size is W @ X for a mask whose rows keep different columns, and a time stands in no record unless the
answer was right. So the reference is asked where it is an answer: on masks that keep the same columns in every row.
Pattern `block` with blocks of m x 1 draws them, at any sparsity:

    {pattern: block, block: [[768, 1]], sparsity: [0.9], kernels: ["dense.compacted"]}

The rows of X that are still used are gathered in every call, and that is timed, as a layer that is handed all of X must
do. Without the gather the reference is an ordinary dense problem, {m: 768, k: 307}, in any suite.

With other masks it is right too, over the columns that any row uses: mostly all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Columns
from sparsebench.kernel import CudaToolchain, Kernel, Launch, least_moved_bytes

from .._device import shape_of_y
from .._switches import DTYPES, FLOAT32_MATH, MATHS, SOURCES, Asked, facts_of, launch_of, matmul_switches
from .ablated import SOMETHING_OFF
from .cublas import bind_linear, bind_mm


def prepare(case: Case, packed: Columns, x: Any, toolchain: CudaToolchain) -> Launch:
    """A gather of the rows of X that are used, then cuBLAS over the columns of W that are left."""
    y = toolchain.output(shape_of_y(case), case.dtype)
    weights = [toolchain.tensor(packed.values), toolchain.tensor(packed.columns)]
    facts = {"live_columns": len(packed.columns), **facts_of(case)}
    library = Asked(_bound(case, packed, x, y, toolchain), matmul_switches(case), facts)
    return launch_of(library, weights, y, toolchain.device)


def _bound(case: Case, packed: Columns, x: Any, y: Any, toolchain: CudaToolchain) -> Callable[..., Callable[[], Any]]:
    multiply = bind_mm if case.layout == "feature" else bind_linear
    live = len(packed.columns)
    if live == 0:
        return lambda w, columns: y.zero_
    if live == case.k:
        return lambda w, columns: multiply(w, x, y)
    axis = 0 if case.layout == "feature" else 1
    used = toolchain.scratch("used rows of x", (live, case.n) if axis == 0 else (case.n, live), case.dtype)

    def bind(w: Any, columns: Any) -> Callable[[], Any]:
        import torch

        gather, product = partial(torch.index_select, x, axis, columns, out=used), multiply(w, used, y)

        def run() -> Any:
            gather()
            return product()

        return run

    return bind


def moved_bytes(case: Case, packed: Columns) -> int:
    """W's live columns and Y once; the rows of X that are used read, written and read again."""
    used = ITEM_BYTES[case.dtype] * len(packed.columns) * case.n
    all_of_x = ITEM_BYTES[case.dtype] * case.k * case.n
    return least_moved_bytes(case, packed) - all_of_x + (3 * used if len(packed.columns) < case.k else used)


KERNELS = [
    Kernel(
        name="dense.compacted",
        format=Columns,
        prepare=prepare,
        about="cuBLAS over the columns that any row uses: a reference, on masks of whole columns",
        source="own; cuBLAS (NVIDIA, proprietary) through torch (BSD-3-Clause)",
        moved_bytes=moved_bytes,
        devices=("cuda",),
        dtypes=DTYPES,
        maths=MATHS,
        layouts=("feature", "batch"),
        needs=("torch",),
        sources=(*SOURCES, "../_device.py", "cublas.py", "ablated.py"),
        limits=(FLOAT32_MATH, SOMETHING_OFF),
    )
]

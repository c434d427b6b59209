"""dense.ablated: SRigL's "structured": a dense product over the rows that are still on, zeros for the others.

The answer is W @ X whatever the mask: entries that a sparse row does not keep are stored as zeros. What is saved is the
rows that are off altogether, so this is the rival of a constant fan-in with ablated neurons: all of its ablation,
nothing of its sparsity within rows.

The product goes into a buffer with one more row, of zeros, and one gather brings its rows to where they belong in Y:
cheaper than clearing Y first and scattering into it. A network whose next layer drops the same inputs would need
neither; here it is timed. The buffer's rows are a multiple of 16 bytes apart, since cuBLAS picks slower kernels where
they are not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, NUMPY_DTYPES, Case
from sparsebench.formats import Rows
from sparsebench.kernel import CudaToolchain, Kernel, Launch, Limit, least_moved_bytes

from .._device import ceil_div, shape_of_y
from .._switches import DTYPES, FLOAT32_MATH, MATHS, SOURCES, Asked, facts_of, launch_of, matmul_switches
from .cublas import bind_linear, bind_mm

SOMETHING_OFF = Limit(
    lambda case: case.pattern != "dense",
    "a dense matrix has no rows or columns to leave out; use dense.cublas",
)


def prepare(case: Case, packed: Rows, x: Any, toolchain: CudaToolchain) -> Launch:
    """cuBLAS over the live rows, then one gather into Y; no gather where all rows are on."""
    y = toolchain.output(shape_of_y(case), case.dtype)
    facts = {"active_rows": len(packed.rows), **facts_of(case)}
    bind = _bound(case, packed, x, y, toolchain)
    return launch_of(Asked(bind, matmul_switches(case), facts), [toolchain.tensor(packed.values)], y, toolchain.device)


def _bound(case: Case, packed: Rows, x: Any, y: Any, toolchain: CudaToolchain) -> Callable[[Any], Callable[[], Any]]:
    multiply = bind_mm if case.layout == "feature" else bind_linear
    live = len(packed.rows)
    if live == 0:
        return lambda w: y.zero_
    if live == case.m:
        return lambda w: multiply(w, x, y)
    places = toolchain.tensor(places_of(packed))
    axis = 0 if case.layout == "feature" else 1
    wide = _with_a_zero_row(case, live, toolchain)
    return lambda w: _gathered(multiply(w, x, wide.narrow(axis, 0, live)), wide, axis, places, y)


def places_of(packed: Rows) -> np.ndarray:
    """For each row of W its place among the live ones; for rows that are off the place after the last. int64 [m]."""
    places = np.full(packed.shape[0], len(packed.rows), np.int64)
    places[packed.rows] = np.arange(len(packed.rows))
    return places


def _with_a_zero_row(case: Case, live: int, toolchain: CudaToolchain) -> Any:
    """The buffer of the product: Y's live rows and at least one of zeros, in the layout of the case."""
    if case.layout == "feature":
        shape: tuple[int, ...] = (live + 1, case.n)
    else:
        whole = 16 // ITEM_BYTES[case.dtype]
        shape = (case.n, ceil_div(live + 1, whole) * whole)
    return toolchain.tensor(np.zeros(shape, NUMPY_DTYPES[case.dtype]))


def _gathered(multiply: Callable[[], Any], wide: Any, axis: int, places: Any, y: Any) -> Callable[[], Any]:
    import torch

    gather = partial(torch.index_select, wide, axis, places, out=y)

    def run() -> Any:
        multiply()
        return gather()

    return run


def moved_bytes(case: Case, packed: Rows) -> int:
    """Operands and answer once; the live rows of the product once more, written and read."""
    return least_moved_bytes(case, packed) + 2 * ITEM_BYTES[case.dtype] * len(packed.rows) * case.n


KERNELS = [
    Kernel(
        name="dense.ablated",
        format=Rows,
        prepare=prepare,
        about="cuBLAS over the rows that are on, zeros for the others: SRigL's structured",
        source="SRigL's baseline (arXiv 2305.02299); cuBLAS (NVIDIA, proprietary) through torch (BSD-3-Clause)",
        moved_bytes=moved_bytes,
        devices=("cuda",),
        dtypes=DTYPES,
        maths=MATHS,
        layouts=("feature", "batch"),
        needs=("torch",),
        sources=(*SOURCES, "../_device.py", "cublas.py"),
        limits=(FLOAT32_MATH, SOMETHING_OFF),
    )
]

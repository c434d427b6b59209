"""bsr.torch_default and bsr.torch_tuned: torch's BSR product on a GPU, as it comes and after its own tuning.

torch has two roads [read: aten/src/ATen/native/sparse/SparseBlasImpl.cpp]. A Triton kernel where both sides of a block
are powers of two of at least 16 and n is a multiple of the block's rows; else a generic one that gathers tiles of X,
multiplies them in one batch and adds them up. Which one ran is in the record. Triton's parameters come from a table
made on one card, an A100; others get num_stages = 1 and a warning. Tuned means torch's own tuner, run once a shape
before the clock starts, and its parameters handed over.

float32 is IEEE on the Triton road (allow_tf32 is off there for float32 [read: _triton_ops.py]).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from sparsebench.case import Case
from sparsebench.errors import MissingNeed
from sparsebench.formats import Bsr
from sparsebench.kernel import CudaToolchain, Kernel, Launch, Limit

from .._device import shape_of_y
from .._library import SHARED, bytes_of, naming, refusing, sparse_tensor, told

SOURCE = "torch (BSD-3-Clause): torch.sparse._triton_ops, or a gather and torch.bmm"
LEAST_SIDE = 16  # of a block that torch's Triton kernel takes

_tuned: dict[tuple[Any, ...], tuple[Mapping[str, Any], float]] = {}  # parameters and seconds of the search


def triton_takes(case: Case) -> bool:
    """Whether torch sends this case to its Triton kernel, by its own condition."""
    ((_, bh, bw),) = case.pattern_object.blocks()
    return all(side >= LEAST_SIDE and side & (side - 1) == 0 for side in (bh, bw)) and case.n % bh == 0


TRITON = Limit(
    triton_takes,
    "torch's Triton kernel takes blocks whose sides are powers of two of at least 16, and an n that is a multiple of "
    "the block's rows; use bsr.torch_default, which has another road",
)

# (w, x, y of the case's layout, toolchain) -> (one product, facts)
Make = Callable[[Case, Any, Any, CudaToolchain], tuple[Callable[[], Any], Any, str, Mapping[str, Any]]]


def default(case: Case, w: Any, x: Any, toolchain: CudaToolchain) -> tuple[Callable[[], Any], Any, str, dict[str, Any]]:
    """torch.mm(W, x) for feature, F.linear(x, W) for batch: what a user writes."""
    import torch

    road = "Triton" if triton_takes(case) else "gather and bmm"
    if case.layout == "batch":
        return (lambda: torch.nn.functional.linear(x, w)), None, f"F.linear by {road}", {}
    y = toolchain.output(shape_of_y(case), case.dtype)
    return (lambda: torch.mm(w, x, out=y)), y, f"mm by {road}", {}


def tuned(case: Case, w: Any, x: Any, toolchain: CudaToolchain) -> tuple[Callable[[], Any], Any, str, dict[str, Any]]:
    """bsr_dense_addmm with the parameters that torch's tuner finds for this shape."""
    addmm = private("_triton_ops", "bsr_dense_addmm")
    y = toolchain.output(shape_of_y(case), case.dtype)
    # Triton takes strides: batch-major operands are transposed views, nothing is copied.
    x_, y_ = (x, y) if case.layout == "feature" else (x.t(), y.t())
    meta, search_s = parameters(case, w, x_, y_)

    def run() -> Any:
        addmm(y_, w, x_, beta=0, alpha=1, out=y_, meta=dict(meta))
        return y

    return run, y, "bsr_dense_addmm", {"meta": dict(meta), "tuning_s": search_s}


def parameters(case: Case, w: Any, x: Any, y: Any) -> tuple[Mapping[str, Any], float]:
    """(The tuner's parameters for this case, seconds it took), searched once a process; W's nonzeros count, not where
    they are."""
    key = (case.m, case.k, case.n, case.dtype, case.layout, w.values().shape)
    if key not in _tuned:
        tune = private("_triton_ops_meta", "tune_bsr_dense_addmm")
        start_s = time.perf_counter()
        meta = tune(y, w, x, beta=0, alpha=1, out=y, store=False)
        _tuned[key] = (meta, time.perf_counter() - start_s)
    return _tuned[key]


def private(module: str, name: str) -> Any:
    """torch.sparse.MODULE.NAME, which torch promises nobody; MissingNeed where this torch has none."""
    import importlib

    import torch

    try:
        found = getattr(importlib.import_module(f"torch.sparse.{module}"), name, None)
    except ImportError:
        found = None
    if found is None:
        raise MissingNeed(
            f"needs torch.sparse.{module}.{name}, which torch {torch.__version__} does not have: "
            f"use bsr.torch_default, or another version of torch"
        )
    return found


def preparing(make: Make) -> Callable[[Case, Bsr, Any, CudaToolchain], Launch]:
    """The `prepare` over the product that `make` makes."""

    def prepare(case: Case, packed: Bsr, x: Any, toolchain: CudaToolchain) -> Launch:
        arrays = packed.block_offsets, packed.block_columns, packed.values
        return launch(case, [toolchain.tensor(array) for array in arrays], x, toolchain)

    def launch(case: Case, tensors: list[Any], x: Any, toolchain: CudaToolchain) -> Launch:
        import torch

        w = sparse_tensor("BSR", tensors, (case.m, case.k))
        with warnings.catch_warnings(), refusing(f"torch's product of a BSR tensor, {told(case)},"):
            # It says so once that it has no table for this card; the record says which parameters were used.
            warnings.filterwarnings("ignore", message="bsr_dense_addmm uses non-optimal triton kernel parameters")
            run, y, name, facts = make(case, w, x, toolchain)
            run()
        return Launch(
            run,
            y,
            name,
            again=lambda: launch(case, [tensor.clone() for tensor in tensors], x, toolchain),
            weight_bytes=bytes_of(tensors),
            facts={"library": f"torch {torch.__version__}", **facts},
        )

    return prepare


def kernel(name: str, make: Make, about: str, needs: tuple[str, ...], limits: tuple[Limit, ...]) -> Kernel:
    """One face."""
    return Kernel(
        name=name,
        format=Bsr,
        prepare=naming(preparing(make)),
        about=about,
        source=SOURCE,
        dtypes=("float32", "float16", "bfloat16"),
        layouts=("feature", "batch"),
        devices=("cuda",),
        needs=needs,
        sources=SHARED,
        limits=limits,
    )


KERNELS = [
    kernel(
        "bsr.torch_default", default, "a BSR tensor @ X or F.linear(x, W), with torch's own parameters", ("torch",), ()
    ),
    kernel(
        "bsr.torch_tuned",
        tuned,
        "torch's Triton kernel with the parameters its own tuner finds, searched once a shape",
        ("torch", "triton"),
        (TRITON,),
    ),
]

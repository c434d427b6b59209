"""nm.cusparselt: 2:4 on sparse tensor cores, by the cuSPARSELt that torch was built with.

torch compresses W once and multiplies it from the left, W [m, k] @ X [k, n], and takes both layouts without a copy: a
batch-major X is handed over as its transposed view, and transpose_result writes Y [n, m]. Groups of four lie along the
rows of W, as ours do.

The default algorithm is often a poor one (pytorch#178659: another is twice as fast; #179926: it fell back on 13 of 18
shapes), so the library's own search runs once before the clock starts. n is padded to a multiple of 8, as torch's
SparseSemiStructuredTensor does, with the copies of X in and Y out on the clock: a user pays them at small n (#111339).
float32 is left out: torch gives its tensors of 2:4 only fp8, int8, float16 and bfloat16 here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from sparsebench.case import Case
from sparsebench.errors import MissingNeed
from sparsebench.formats import Nm
from sparsebench.kernel import CudaToolchain, Kernel, Launch, Limit

from .._device import ceil_div
from .._library import SHARED, bytes_of, naming, refusing, told

ROWS, COLUMNS = 16, 8  # least sizes of W's sides and of n, and what they are multiples of (16-bit types)
NAMES = ("_cslt_compress", "_cslt_sparse_mm")

TWO_OF_FOUR = Limit(
    lambda case: list(case.params.get("nm", ())) == [2, 4],
    "sparse tensor cores multiply 2 of 4 alone: ask for nm: [2, 4]",
)
WHOLE = Limit(
    lambda case: case.m % ROWS == 0 and case.k % ROWS == 0,
    f"m and k must be multiples of {ROWS}: cuSPARSELt's least sizes for 16-bit types",
)


def prepare(case: Case, packed: Nm, x: Any, toolchain: CudaToolchain) -> Launch:
    """W compressed, the algorithm searched; torch allocates Y itself."""
    torch = probed()
    with refusing(f"cuSPARSELt's 2:4 product, {told(case)},"):
        compressed = torch._cslt_compress(toolchain.tensor(packed.to_dense()))
        return launch(case, compressed, x, toolchain, None)


def probed() -> Any:
    """torch with cuSPARSELt and its operators; MissingNeed without."""
    import torch

    missing = [name for name in NAMES if not hasattr(torch, name)]
    if missing or not torch.backends.cusparselt.is_available():
        raise MissingNeed(
            f"needs a torch built with cuSPARSELt and its operators {', '.join(NAMES)}, which torch "
            f"{torch.__version__} is not: install a CUDA build of torch"
        )
    return torch


def launch(case: Case, compressed: Any, x: Any, toolchain: CudaToolchain, choice: dict[str, int] | None) -> Launch:
    """The product by the algorithm `choice`, or by the one that a search finds."""
    import torch

    fill, dense = operand(case, x, toolchain)
    fill()
    transposed = case.layout == "batch"
    chosen = search(compressed, dense, transposed) if choice is None else choice
    whole = case.n % COLUMNS == 0

    def run() -> Any:
        fill()
        y = torch._cslt_sparse_mm(compressed, dense, transpose_result=transposed, **chosen)
        return y if whole else (y[: case.n] if transposed else y[:, : case.n].contiguous())

    run()
    return Launch(
        run,
        ran=f"_cslt_sparse_mm {_described(chosen)}",
        again=lambda: launch(case, compressed.clone(), x, toolchain, chosen),
        weight_bytes=bytes_of([compressed]),
        facts={
            "library": f"cuSPARSELt {torch.backends.cusparselt.version()}",
            **chosen,
            "padded_n": ceil_div(case.n, COLUMNS) * COLUMNS,
        },
    )


def operand(case: Case, x: Any, toolchain: CudaToolchain) -> tuple[Callable[[], None], Any]:
    """(What brings X in before each product, X as torch wants it: [k, n padded], a transposed view for batch)."""
    padded = ceil_div(case.n, COLUMNS) * COLUMNS
    if padded == case.n:
        return (lambda: None), x if case.layout == "feature" else x.t()

    shape = (case.k, padded) if case.layout == "feature" else (padded, case.k)
    room = toolchain.scratch("padded x", shape, case.dtype)
    room.zero_()
    inside = room[:, : case.n] if case.layout == "feature" else room[: case.n]

    def fill() -> None:
        inside.copy_(x)

    return fill, room if case.layout == "feature" else room.t()


def search(compressed: Any, dense: Any, transposed: bool) -> dict[str, int]:
    """The algorithm that the library's search finds, as arguments of _cslt_sparse_mm."""
    import torch

    found = getattr(getattr(torch._C, "_cusparselt", None), "mm_search", None)
    if found is not None:
        alg_id, split_k, split_k_mode, *_ = found(compressed, dense, None, None, None, transposed)
        return {"alg_id": int(alg_id), "split_k": int(split_k), "split_k_mode": int(split_k_mode)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch._cslt_sparse_mm_search is deprecated")
        return {"alg_id": int(torch._cslt_sparse_mm_search(compressed, dense, transpose_result=transposed))}


def _described(chosen: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in chosen.items())


KERNELS = [
    Kernel(
        name="nm.cusparselt",
        format=Nm,
        prepare=naming(prepare),
        about="2:4 on sparse tensor cores, algorithm searched; n padded to a multiple of 8",
        source="torch (BSD-3-Clause) over cuSPARSELt (NVIDIA, proprietary)",
        dtypes=("float16", "bfloat16"),
        layouts=("feature", "batch"),
        devices=("cuda",),
        needs=("torch",),
        sources=SHARED,
        limits=(TWO_OF_FOUR, WHOLE),
    )
]

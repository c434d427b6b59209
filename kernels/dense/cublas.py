"""dense.cublas, dense.cublaslt: what a user of torch has on a GPU without sparsity, in both layouts.

torch reaches two libraries for the same product, with heuristics of their own, and its default between them has changed
over releases; the better of both is the baseline. torch.cuda.tunable adds nothing: on CUDA its only candidate is the
default (TunableGemm.h registers others under USE_ROCM alone). Since 16-bit sums may not be rounded between the parts of
a split k, cuBLAS gives split k up there where cuBLASLt keeps it with parts in fp32 (pytorch pull requests 116870,
153095): at small n that decides.

At n = 1 a product is a matrix-vector one, for which cuBLAS has kernels of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sparsebench.case import Case
from sparsebench.formats import Dense
from sparsebench.kernel import CudaToolchain, Kernel, Launch, Limit

from .._device import shape_of_y
from .._switches import (
    DTYPES,
    FLOAT32_MATH,
    MATHS,
    SOURCES,
    Asked,
    blas_switch,
    facts_of,
    launch_of,
    matmul_switches,
)

Bind = Callable[[Any, Any, Any], Callable[[], Any]]  # (w, x, y) -> the call that makes y

MV_ABOUT = "torch.mv(W, x) by cuBLAS, for one column"
ONE_COLUMN = Limit(lambda case: case.n == 1, "n must be 1: it multiplies a matrix with a vector; use dense.cublas")


def bind_mm(w: Any, x: Any, y: Any) -> Callable[[], Any]:
    """Y = W @ X, x [k, n]."""
    import torch

    return partial(torch.mm, w, x, out=y)


def bind_linear(w: Any, x: Any, y: Any) -> Callable[[], Any]:
    """Y = X @ W.T, x [n, k]."""
    import torch

    linear: Any = torch.nn.functional.linear  # its stub does not know `out`
    return partial(linear, x, w, out=y)


def bind_mv(w: Any, x: Any, y: Any) -> Callable[[], Any]:
    """y = W @ x for the one column of X."""
    import torch

    product = partial(torch.mv, w, x.view(-1), out=y.view(-1))

    def run() -> Any:
        product()
        return y

    return run


def product(bind: Bind, library: str) -> Callable[..., Launch]:
    """The `prepare` of a kernel that multiplies with `library` as `bind` says."""

    def prepare(case: Case, packed: Dense, x: Any, toolchain: CudaToolchain) -> Launch:
        y = toolchain.output(shape_of_y(case), case.dtype)
        switches = [*matmul_switches(case), *blas_switch(library, toolchain.device)]
        asked = Asked(lambda w: bind(w, x, y), switches, facts_of(case))
        return launch_of(asked, [toolchain.tensor(packed.values)], y, toolchain.device)

    return prepare


def _kernel(name: str, bind: Bind, library: str, about: str, *layouts: str, limits: tuple[Limit, ...] = ()) -> Kernel:
    return Kernel(
        name=name,
        format=Dense,
        prepare=product(bind, library),
        about=about,
        source=f"{library} (NVIDIA, proprietary) through torch (BSD-3-Clause)",
        devices=("cuda",),
        dtypes=DTYPES,
        maths=MATHS,
        layouts=layouts,
        needs=("torch",),
        sources=(*SOURCES, "../_device.py"),
        limits=(FLOAT32_MATH, *limits),
    )


KERNELS = [
    _kernel("dense.cublas", bind_mm, "cublas", "torch.mm(W, X) by cuBLAS on activations [k, n]", "feature"),
    _kernel("dense.cublas_linear", bind_linear, "cublas", "F.linear by cuBLAS on activations [n, k]", "batch"),
    _kernel("dense.cublaslt", bind_mm, "cublaslt", "torch.mm(W, X) by cuBLASLt on activations [k, n]", "feature"),
    _kernel("dense.cublaslt_linear", bind_linear, "cublaslt", "F.linear by cuBLASLt on activations [n, k]", "batch"),
    _kernel("dense.cublas_mv", bind_mv, "cublas", MV_ABOUT, "feature", "batch", limits=(ONE_COLUMN,)),
]

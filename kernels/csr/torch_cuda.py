"""csr.torch_cuda: torch's CSR tensors on a GPU, as a user calls them. torch asks cuSPARSE for its default algorithm."""

from __future__ import annotations

from typing import Any

from sparsebench.case import Case
from sparsebench.formats import Csr
from sparsebench.kernel import CudaToolchain, Kernel, Launch

from .._library import SHARED, bytes_of, naming, refusing, sparse_tensor, told


def prepare(case: Case, packed: Csr, x: Any, toolchain: CudaToolchain) -> Launch:
    """torch.mv at n = 1, else torch.mm, into one buffer."""
    arrays = packed.offsets, packed.columns, packed.values
    return launch(case, [toolchain.tensor(array) for array in arrays], x, toolchain)


def launch(case: Case, tensors: list[Any], x: Any, toolchain: CudaToolchain) -> Launch:
    """The product of W over `tensors` (offsets, columns, values) with x [k, n]."""
    import torch

    w, y = sparse_tensor("CSR", tensors, (case.m, case.k)), toolchain.output((case.m, case.n), case.dtype)
    column, result = x[:, 0], y[:, 0]

    def mm() -> Any:
        return torch.mm(w, x, out=y)

    def mv() -> Any:
        torch.mv(w, column, out=result)
        return y

    run, name = (mv, "mv") if case.n == 1 else (mm, "mm")
    with refusing(f"torch.{name} of a CSR tensor, {told(case)},"):
        run()
    return Launch(
        run,
        y,
        name,
        again=lambda: launch(case, [tensor.clone() for tensor in tensors], x, toolchain),
        weight_bytes=bytes_of(tensors),
        facts={"library": f"torch {torch.__version__}"},
    )


KERNELS = [
    Kernel(
        name="csr.torch_cuda",
        format=Csr,
        prepare=naming(prepare),
        about="a CSR tensor with 32-bit indices on the device @ X; mv at n = 1",
        source="torch (BSD-3-Clause); cuSPARSE's default algorithm below it",
        dtypes=("float32", "float16", "bfloat16"),
        devices=("cuda",),
        needs=("torch",),
        sources=SHARED,
    )
]

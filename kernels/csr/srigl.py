"""csr.srigl: the CSR call that SRigL's GPU figures are relative to ("13.0x faster than unstructured (CSR)").

What was called [read: github.com/calgaryml/condensed-sparsity, CSRLinear in src/condensed_sparsity/condensed_linear.py
and scripts/benchmarks_v2.py, MIT]: F.linear(x, W.to_sparse_csr(), bias) with float32 x [batch, features], hence 64-bit
indices, and a product that torch 2.0.1 handed to cuSPARSE's default algorithm with a column-major X. A bias was added,
so Y is written once before the product; here it is a bias of zeros, since Y = W X is asked for.

What is left out: the notebook's label says "compiled with backend - inductor", but torch.compile had nothing of a
sparse tensor to fuse, and the eager call was as slow [inferred]. The notebook's own layer was a trained one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Csr
from sparsebench.kernel import CudaToolchain, Kernel, Launch, least_moved_bytes

from .._library import SHARED, bytes_of, naming, refusing, sparse_tensor, told


def prepare(case: Case, packed: Csr, x: Any, toolchain: CudaToolchain) -> Launch:
    """F.linear of x [n, k], W with 64-bit indices and a bias of zeros; torch allocates Y itself."""
    arrays = packed.offsets.astype(np.int64), packed.columns.astype(np.int64), packed.values
    return launch(case, [toolchain.tensor(array) for array in arrays], x, toolchain)


def launch(case: Case, tensors: list[Any], x: Any, toolchain: CudaToolchain) -> Launch:
    """The call over `tensors`: offsets, columns, values."""
    import torch

    w = sparse_tensor("CSR", tensors, (case.m, case.k))
    bias = torch.zeros(case.m, dtype=x.dtype, device=x.device)

    def run() -> Any:
        return torch.nn.functional.linear(x, w, bias)

    with refusing(f"F.linear with a CSR tensor, {told(case)},"):
        run()
    return Launch(
        run,
        ran="F.linear",
        again=lambda: launch(case, [tensor.clone() for tensor in tensors], x, toolchain),
        weight_bytes=bytes_of(tensors),
        facts={"library": f"torch {torch.__version__}"},
    )


def moved_bytes(case: Case, packed: Csr) -> int:
    """W with indices of twice the format's size, X, the bias, and Y written by it, read and written by the product."""
    wider = packed.columns.nbytes + packed.offsets.nbytes
    return least_moved_bytes(case, packed) + wider + packed.values.itemsize * (case.m + 2 * case.m * case.n)


KERNELS = [
    Kernel(
        name="csr.srigl",
        format=Csr,
        prepare=naming(prepare),
        about="F.linear(x, W.to_sparse_csr(), bias): SRigL's CSR baseline, 64-bit indices, bias of zeros, eager",
        source="calgaryml/condensed-sparsity (MIT), the call alone; torch (BSD-3-Clause) and cuSPARSE do the work",
        moved_bytes=moved_bytes,
        layouts=("batch",),
        devices=("cuda",),
        needs=("torch",),
        sources=SHARED,
    )
]

"""bsr.mkl: MKL's sparse product of square blocks through sparse_dot_mkl; MKL is given the matrix once."""

from __future__ import annotations

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Bsr
from sparsebench.kernel import Kernel, Launch, Limit, Toolchain

from .._mkl import SOURCE, mkl_product


def _square(case: Case) -> bool:
    return all(bh == bw for _, bh, bw in case.pattern_object.blocks())


def prepare(case: Case, packed: Bsr, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """mkl_sparse_s_mv at n = 1, else mkl_sparse_s_mm, into one buffer."""
    # scipy: sparse_dot_mkl takes its matrices.
    from scipy import sparse

    w = sparse.bsr_array((packed.values, packed.block_columns, packed.block_offsets), shape=packed.shape)
    return mkl_product(w, case, x, toolchain)


KERNELS = [
    Kernel(
        name="bsr.mkl",
        format=Bsr,
        prepare=prepare,
        about="MKL's matrix of square blocks with 32-bit indices, made once, times X; matrix times vector at n = 1",
        source=SOURCE,
        needs=("sparse_dot_mkl",),
        sources=("../_mkl.py",),
        limits=(Limit(_square, "blocks must be square: MKL has no others; use bsr.c or bsr.scipy"),),
    )
]

"""csr.mkl: MKL's sparse product through sparse_dot_mkl; MKL is given the matrix once."""

from __future__ import annotations

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Csr
from sparsebench.kernel import Kernel, Launch, Toolchain

from .._mkl import SOURCE, mkl_product


def prepare(case: Case, packed: Csr, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """mkl_sparse_s_mv at n = 1, else mkl_sparse_s_mm, into one buffer."""
    # scipy: sparse_dot_mkl takes its matrices.
    from scipy import sparse

    w = sparse.csr_array((packed.values, packed.columns, packed.offsets), shape=packed.shape)
    return mkl_product(w, case, x, toolchain)


KERNELS = [
    Kernel(
        name="csr.mkl",
        format=Csr,
        prepare=prepare,
        about="MKL's sparse matrix with 32-bit indices, made once, times X; matrix times vector at n = 1",
        source=SOURCE,
        needs=("sparse_dot_mkl",),
        sources=("../_mkl.py",),
    )
]

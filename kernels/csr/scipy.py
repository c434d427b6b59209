"""csr.scipy: scipy.sparse, as a user calls it. One thread, whatever the protocol says."""

from __future__ import annotations

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Csr
from sparsebench.kernel import Kernel, Launch, Toolchain


def prepare(case: Case, packed: Csr, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """csr_array @ X. scipy allocates Y itself, so there is no buffer to fill."""
    # scipy: the sparse product most Python programs use; it is what is measured here.
    from scipy import sparse

    w = sparse.csr_array((packed.values, packed.columns, packed.offsets), shape=packed.shape)
    w.has_canonical_format = True  # rising columns, no duplicates: spares scipy's own search at the first product
    if case.n > 1:
        return Launch(lambda: w @ x, ran="csr_matvecs, 1 thread")
    column = x[:, 0]
    return Launch(lambda: (w @ column)[:, None], ran="csr_matvec, 1 thread")


KERNELS = [
    Kernel(
        name="csr.scipy",
        format=Csr,
        prepare=prepare,
        about="scipy.sparse.csr_array @ X; its matrix-vector product at n = 1",
        source="scipy (BSD-3-Clause)",
        needs=("scipy",),
    )
]

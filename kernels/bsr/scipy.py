"""bsr.scipy: scipy.sparse, as a user calls it. One thread, whatever the protocol says."""

from __future__ import annotations

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Bsr
from sparsebench.kernel import Kernel, Launch, Toolchain


def prepare(case: Case, packed: Bsr, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """bsr_array @ X. scipy allocates Y itself, so there is no buffer to fill."""
    # scipy: the one Python library whose block product takes blocks that are not square.
    from scipy import sparse

    w = sparse.bsr_array((packed.values, packed.block_columns, packed.block_offsets), shape=packed.shape)
    if case.n > 1:
        return Launch(lambda: w @ x, ran="bsr_matvecs, 1 thread")
    column = x[:, 0]
    return Launch(lambda: (w @ column)[:, None], ran="bsr_matvec, 1 thread")


KERNELS = [
    Kernel(
        name="bsr.scipy",
        format=Bsr,
        prepare=prepare,
        about="scipy.sparse.bsr_array @ X, any block; its matrix-vector product at n = 1",
        source="scipy (BSD-3-Clause)",
        needs=("scipy",),
    )
]

"""bsr.torch: torch's BSR tensors, as a user calls them. On x86 this is MKL's sparse product."""

from __future__ import annotations

import warnings

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Bsr
from sparsebench.kernel import Kernel, Launch, Limit, Toolchain


def _square(case: Case) -> bool:
    return all(bh == bw for _, bh, bw in case.pattern_object.blocks())


def prepare(case: Case, packed: Bsr, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """torch.mv at n = 1, else torch.mm, into one buffer."""
    # torch: the framework whose block-sparse product is measured here.
    import torch

    arrays = (torch.from_numpy(array) for array in (packed.block_offsets, packed.block_columns, packed.values))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse BSR tensor support is in beta")
        # The format has checked what torch would check; not saying so makes torch warn.
        w = torch.sparse_bsr_tensor(*arrays, size=packed.shape, check_invariants=False)
    y = toolchain.output((case.m, case.n))
    x_, y_ = torch.from_numpy(x), torch.from_numpy(y)
    if case.n > 1:
        return Launch(lambda: torch.mm(w, x_, out=y_), y, "mm")
    column, result = x_[:, 0], y_[:, 0]

    def run() -> np.ndarray:
        torch.mv(w, column, out=result)
        return y

    return Launch(run, y, "mv")


KERNELS = [
    Kernel(
        name="bsr.torch",
        format=Bsr,
        prepare=prepare,
        about="a BSR tensor with 32-bit indices @ X, square blocks; mv at n = 1",
        source="torch (BSD-3-Clause); MKL's mkl_sparse_s_mm on x86",
        needs=("torch",),
        limits=(
            Limit(_square, "blocks must be square: MKL, which torch calls, has no others; use bsr.c or bsr.scipy"),
        ),
    )
]

"""bsr.torch: torch's BSR tensors, as a user calls them. On x86 this is MKL's sparse product."""

from __future__ import annotations

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Bsr
from sparsebench.kernel import Kernel, Launch, Limit, Toolchain

from .._torch_sparse import SOURCE, torch_product


def _square(case: Case) -> bool:
    return all(bh == bw for _, bh, bw in case.pattern_object.blocks())


def prepare(case: Case, packed: Bsr, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """torch.mv at n = 1, else torch.mm, into one buffer."""
    return torch_product(
        "BSR", (packed.block_offsets, packed.block_columns, packed.values), packed.shape, case, x, toolchain
    )


KERNELS = [
    Kernel(
        name="bsr.torch",
        format=Bsr,
        prepare=prepare,
        about="a BSR tensor with 32-bit indices @ X, square blocks; mv at n = 1",
        source=SOURCE,
        needs=("torch",),
        sources=("../_torch_sparse.py",),
        limits=(
            Limit(_square, "blocks must be square: MKL, which torch calls, has no others; use bsr.c or bsr.scipy"),
        ),
    )
]

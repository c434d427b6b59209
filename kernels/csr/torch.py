"""csr.torch: torch's CSR tensors, as a user calls them. On x86 this is MKL's sparse product."""

from __future__ import annotations

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Csr
from sparsebench.kernel import Kernel, Launch, Toolchain

from .._torch_sparse import SOURCE, torch_product


def prepare(case: Case, packed: Csr, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """torch.mv at n = 1, else torch.mm, into one buffer."""
    return torch_product("CSR", (packed.offsets, packed.columns, packed.values), packed.shape, case, x, toolchain)


KERNELS = [
    Kernel(
        name="csr.torch",
        format=Csr,
        prepare=prepare,
        about="a CSR tensor with 32-bit indices @ X; mv at n = 1",
        source=SOURCE,
        needs=("torch",),
        sources=("../_torch_sparse.py",),
    )
]

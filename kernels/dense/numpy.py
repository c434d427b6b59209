"""dense.numpy: numpy's own BLAS, mostly OpenBLAS."""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, Toolchain


def prepare(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """np.matmul into one buffer: W @ X, or X @ W.T where X is [n, k]."""
    if case.layout == "feature":
        y = toolchain.output((case.m, case.n))
        return Launch(partial(np.matmul, packed.values, x, out=y), y)
    y = toolchain.output((case.n, case.m))
    return Launch(partial(np.matmul, x, packed.values.T, out=y), y)


KERNELS = [
    Kernel(
        name="dense.numpy",
        format=Dense,
        prepare=prepare,
        about="np.matmul in either layout",
        source="numpy (BSD-3-Clause) with the BLAS it was built with",
        layouts=("feature", "batch"),
    )
]

"""What csr.torch and bsr.torch share: a sparse tensor of torch times X, as a user calls it. On x86 that is MKL."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from sparsebench.case import Case
from sparsebench.kernel import Launch, Toolchain

SOURCE = "torch (BSD-3-Clause); MKL's mkl_sparse_s_mm on x86"


def torch_product(
    kind: str, arrays: Sequence[np.ndarray], shape: tuple[int, int], case: Case, x: np.ndarray, toolchain: Toolchain
) -> Launch:
    """torch.mv at n = 1, else torch.mm, into one buffer; `kind` is CSR or BSR, `arrays`: offsets, columns, values."""
    # torch: the framework whose sparse products are measured here.
    import torch

    make = {"CSR": torch.sparse_csr_tensor, "BSR": torch.sparse_bsr_tensor}[kind]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"Sparse {kind} tensor support is in beta")
        # The format has checked what torch would check; not saying so makes torch warn.
        w = make(*map(torch.from_numpy, arrays), size=shape, check_invariants=False)
    y = toolchain.output((case.m, case.n))
    x_, y_ = torch.from_numpy(x), torch.from_numpy(y)
    if case.n > 1:
        return Launch(lambda: torch.mm(w, x_, out=y_), y, "mm")
    column, result = x_[:, 0], y_[:, 0]

    def run() -> np.ndarray:
        torch.mv(w, column, out=result)
        return y

    return Launch(run, y, "mv")

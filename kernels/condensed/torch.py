"""condensed.torch: SRigL's gather-sum expression, run eagerly.

The authors hand the same expression to torch.compile, which fuses gather, product and sum. Here it is what a user gets
who types it: the gathered activations are made as a whole, n * m * f entries, and that is what bounds it.
"""

from __future__ import annotations

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Condensed
from sparsebench.kernel import Kernel, Launch, Limit, Toolchain, least_moved_bytes

MOST_GATHERED_BYTES = 2**31


def gathered_bytes(case: Case) -> float:
    """Bytes of x[..., columns]: one float32 for each nonzero and each row of X."""
    return 4 * case.n * case.m * case.k * (1 - (case.sparsity or 0))


def prepare(case: Case, packed: Condensed, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """sum(w * x[..., columns], -1), scattered into zeros where W has rows that are off."""
    # torch: the framework the published expression is written in.
    import torch

    w = torch.from_numpy(np.ascontiguousarray(packed.values[:, : packed.fan_in]))
    columns = torch.from_numpy(packed.columns[:, : packed.fan_in].astype(np.int64))
    rows = torch.from_numpy(packed.rows.astype(np.int64))
    y = toolchain.output((case.n, case.m))
    x_, y_ = torch.from_numpy(x), torch.from_numpy(y)

    def run() -> np.ndarray:
        torch.sum(w * x_[..., columns], -1, out=y_)
        return y

    def run_and_scatter() -> np.ndarray:
        y_.zero_()
        y_[:, rows] = torch.sum(w * x_[..., columns], -1)
        return y

    return Launch(run if len(rows) == case.m else run_and_scatter, y)


def moved_bytes(case: Case, packed: Condensed) -> int:
    """Operands and answer once; the gathered activations and their products, written and read."""
    return least_moved_bytes(case, packed) + 4 * 4 * case.n * packed.nnz


KERNELS = [
    Kernel(
        name="condensed.torch",
        format=Condensed,
        prepare=prepare,
        about="sum(w * x[..., columns], -1) in eager torch: the expression SRigL publishes",
        source="SRigL (arXiv 2305.02299, algorithm 1)",
        moved_bytes=moved_bytes,
        layouts=("batch",),
        needs=("torch",),
        limits=(
            Limit(
                lambda case: gathered_bytes(case) <= MOST_GATHERED_BYTES,
                "the activations it gathers, 4 * n * nonzeros bytes, must fit in 2 GiB; use condensed.c",
            ),
        ),
    )
]

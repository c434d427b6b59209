"""condensed.c: blocks of X from the first-level cache, a live row x 64 columns in registers. Own C."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Condensed
from sparsebench.kernel import Kernel

from .._product import C_DTYPES, ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._segments import Single
from .._strips import Lists


def arguments(packed: Condensed) -> tuple[Argument, ...]:
    """What condensed_vector takes before shares."""
    sizes = (*packed.shape, packed.values.shape[1], packed.columns.itemsize)
    return *integers(*sizes), *map(pointer, (packed.rows, packed.columns, packed.values))


def work(packed: Condensed) -> np.ndarray:
    """All live rows have as many nonzeros."""
    return np.ones(len(packed.rows), np.int64)


def lists(packed: Condensed) -> Lists:
    """All live rows alone."""
    row, fan_in = np.repeat(packed.rows, packed.fan_in), packed.fan_in
    return Lists(
        packed.shape, single=Single(row, packed.columns[:, :fan_in].ravel(), packed.values[:, :fan_in].ravel())
    )


KERNELS = [
    Kernel(
        name="condensed.c",
        format=Condensed,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "condensed_vector", arguments, work, lists),
        about="as csr.c, live rows alone; at n = 1 sixteen nonzeros in flight",
        source="own; the format is the condensed form of SRigL (arXiv 2305.02299, algorithm 1)",
        moved_bytes=moved_bytes,
        dtypes=C_DTYPES,
        layouts=("feature", "batch"),
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmv.c",
        sources=(*SHARED, "../include/four.h"),
        limits=(ONE_GROUP,),
    )
]

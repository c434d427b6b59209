"""condensed.cuda: a slab of X in shared memory, live rows taken eight or so at a time by coalesced loads, own CUDA C++.

All live rows have one length, so slices need no offsets and no padding but to whole steps. Rows that are off are not in
the format: the same launch writes their zeros.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Condensed
from sparsebench.kernel import Kernel

from .._conv import CONV_SOURCES, convolution
from .._device import INT32, SHARED, by_op
from .._product import ONE_GROUP
from .._slab import SOURCES, Family
from .._slab_tile import Rows
from .._slices import Lists


def rows_of(packed: Condensed) -> Rows:
    """The live rows, fan_in entries in each."""
    live = packed.rows.astype(np.int64) if packed.fan_in else np.zeros(0, np.int64)
    return Rows(live, np.full(len(live), packed.fan_in, np.int64), even=True)


def lists_of(packed: Condensed) -> Lists:
    """The kept entries; the format's own padding is left out, since slices pad to steps of another size."""
    f = packed.fan_in
    return Lists(rows_of(packed), packed.columns[:, :f].astype(np.int64).ravel(), packed.values[:, :f].ravel())


FAMILY = Family("condensed", Path(__file__).with_name("spmm.cu"), rows_of, lists_of, even=True)

KERNELS = [
    Kernel(
        name="condensed.cuda",
        format=Condensed,
        prepare=by_op(FAMILY.prepare, convolution),
        about="a slab of X in shared memory; live rows in slices of coalesced lists, dealt against bank conflicts",
        source="own; the format is the condensed form of SRigL (arXiv 2305.02299, algorithm 1)",
        devices=("cuda",),
        dtypes=("float32", "float16", "bfloat16"),
        layouts=("feature", "batch"),
        ops=("gemm", "conv2d"),
        needs=("torch", "cupy"),
        body="spmm.cu",
        sources=(*SHARED, *SOURCES, *CONV_SOURCES),
        limits=(INT32, ONE_GROUP),
    )
]

"""csr.cuda: rows sorted by length and taken in slices, a slab of X in shared memory, own CUDA C++.

The format's offsets are not what the body reads: rows of about one length share a slice and are padded to its longest,
which costs little once they are sorted, and makes every load of W a coalesced one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Csr
from sparsebench.kernel import Kernel

from .._conv import CONV_SOURCES, convolution
from .._device import INT32, SHARED, by_op
from .._product import ONE_GROUP
from .._slab import SOURCES, Family
from .._slab_tile import Rows
from .._slices import Lists


def rows_of(packed: Csr) -> Rows:
    """Rows with entries, and how many."""
    counts = np.diff(packed.offsets).astype(np.int64)
    live = np.flatnonzero(counts)
    return Rows(live, counts[live], even=False)


def lists_of(packed: Csr) -> Lists:
    """All entries, row by row as the format has them."""
    return Lists(rows_of(packed), packed.columns.astype(np.int64), packed.values)


FAMILY = Family("csr", Path(__file__).with_name("spmm.cu"), rows_of, lists_of, even=False)

KERNELS = [
    Kernel(
        name="csr.cuda",
        format=Csr,
        prepare=by_op(FAMILY.prepare, convolution),
        about="rows sorted by length in slices of coalesced lists; a slab of X in shared memory, or X from L2",
        source="own; rows in order of length are Sputnik's row swizzle (arXiv 2006.10901, section 5.1.3)",
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

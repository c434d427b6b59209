"""csr.c: blocks of X from the first-level cache, a row x 64 columns in registers. Own C."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Csr
from sparsebench.kernel import Kernel

from .._product import ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._segments import Single
from .._strips import Lists


def arguments(packed: Csr) -> tuple[Argument, ...]:
    """What csr_vector_f32 takes before x and y."""
    return *integers(packed.shape[0]), *map(pointer, (packed.offsets, packed.columns, packed.values))


def lists(packed: Csr) -> Lists:
    """All rows alone."""
    row = np.repeat(np.arange(packed.shape[0]), np.diff(packed.offsets))
    return Lists(packed.shape, single=Single(row, packed.columns, packed.values))


KERNELS = [
    Kernel(
        name="csr.c",
        format=Csr,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "csr_vector_f32", arguments, lists),
        about="blocks of X packed into the first-level cache, for each the nonzeros of a row x 64 columns in registers",
        source="own",
        moved_bytes=moved_bytes,
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmv.c",
        sources=SHARED,
        limits=(ONE_GROUP,),
    )
]

"""csr.c: blocks of X from the first-level cache, a row x 64 columns in registers. Own C."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Csr
from sparsebench.kernel import Kernel

from .._product import C_DTYPES, ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._segments import Single
from .._strips import Lists
from .._structs import placed


def arguments(packed: Csr) -> tuple[Argument, ...]:
    """What csr_vector takes before shares; columns as 16-bit numbers where k allows it."""
    columns = placed(packed.columns, np.uint16 if packed.shape[1] <= 2**16 else np.int32)
    sizes = (*packed.shape, columns.itemsize)
    return *integers(*sizes), *map(pointer, (packed.offsets, columns, packed.values))


def work(packed: Csr) -> np.ndarray:
    """Nonzeros of each row."""
    return np.diff(packed.offsets)


def lists(packed: Csr) -> Lists:
    """All rows alone."""
    row = np.repeat(np.arange(packed.shape[0]), np.diff(packed.offsets))
    return Lists(packed.shape, single=Single(row, packed.columns, packed.values))


KERNELS = [
    Kernel(
        name="csr.c",
        format=Csr,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "csr_vector", arguments, work, lists),
        about="blocks of X packed into the first-level cache, for each the nonzeros of a row x 64 columns in registers",
        source="own",
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

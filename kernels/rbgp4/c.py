"""rbgp4.c: rows that share a list of columns x 64 columns in registers. Own C."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Rbgp4
from sparsebench.kernel import Kernel

from .._product import C_DTYPES, ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._row_groups import row_groups
from .._strips import Lists, height_of, tall


def arguments(packed: Rbgp4) -> tuple[Argument, ...]:
    """What rbgp4_vector takes before shares: each list once for all rows that share it, these four together."""
    (m, k), sharing = packed.shape, packed.row_repeat * packed.block[0]
    height = tall(sharing, 4)
    parts, groups = sharing // height, row_groups(packed, height)
    level, run = groups.levels[0], packed.outer.shape[1] * packed.inner.shape[1] * packed.block[1]
    columns = level.columns.reshape(-1, parts, run)[:, 0].astype(np.uint16 if k <= 2**16 else np.int32)
    arrays = (columns, groups.rows, np.ascontiguousarray(level.values))
    return *integers(m, k, height, parts, run, columns.itemsize), *map(pointer, arrays)


def work(packed: Rbgp4) -> np.ndarray:
    """All lists are as long."""
    return np.ones(len(packed.outer) * len(packed.inner), np.int64)


def lists(packed: Rbgp4) -> Lists:
    """Rows that share a list, 8 or 4 together; lists are spelled out, two bytes for 4 or 8 nonzeros."""
    return Lists(packed.shape, groups=row_groups(packed, height_of(packed)))


KERNELS = [
    Kernel(
        name="rbgp4.c",
        format=Rbgp4,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "rbgp4_vector", arguments, work, lists),
        about="4 or 8 rows that share a list of columns x 64 columns in registers; four of each at n = 1",
        source="own; the structure is RBGP4's (arXiv 2006.13486)",
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

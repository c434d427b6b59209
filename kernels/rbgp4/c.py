"""rbgp4.c: rows that share a list of columns x 64 columns in registers. Own C."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Rbgp4
from sparsebench.kernel import Kernel

from .._product import C_DTYPES, ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._row_groups import row_groups
from .._strips import Lists, height_of


def spelled_out(inner: np.ndarray, bw: int) -> np.ndarray:
    """The columns of a tile that each inner row keeps, int32 [u_i, d_i * bw]: `inner` [u_i, d_i] with its blocks.

    >>> spelled_out(np.array([[0, 2]]), 2)
    array([[0, 1, 4, 5]], dtype=int32)
    """
    return (inner[:, :, None] * bw + np.arange(bw)).reshape(len(inner), -1).astype(np.int32)


def arguments(packed: Rbgp4) -> tuple[Argument, ...]:
    """What rbgp4_vector takes before shares."""
    (bh, bw), (_, tk) = packed.block, packed.tile
    inner = spelled_out(packed.inner, bw)
    sizes = (*packed.outer.shape, *inner.shape, packed.row_repeat, bh, tk, packed.shape[1])
    return *integers(*sizes), *map(pointer, (packed.outer, inner, packed.values))


def work(packed: Rbgp4) -> np.ndarray:
    """All tile rows have as many nonzeros."""
    return np.ones(len(packed.outer), np.int64)


def lists(packed: Rbgp4) -> Lists:
    """Rows that share a list, 8 or 4 together; lists are spelled out, two bytes for 4 or 8 nonzeros."""
    return Lists(packed.shape, groups=row_groups(packed, height_of(packed)))


KERNELS = [
    Kernel(
        name="rbgp4.c",
        format=Rbgp4,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "rbgp4_vector", arguments, work, lists),
        about="4 or 8 rows that share a list of columns x 64 columns in registers; at n = 1 no list is read",
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

"""hbs.c_levels: one pass a level, each adding to Y. What equation 2 of HBsNN assumes, and what hbs.c has to beat.

Each level runs the body of its own format: bsr.c's, or csr.c's where blocks are single weights.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Bsr, Hbs
from sparsebench.kernel import Kernel, Launch, Toolchain

from .._product import ONE_GROUP, SHARED, Pass, cut_of, launched, moved_bytes
from .._segments import Single
from .._strips import Lists
from .c import HEADERS, arguments

BODY = Path(__file__).with_name("spmv.c")


def lists(level: Bsr) -> Lists:
    """Block rows together, or single weights as lone rows."""
    if level.block != (1, 1):
        return Lists(level.shape, groups=cut_of(level))
    row = np.repeat(np.arange(level.shape[0]), np.diff(level.block_offsets))
    return Lists(level.shape, single=Single(row, level.block_columns, level.values[:, 0, 0]))


def prepare(case: Case, packed: Hbs, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """A pass for each level."""
    passes = [
        Pass(level, partial(arguments, Hbs((level,)), index > 0), partial(lists, level))
        for index, level in enumerate(packed.levels)
    ]
    return launched(passes, BODY, "hbs_vector", case, x, toolchain)


def moved(case: Case, packed: Hbs) -> int:
    """Bytes moved at least: what one pass moves, and for each further one X read and Y read and written again."""
    again = ITEM_BYTES[case.dtype] * case.n * (case.k + 2 * case.m)
    return moved_bytes(case, packed) + (len(packed.levels) - 1) * again


KERNELS = [
    Kernel(
        name="hbs.c_levels",
        format=Hbs,
        prepare=prepare,
        about="one pass a level, each with the body of its format, adding to Y",
        source="own; equation 2 of HBsNN (arXiv 1808.03420) adds up levels so",
        moved_bytes=moved,
        layouts=("feature", "batch"),
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmv.c",
        sources=("c.py", *SHARED, *HEADERS),
        limits=(ONE_GROUP,),
    )
]

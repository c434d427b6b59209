"""hbs.c_levels: one pass a level, each adding to Y. What equation 2 of HBsNN assumes, and what hbs.c has to beat."""

from __future__ import annotations

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Hbs
from sparsebench.kernel import Kernel, Launch, Toolchain

from .._product import ONE_GROUP, SHARED, launched, moved_bytes
from .c import BODY, HEADERS, level_by_level


def prepare(case: Case, packed: Hbs, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """A pass for each level."""
    return launched(level_by_level(packed), BODY, "hbs_vector", case, x, toolchain)


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

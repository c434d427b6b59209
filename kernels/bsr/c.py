"""bsr.c: up to 8 rows of a block x 64 columns in registers, own C."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebench.formats import Bsr
from sparsebench.kernel import Kernel

from .._product import C_DTYPES, ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._row_groups import row_groups
from .._strips import Lists, height_of

HEADERS = tuple(f"../include/{name}.h" for name in ("four", "blocks", "block_dots"))


def arguments(packed: Bsr) -> tuple[Argument, ...]:
    """What bsr_vector takes before shares."""
    arrays = (packed.block_offsets, packed.block_columns, packed.values)
    return *integers(*packed.shape, *packed.block), *map(pointer, arrays)


def work(packed: Bsr) -> np.ndarray:
    """Blocks of each block row."""
    return np.diff(packed.block_offsets)


def lists(packed: Bsr) -> Lists:
    """Block rows, 8, 4 or 2 rows of them together."""
    return Lists(packed.shape, groups=row_groups(packed, height_of(packed)))


KERNELS = [
    Kernel(
        name="bsr.c",
        format=Bsr,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "bsr_vector", arguments, work, lists),
        about="any block; up to 8 of its rows x 64 columns held in registers, so that they share each load of X",
        source="own",
        moved_bytes=moved_bytes,
        dtypes=C_DTYPES,
        layouts=("feature", "batch"),
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmv.c",
        sources=(*SHARED, *HEADERS),
        limits=(ONE_GROUP,),
    )
]

"""hbs.c: all levels in one pass into one tile of Y, own C."""

from __future__ import annotations

import ctypes
from pathlib import Path

from sparsebench.formats import Bsr, Hbs
from sparsebench.kernel import Kernel

from .._product import ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._row_groups import row_groups
from .._strips import Lists, height_of

HEADERS = tuple(f"../include/{name}.h" for name in ("four", "blocks", "block_dots"))


class Blocks(ctypes.Structure):
    """One level as the body sees it: the struct Blocks of include/blocks.h."""

    _fields_ = (
        ("bh", ctypes.c_int64),
        ("bw", ctypes.c_int64),
        ("offsets", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
    )


def level(bsr: Bsr) -> Blocks:
    """`bsr` as a C struct; its arrays must outlive it."""
    addresses = (pointer(array).value for array in (bsr.block_offsets, bsr.block_columns, bsr.values))
    return Blocks(*bsr.block, *addresses)


def arguments(packed: Hbs) -> tuple[Argument, ...]:
    """What hbs_vector_f32 takes before x and y."""
    levels = (Blocks * len(packed.levels))(*map(level, packed.levels))
    levels.packed = packed  # type: ignore[attr-defined]  # keeps the arrays alive as long as the addresses
    return *integers(packed.shape[0], len(packed.levels)), levels


def lists(packed: Hbs) -> Lists:
    """All levels added up in the registers of 4 rows."""
    return Lists(packed.shape, groups=row_groups(packed, height_of(packed)))


KERNELS = [
    Kernel(
        name="hbs.c",
        format=Hbs,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "hbs_vector_f32", arguments, lists),
        about="any levels, all of them added to up to 4 rows x 64 columns in registers before Y is written",
        source="own; the pattern is that of HBsNN (arXiv 1808.03420, section 2.3)",
        moved_bytes=moved_bytes,
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmv.c",
        sources=(*SHARED, *HEADERS),
        limits=(ONE_GROUP,),
    )
]

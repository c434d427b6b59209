"""hbs.c: all levels in one pass into one tile of Y, own C."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np

from sparsebench.formats import Bsr, Hbs
from sparsebench.kernel import Kernel

from .._product import C_DTYPES, ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer
from .._row_groups import Level, RowGroups, row_groups
from .._segments import Single
from .._strips import Lists, height_of

HEADERS = tuple(f"../include/{name}.h" for name in ("four", "blocks", "block_dots"))


APART = 0.06  # share of W in lone rows


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


def arguments(packed: Hbs, adds: bool = False) -> tuple[Argument, ...]:
    """What hbs_vector takes before x, y and room."""
    levels = (Blocks * len(packed.levels))(*map(level, packed.levels))
    levels.packed = packed  # type: ignore[attr-defined]  # keeps the arrays alive as long as the addresses
    return *integers(*packed.shape, len(packed.levels)), levels, *integers(adds)


def lists(packed: Hbs) -> Lists:
    """All levels added up in the registers of 4 rows, or levels of lone rows apart (`apart`)."""
    groups = row_groups(packed, height_of(packed))
    single = [level for level in groups.levels if level.height == 1]
    if len(single) in (0, len(groups.levels)) or not apart(groups):
        return Lists(packed.shape, groups)
    return Lists(
        packed.shape, replace(groups, levels=groups.levels[: -len(single)]), _together(single, packed.shape[0])
    )


def apart(groups: RowGroups) -> bool:
    """Whether levels of lone rows are better added strip by strip after the others, from the first-level cache.

    In a tile of several rows a lone nonzero waits for a row of X from the second-level cache; apart, the sums of a
    strip are read and written once more. With 3 % of W in lone rows that is 0 to 6 % slower, with 10 % it is 5 to 25 %
    faster, with 20 % 5 to 50 % (256x64 to 512x2304, n = 64 and 196; measured, Cascade Lake).
    """
    lone = sum(len(level.columns) for level in groups.levels if level.height == 1)
    m, k = groups.shape
    return lone > APART * m * k


def _together(levels: list[Level], m: int) -> Single:
    """Levels of height 1 as rows alone, columns rising in each."""
    row = np.concatenate([np.repeat(np.arange(m), np.diff(level.offsets)[:m]) for level in levels])
    columns = np.concatenate([level.columns for level in levels])
    values = np.concatenate([level.values[:, 0] for level in levels])
    order = np.lexsort((columns, row))
    return Single(row[order], columns[order], values[order])


KERNELS = [
    Kernel(
        name="hbs.c",
        format=Hbs,
        prepare=c_product(Path(__file__).with_name("spmv.c"), "hbs_vector", arguments, lists),
        about="any levels in the registers of 4 rows x 64 columns; lone rows apart where they are many",
        source="own; the pattern is that of HBsNN (arXiv 1808.03420, section 2.3)",
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

"""hbs.c: levels in one pass into one tile of Y, or a pass each where that is faster. Own C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Bsr, Hbs
from sparsebench.kernel import Kernel, Launch, Toolchain

from .._product import (
    C_DTYPES,
    ONE_GROUP,
    SHARED,
    Argument,
    Pass,
    cut_of,
    integers,
    launched,
    moved_bytes,
    pointer,
)
from .._row_groups import Level, RowGroups
from .._segments import Single
from .._strips import Lists, height_of

BODY = Path(__file__).with_name("spmv.c")
HEADERS = tuple(f"../include/{name}.h" for name in ("four", "blocks", "block_dots"))

# Share of W in lone rows above which they are added after the others, strip by strip, from the first-level cache. In a
# tile of several rows a lone nonzero waits for a row of X from the second-level cache; apart, the sums of a strip are
# read and written once more. With 3 % of W in lone rows that is 0 to 6 % slower, with 10 % it is 5 to 25 % faster, with
# 20 % 5 to 50 % (256x64 to 512x2304, n = 64 and 196; measured, Cascade Lake).
APART = 0.06
# Rows of X up to which the first-level cache holds a strip of it, so that sharing its loads saves little: rows alone
# are then 5 to 25 % faster than two kinds of lists (256x64; measured, Cascade Lake).
NEAR_ROWS = 96
# Rows of X from which levels that would share a tile are better added one after the other, where Y is one strip: 6 to
# 10 % faster (128x1152 to 768x3072, n = 64; measured, Cascade Lake).
FAR_ROWS = 1024
ONE_STRIP = 64  # columns


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
    """What hbs_vector takes before shares."""
    levels = (Blocks * len(packed.levels))(*map(level, packed.levels))
    levels.packed = packed  # type: ignore[attr-defined]  # keeps the arrays alive as long as the addresses
    return *integers(*packed.shape, len(packed.levels)), levels, *integers(adds)


def _of_level(adds: bool, level: Bsr) -> tuple[Argument, ...]:
    return arguments(Hbs((level,)), adds)


def work(packed: Hbs) -> np.ndarray:
    """Entries of all levels in each block row of the first."""
    rows = len(packed.levels[0].block_offsets) - 1
    levels = [(np.diff(level.block_offsets).reshape(rows, -1), level.block) for level in packed.levels]
    return np.asarray(sum(blocks.sum(axis=1) * bh * bw for blocks, (bh, bw) in levels))


def lists(packed: Hbs) -> Lists:
    """All levels in the registers of 4 rows, or levels of lone rows after the others, or nothing but lone rows."""
    groups, shape = cut_of(packed), packed.shape
    lone = [level for level in groups.levels if level.height == 1]
    if lone_share(packed) <= APART:
        return Lists(shape, groups)
    if len(lone) == len(groups.levels) or shape[1] <= NEAR_ROWS:
        return Lists(shape, single=_alone(groups, groups.levels))
    others = replace(groups, levels=groups.levels[: -len(lone)])
    return Lists(shape, others, _alone(groups, lone))


def lone_share(packed: Hbs) -> float:
    """Share of W in rows alone."""
    heights = [height_of(level) for level in packed.levels]
    lone = sum(level.values.size for level, height in zip(packed.levels, heights, strict=True) if height == 1)
    return float(lone / (packed.shape[0] * packed.shape[1]))


def best_level_by_level(case: Case, packed: Hbs) -> bool:
    """Whether a pass a level is faster than one for all."""
    one_strip = case.conv is None and case.dtype == "float32" and 1 < case.n <= ONE_STRIP
    return one_strip and case.k >= FAR_ROWS and len(packed.levels) > 1 and lone_share(packed) <= APART


def level_by_level(packed: Hbs) -> list[Pass]:
    """A pass for each level, with the body of its own format: bsr.c's, or csr.c's where blocks are single weights."""
    return [
        Pass(level, partial(_of_level, index > 0), partial(work, Hbs((level,))), partial(lists_of_level, level))
        for index, level in enumerate(packed.levels)
    ]


def lists_of_level(level: Bsr) -> Lists:
    """Block rows together, or single weights as lone rows."""
    if level.block != (1, 1):
        return Lists(level.shape, groups=cut_of(level))
    row = np.repeat(np.arange(level.shape[0]), np.diff(level.block_offsets))
    return Lists(level.shape, single=Single(row, level.block_columns, level.values[:, 0, 0]))


def prepare(case: Case, packed: Hbs, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """One pass, or one a level."""
    if best_level_by_level(case, packed):
        passes = level_by_level(packed)
    else:
        passes = [Pass(packed, arguments, partial(work, packed), partial(lists, packed))]
    return launched(passes, BODY, "hbs_vector", case, x, toolchain)


def _alone(groups: RowGroups, levels: Sequence[Level]) -> Single:
    """These levels as rows alone, columns rising in each."""
    parts = [
        (groups.rows.ravel()[of * level.height + j], level.columns, level.values[:, j])
        for level in levels
        for of in [np.repeat(np.arange(len(level.offsets) - 1), np.diff(level.offsets))]
        for j in range(level.height)
    ]
    row, columns, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.lexsort((columns, row))
    return Single(row[order], columns[order], values[order])


KERNELS = [
    Kernel(
        name="hbs.c",
        format=Hbs,
        prepare=prepare,
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

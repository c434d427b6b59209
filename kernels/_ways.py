"""Which way a C body takes, by shape alone: the steps in its time that no smooth law of sizes can know.

A law of times is fitted to matrices that were measured and asked about ones that nobody drew. So nonzeros are those
that a case keeps, spread as a random mask spreads them. tests/test_ways.py holds this against what bodies really do
with drawn matrices. It stands apart from the faces: what a law knows is no part of a kernel's version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from sparsebench.case import Case

from ._segments import block_rows_for
from ._strips import L1_BYTES, L2_SHARE, MOST_ROWS, SHORT_ROW, SHORT_ROW_NEAR, lanes_for, reads_worth_packing, tall
from .hbs.c import APART, FAR_ROWS, NEAR_ROWS, ONE_STRIP

AVX2_LANES = 8  # where 16 registers hold fewer vectors than the 32 of AVX-512 and of 64-bit ARM
L2_BYTES = 2**20  # what bodies take a core's second-level cache for, here and everywhere (_strips.l2_bytes)
LEAVE_CHANNELS_LAST = ("dense.onednn_conv", "dense.onednn_nhwc")  # the first takes images as [batch, c, h, w]
Level = tuple[float, int, int]  # share of W kept, block rows, block columns
Way = tuple[float, ...]
NAMES = ("x packed", "y packed", "beside", "log blocks of k", "log columns", "log rows together", "lone", "by level")
NONE: Way = (0.0,) * len(NAMES)


def vectors_for(rows: int, lanes: int) -> int:
    """Vectors of the widest strip beside tiles of so many rows, on a machine of so many lanes: include/strips.h.

    >>> vectors_for(8, 16), vectors_for(4, 8)
    (3, 2)
    """
    if lanes != AVX2_LANES:
        return 4 if rows <= 6 else 3
    return 4 if rows <= 2 else 3 if rows == 3 else 2 if rows <= 6 else 1


@dataclass(frozen=True, slots=True)
class _Cut:
    """W as bodies take it: entries of lists that rows share, their height, and nonzeros of rows alone."""

    entries: float = 0.0
    height: int = 1
    lone: float = 0.0


def _rows_alone(case: Case, levels: Sequence[Level]) -> tuple[_Cut, bool]:
    return _Cut(lone=sum(kept for kept, _, _ in levels) * case.m * case.k), False


def _blocks(case: Case, levels: Sequence[Level]) -> tuple[_Cut, bool]:
    kept, bh, _ = levels[0]
    height = tall(bh)
    return _Cut(kept * case.m * case.k / height, height * max(1, 4 // height)), False


def _levels(case: Case, levels: Sequence[Level]) -> tuple[_Cut, bool]:
    """As hbs.c's `lists` and `best_level_by_level`; with a pass a level the first one speaks."""
    weights, most = case.m * case.k, tall(levels[0][1], 4)
    heights = [gcd(most, bh) for _, bh, _ in levels]
    lone = sum(kept for kept, bh, _ in levels if tall(bh, 4) == 1)
    shared = sum(kept / height for (kept, _, _), height in zip(levels, heights, strict=True) if height > 1)
    rows = most * max(1, 4 // most)
    if lone <= APART:
        one_strip = case.conv is None and case.dtype == "float32" and 1 < case.n <= ONE_STRIP
        if one_strip and case.k >= FAR_ROWS and len(levels) > 1:
            return _Cut(levels[0][0] * weights / heights[0], rows), True
        return _Cut((shared + lone) * weights, rows), False
    if all(height == 1 for height in heights) or case.k <= NEAR_ROWS:
        return _Cut(lone=sum(kept for kept, _, _ in levels) * weights), False
    return _Cut(shared * weights, rows, lone * weights), False


CUTS: Mapping[str, Callable[[Case, Sequence[Level]], tuple[_Cut, bool]]] = {
    "csr.c": _rows_alone,
    "condensed.c": _rows_alone,
    "bsr.c": _blocks,
    "rbgp4.c": _blocks,
    "hbs.c": _levels,
}


def way_of(kernel: str, case: Case, levels: Sequence[Level], native: int) -> Way:
    """How `kernel` goes through `case`, whose levels keep these shares of W, with `native` lanes: numbers by NAMES.

    All 0 for one column, which has a body of its own, for convolutions, which walk planes, and for other kernels.
    """
    if kernel not in CUTS or case.conv is not None or case.n == 1:
        return NONE
    cut, by_level = CUTS[kernel](case, levels)
    k, n, lanes = case.k, case.n, lanes_for(case.n, native)
    columns = lanes * min(-(-n // lanes), vectors_for(cut.height, native))
    strips, ragged, slabs = -(-n // columns), n % lanes != 0, case.layout == "batch" or case.dtype != "float32"
    row = _live_row(cut.lone / case.m)
    one = block_rows_for(columns, k, row) if cut.lone else 1
    rows = one if not cut.entries else _block_rows(k, one, columns)
    alone = bool(cut.lone) and not cut.entries
    short = SHORT_ROW_NEAR if 4 * k * columns <= L1_BYTES else SHORT_ROW
    held = L2_SHARE * L2_BYTES
    beside = strips > 1 and not (slabs or ragged) and alone and one >= k and row < short
    beside = beside and 4 * k * n <= held <= L2_SHARE * 4 * (k + case.m) * n
    often = strips > 1 and cut.entries + cut.lone >= reads_worth_packing(n) * k
    added = bool(cut.lone) and (bool(cut.entries) or one < k)
    return (
        float(slabs or ragged or (often and not beside)),
        float(slabs or (added and (ragged or strips > 1))),
        float(beside),
        math.log(-(-k // (k if beside else rows))),
        math.log2(columns),
        math.log2(cut.height),
        float(bool(cut.lone)) + float(alone),
        float(by_level),
    )


def _live_row(row: float) -> float:
    """Nonzeros of a mean row that has any, where a mean row has so many: as few are empty as chance makes."""
    return row / -math.expm1(-row) if row > 0 else 0.0


def _block_rows(k: int, unit: int, columns: int) -> int:
    """As _strips.rows_of_a_block where rows share lists."""
    most = max(unit, min(MOST_ROWS, int(L2_SHARE * L2_BYTES) // (4 * columns)))
    each = -(-k // -(-k // most))
    return -(-each // unit) * unit

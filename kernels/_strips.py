"""What _product.c is to do with W: which strips, how much of X at a time, packed or not, which rows a thread has.

A face cuts its format into `Lists`: groups of rows that share lists (_row_groups.py), single rows (_segments.py), or
both. `Way` decides the rest by shape and machine, and _bound.py makes the call.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsebench.formats import Bsr, Hbs, Rbgp4

from ._row_groups import RowGroups
from ._segments import Single, block_rows_for

L2_SHARE = 0.8  # of the second-level cache that a slab of X may take, beside lists and sums
NEAR_SHARE = 0.25  # of it that X may take so that its rows need not be asked for in advance
MOST_ROWS = 2**16  # of a block: places in it are 16-bit
FEW_LANES = (4, 8)  # vectors for products of so few columns, where the machine's own are wider
# Nonzeros of a mean live row below which rows are best taken through all strips one by one, so that W is read once and
# Y in its order, where the second-level cache does not hold X and Y together: with 10 a row 1.2 to 3 times as fast
# (n = 256), with 26 to 29 1.04 to 1.4, with 51 0.93 to 1.03 (DLMC's 512x512 to 2048x512; measured, Cascade Lake).
SHORT_ROW = 40
# The same where the first-level cache holds a strip of X: 1.5 times as fast with 6 a row, 0.8 to 1 with 13 to 26.
SHORT_ROW_NEAR = 10
L1_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """W [m, k] for _product.c: what it adds up."""

    shape: tuple[int, int]
    groups: RowGroups | None = None
    single: Single | None = None


def tall(rows: int, most: int = 8) -> int:
    """The height of lists that bodies take for blocks of `rows` rows: 8, 4, 2 or 1.

    >>> tall(24), tall(12), tall(7), tall(24, 4)
    (8, 4, 1, 4)
    """
    return next(height for height in (8, 4, 2, 1) if height <= most and rows % height == 0)


def height_of(packed: Any) -> int:
    """The most rows that lists of `packed` have in common, as bodies take them; 4 where several levels meet."""
    if isinstance(packed, Hbs):
        return tall(packed.levels[0].block[0], 4)
    if isinstance(packed, Rbgp4):
        return tall(packed.row_repeat * packed.block[0])
    return tall(packed.block[0]) if isinstance(packed, Bsr) else 1


def l2_bytes() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not tell."""
    try:
        return os.sysconf("SC_LEVEL2_CACHE_SIZE") or 2**20
    except (ValueError, OSError):
        return 2**20


def entries_of(lists: Lists) -> int:
    """Entries of all lists: how often a row of X is read for a strip."""
    found = sum(len(level.columns) for level in lists.groups.levels) if lists.groups else 0
    return found + (len(lists.single.row) if lists.single else 0)


def reads_worth_packing(n: int) -> int:
    """How often a row of X must be read for a strip so that packing it pays.

    csr and bsr 4x1, 64x576 to 512x4608, sparsity 0.9 to 0.98: packed or not is the same at 13 reads for n = 128, at 8
    to 10 for n = 256 and at 3 to 6 for n = 2048, where rows are 8 KiB apart; 1.6 reads at n = 256 are 3.5 times as
    fast unpacked (measured, Cascade Lake).
    """
    return 4 if n >= 1024 else 10


def rows_of_a_block(lists: Lists, strip_columns: int, threads: int = 1) -> int:
    """Rows of X taken at a time: what L2_SHARE holds, in equal parts of k; a block of segments where there is no more.

    >>> rows_of_a_block(Lists((1, 4608)), 64) < 4608
    True
    """
    k, unit = lists.shape[1], segment_rows(lists, strip_columns)
    if lists.groups is None and threads == 1:
        return unit  # packed into the first-level cache: 43 GFLOP/s against 36 with all of k (csr.c, measured)
    most = max(unit, min(MOST_ROWS, int(L2_SHARE * l2_bytes()) // (4 * strip_columns)))
    each = -(-k // -(-k // most))
    return -(-each // unit) * unit


def far(x_bytes: float) -> bool:
    """Whether X in hand, of so many bytes, is so far that lists ask for its rows in advance.

    Where it is near, asking is one load more for each vector and 5 to 24 % slower (n = 4 and 16; k <= 576 at n = 64);
    where it is not, it is worth 2 to 120 % (blocks of 4x1 to 8x8 and rbgp4, 128x1152 to 768x3072, n = 64 and 256; both
    measured, Cascade Lake).
    """
    return x_bytes > NEAR_SHARE * l2_bytes()


def segment_rows(lists: Lists, strip_columns: int) -> int:
    """Rows of X in a block of segments, k at most; 1 where lists are of groups alone."""
    if lists.single is None:
        return 1
    return block_rows_for(strip_columns, lists.shape[1], mean_live_row(lists))


def mean_live_row(lists: Lists) -> float:
    """Nonzeros of a mean single row that has any."""
    row = lists.single.row if lists.single is not None else np.empty(0, np.int64)
    return len(row) / max(1, int(np.count_nonzero(np.bincount(row, minlength=1))))


def shares(work: np.ndarray, threads: int) -> np.ndarray:
    """Where each thread starts, int64 [threads + 1], so that all have about as much of `work`.

    >>> shares(np.array([5, 1, 1, 1, 1, 1]), 2)
    array([0, 1, 6])
    """
    done = np.concatenate([[0], np.cumsum(work)])
    goals = done[-1] * np.arange(threads + 1) / threads
    starts = np.abs(done[None, :] - goals[:, None]).argmin(axis=1)
    starts[0], starts[-1] = 0, len(work)
    return np.maximum.accumulate(starts).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Way:
    """How _product.c goes through X [k, n] and Y [m, n].

    lanes         of a vector
    widest        vectors of a strip
    block_rows    rows of X taken at a time
    segment_rows  rows of X in a block of segments; they divide block_rows
    x_packed      whether strips of X are packed into a slab
    y_packed      whether strips of Y are added up in a slab
    beside        whether a row is taken through all strips before the next
    """

    lanes: int
    widest: int
    block_rows: int
    segment_rows: int
    x_packed: bool
    y_packed: bool
    beside: bool

    @property
    def strip_columns(self) -> int:
        """Columns of the widest strip."""
        return self.lanes * self.widest


def way_for(lists: Lists, n: int, lanes: int, most_vectors: int, slabs: bool, adds: bool, threads: int = 1) -> Way:
    """The way through n columns, strips of at most `most_vectors` vectors of `lanes`.

    slabs    whether bodies can read neither X nor write Y where they are
    adds     whether Y is added to, not written
    threads  each block of X that they pack together costs them a barrier
    """
    widest = min(-(-n // lanes), most_vectors)
    columns, k = lanes * widest, lists.shape[1]
    strips, rows, one = -(-n // columns), rows_of_a_block(lists, columns, threads), segment_rows(lists, columns)
    ragged = n % lanes != 0
    beside = strips > 1 and not (slabs or ragged) and one >= k and best_row_by_row(lists, n, columns)
    often = strips > 1 and entries_of(lists) >= reads_worth_packing(n) * k
    added = lists.single is not None and (lists.groups is not None or one < k)
    return Way(
        lanes, widest, k if beside else rows, one,
        x_packed=slabs or ragged or (often and not beside),
        y_packed=slabs or (added and (ragged or strips > 1)) or (adds and ragged),
        beside=beside,
    )  # fmt: skip


def best_row_by_row(lists: Lists, n: int, strip_columns: int) -> bool:
    """Whether rows are short, share nothing, and the second-level cache holds X as it is, but not Y with it."""
    if lists.groups is not None or lists.single is None:
        return False
    (m, k), l2 = lists.shape, l2_bytes()
    short = SHORT_ROW_NEAR if 4 * k * strip_columns <= L1_BYTES else SHORT_ROW
    return 4 * k * n <= L2_SHARE * l2 <= L2_SHARE * 4 * (k + m) * n and mean_live_row(lists) < short


def lanes_for(n: int, native: int) -> int:
    """Lanes of the vectors for n columns, where the machine's own have `native`.

    >>> lanes_for(3, 16), lanes_for(8, 16), lanes_for(9, 16), lanes_for(6, 4)
    (4, 8, 16, 4)
    """
    return next((lanes for lanes in FEW_LANES if n <= lanes <= native), native)


def group_shares(groups: RowGroups, threads: int) -> np.ndarray:
    """Groups that each thread starts at, int64 [threads + 1]: about as many nonzeros for each."""
    work = np.ones(len(groups.rows))
    for level in groups.levels:
        work += (np.diff(level.offsets) * level.height).reshape(len(work), -1).sum(axis=1)
    return shares(work, threads)

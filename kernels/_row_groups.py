"""Any packed format as groups of rows that share lists of columns: what the convolution walks, whatever W is stored in.

A row group is a few rows of W that one warp holds in registers. Each level of it cuts these rows into lists: `height`
rows that own the same columns. The more rows share a list, the fewer activations are read for a multiply-add:

    csr, condensed   one level of height 1: rows share nothing, yet four of them share a staged tile of activations
    bsr              one level as high as a block
    hbs              one level a level
    rbgp4            one level of row_repeat * bh rows, which stand u_i blocks apart in W

Blocks higher than 16 rows are cut evenly: accumulators of more rows do not fit into registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from math import gcd
from typing import Any

import numpy as np

from sparsebench.errors import SparsebenchError
from sparsebench.formats import Bsr, Condensed, Csr, Hbs, Rbgp4

MOST_ROWS = 16  # of a group
LEAST_ROWS = 4  # of a group, where lists are shorter than this: then several of them make one


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Lists of one height. List t is columns[offsets[t]:offsets[t + 1]] of rows [t * height, (t + 1) * height).

    height   int                       rows that share a list
    columns  int32  [entries]          list after list, rising in a list
    values   float  [entries, height]  an entry's value in each row of its list
    offsets  int64  [lists + 1]
    """

    height: int
    columns: np.ndarray
    values: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class RowGroups:
    """W[m, k] as groups of rows. Row t of a level is row rows.flat[t] of W.

    rows    int32 [groups, height of a group]  every row of W once; -1 fills the last group up
    levels  coarse to fine; the height of each divides the height of a group
    """

    rows: np.ndarray
    levels: tuple[Level, ...]
    shape: tuple[int, int]

    @property
    def heights(self) -> tuple[int, ...]:
        """The height of each level."""
        return tuple(level.height for level in self.levels)

    @property
    def entries(self) -> int:
        """Entries of all lists; each is `height` multiply-adds a pixel."""
        return sum(len(level.columns) for level in self.levels)

    def to_dense(self) -> np.ndarray:
        """W as a full [m, k] array; supports of levels are disjoint."""
        dense = np.zeros((self.rows.size, self.shape[1]), self.levels[0].values.dtype)
        for level in self.levels:
            first = np.repeat(np.arange(len(level.offsets) - 1), np.diff(level.offsets)) * level.height
            dense[first[:, None] + np.arange(level.height), level.columns[:, None]] = level.values
        live = self.rows.ravel() >= 0
        whole = np.zeros(self.shape, dense.dtype)
        whole[self.rows.ravel()[live]] = dense[live]
        return whole


def cut(rows: int, most: int = MOST_ROWS) -> int:
    """The largest divisor of `rows` that is at most `most`.

    >>> cut(32), cut(20), cut(17), cut(6)
    (16, 10, 1, 6)
    """
    return max(height for height in range(1, min(rows, most) + 1) if rows % height == 0)


def group_height(heights: Sequence[int]) -> int:
    """Rows of a group whose coarsest lists have heights[0] rows.

    >>> group_height([1]), group_height([4, 1]), group_height([3])
    (4, 4, 3)
    """
    return heights[0] * max(1, LEAST_ROWS // heights[0])


def heights_of(packed: Any, most: int = MOST_ROWS) -> tuple[int, ...]:
    """Heights of the levels that `row_groups` makes of `packed`, without packing anything."""
    if isinstance(packed, Hbs):
        coarse = cut(packed.levels[0].block[0], most)
        return tuple(gcd(coarse, level.block[0]) for level in packed.levels)
    if isinstance(packed, Rbgp4):
        return (cut(packed.row_repeat * packed.block[0], most),)
    return (cut(packed.block[0], most) if isinstance(packed, Bsr) else 1,)


@singledispatch
def row_groups(packed: Any, most: int = MOST_ROWS) -> RowGroups:
    """`packed` as groups of rows that share lists, of `most` rows or four; SparsebenchError for an unknown format."""
    raise SparsebenchError(
        f"only csr, condensed, bsr, hbs and rbgp4 are cut into groups of rows, found {type(packed).__name__}; "
        f"add a row_groups for it"
    )


@row_groups.register
def _of_csr(packed: Csr, most: int = MOST_ROWS) -> RowGroups:
    return _grouped(
        np.arange(packed.shape[0]),
        [Level(1, packed.columns, packed.values[:, None], packed.offsets.astype(np.int64))],
        packed.shape,
    )


@row_groups.register
def _of_condensed(packed: Condensed, most: int = MOST_ROWS) -> RowGroups:
    """Rows that are not live keep empty lists: their zeros have to be written too."""
    counts = np.zeros(packed.shape[0], np.int64)
    counts[packed.rows] = packed.fan_in
    columns, values = (array[:, : packed.fan_in].ravel() for array in (packed.columns, packed.values))
    level = Level(1, columns.astype(np.int32), values[:, None], _ends(counts))
    return _grouped(np.arange(packed.shape[0]), [level], packed.shape)


@row_groups.register
def _of_bsr(packed: Bsr, most: int = MOST_ROWS) -> RowGroups:
    return _grouped(np.arange(packed.shape[0]), [_block_level(packed, heights_of(packed, most)[0])], packed.shape)


@row_groups.register
def _of_hbs(packed: Hbs, most: int = MOST_ROWS) -> RowGroups:
    levels = [
        _block_level(level, height) for level, height in zip(packed.levels, heights_of(packed, most), strict=True)
    ]
    return _grouped(np.arange(packed.shape[0]), levels, packed.shape)


@row_groups.register
def _of_rbgp4(packed: Rbgp4, most: int = MOST_ROWS) -> RowGroups:
    (height,), (u_o, d_o, _, run) = heights_of(packed, most), packed.values.shape
    (bh, _), u_i, repeat = packed.block, len(packed.inner), packed.row_repeat
    cuts = repeat * bh // height
    # [u_o, d_o, (repeat, u_i, bh), run] to [u_o, u_i, (repeat, bh) cut into lists, d_o, run, height]
    split = packed.values.reshape(u_o, d_o, repeat, u_i, bh, run).transpose(0, 3, 2, 4, 1, 5)
    values = split.reshape(u_o, u_i, cuts, height, d_o * run).transpose(0, 1, 2, 4, 3)
    of_inner_row = packed.columns()[:, :, : u_i * bh : bh].transpose(0, 2, 1, 3)  # [u_o, u_i, d_o, run]
    columns = np.repeat(of_inner_row.reshape(u_o * u_i, d_o * run), cuts, axis=0)
    rows = np.arange(packed.shape[0]).reshape(u_o, repeat, u_i, bh).transpose(0, 2, 1, 3)
    level = Level(
        height,
        columns.astype(np.int32).ravel(),
        values.reshape(-1, height),
        np.arange(len(columns) + 1, dtype=np.int64) * (d_o * run),
    )
    return _grouped(rows.ravel(), [level], packed.shape)


def _ends(counts: np.ndarray) -> np.ndarray:
    """Where each of the lists of these lengths starts, int64, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _block_level(packed: Bsr, height: int) -> Level:
    """Block rows cut into lists of `height` rows, blocks spelled out column by column."""
    bw, cuts = packed.block[1], packed.block[0] // height
    counts = np.diff(packed.block_offsets).astype(np.int64)
    block_row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(block_row)) - packed.block_offsets[block_row]
    # Block j of block row i, cut u: after all earlier block rows with all their cuts, then the cuts before it.
    first = packed.block_offsets[block_row].astype(np.int64) * cuts + place
    target = first[:, None] + np.arange(cuts) * counts[block_row][:, None]
    blocks = len(block_row) * cuts
    columns, values = np.empty((blocks, bw), np.int32), np.empty((blocks, bw, height), packed.values.dtype)
    columns[target] = (packed.block_columns[:, None] * bw + np.arange(bw))[:, None, :]
    values[target] = packed.values.reshape(-1, cuts, height, bw).transpose(0, 1, 3, 2)
    return Level(height, columns.ravel(), values.reshape(-1, height), _ends(np.repeat(counts * bw, cuts)))


def _grouped(order: np.ndarray, levels: Sequence[Level], shape: tuple[int, int]) -> RowGroups:
    """Lists in the order of rows `order`, several to a group, the last group filled up with empty lists."""
    height = group_height([level.height for level in levels])
    rows = np.full(-(-len(order) // height) * height, -1, np.int32)
    rows[: len(order)] = order
    filled = tuple(
        Level(level.height, level.columns, level.values, _extended(level.offsets, rows.size // level.height))
        for level in levels
    )
    return RowGroups(rows.reshape(-1, height), filled, shape)


def _extended(offsets: np.ndarray, lists: int) -> np.ndarray:
    return np.pad(offsets, (0, lists + 1 - len(offsets)), mode="edge")

"""What rbgp4.cuda and rbgp4.mma share on the host: sizes of a packed matrix, and W cut into the parts of blocks.

A thread block takes a part of a tile row: some inner rows, and of the rows that share each list some pieces of equal
size. Values are packed part by part, so that what a block stages of an edge is one run of memory, whole 16-byte chunks
long; rows and entries that are not there are zeros, and their lists repeat columns that are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Protocol

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Rbgp4

from .._device import ceil_div

# For Kernel.sources.
TILES = ("_tiles.py", "_inner.py", "../include/graph_tiles.cuh", "../include/staging.cuh")


class Cut(Protocol):
    """What both kernels' tiles say: rows of a piece, and inner rows and pieces of a block."""

    @property
    def rows(self) -> int: ...

    @property
    def inners(self) -> int: ...

    @property
    def pieces(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a packed matrix that tiles are cut by."""

    u_o: int
    d_o: int
    u_i: int
    run: int  # entries of a row in one tile, d_i * bw
    shared_rows: int  # V, rows that share a list
    bh: int
    tk: int

    @classmethod
    def of(cls, packed: Rbgp4) -> Sizes:
        (u_o, d_o), (u_i, d_i), (bh, bw) = packed.outer.shape, packed.inner.shape, packed.block
        return cls(u_o, d_o, u_i, d_i * bw, packed.row_repeat * bh, bh, packed.tile[1])

    def parts(self, tile: Cut) -> tuple[int, int]:
        """Blocks that share a tile row: across inner rows, and across the rows of a list."""
        return ceil_div(self.u_i, tile.inners), ceil_div(self.shared_rows, tile.pieces * tile.rows)

    def blocks(self, tile: Cut) -> int:
        """Blocks that make all rows of Y."""
        inner_parts, row_parts = self.parts(tile)
        return self.u_o * inner_parts * row_parts


def powers(least: int, most: int) -> list[int]:
    """Powers of two from `least` until one reaches `most`.

    >>> powers(1, 5)
    [1, 2, 4, 8]
    """
    found = [least]
    while found[-1] < most:
        found.append(2 * found[-1])
    return found


def values_by_parts(sizes: Sizes, tile: Cut, values: np.ndarray, run: int) -> np.ndarray:
    """Rbgp4.values as [u_o, inner_parts, row_parts, d_o, inners, pieces, rows, run], zeros where nothing is."""
    inner_parts, row_parts = sizes.parts(tile)
    by_list = values.reshape(sizes.u_o, sizes.d_o, -1, sizes.u_i, sizes.bh, sizes.run).transpose(0, 1, 3, 2, 4, 5)
    by_list = by_list.reshape(sizes.u_o, sizes.d_o, sizes.u_i, sizes.shared_rows, sizes.run)
    whole = (inner_parts * tile.inners, row_parts * tile.pieces * tile.rows, run)
    room = [(0, size - had) for size, had in zip(whole, by_list.shape[2:], strict=True)]
    parts = (sizes.u_o, sizes.d_o, inner_parts, tile.inners, row_parts, tile.pieces, tile.rows, run)
    return np.pad(by_list, [(0, 0), (0, 0), *room]).reshape(parts).transpose(0, 2, 4, 1, 3, 5, 6, 7)


def by_inner_parts(sizes: Sizes, tile: Cut, table: np.ndarray) -> np.ndarray:
    """`table` [u_i, ...] as [inner_parts, inners, ...]; inner rows that are not there repeat the last."""
    inner_parts = sizes.parts(tile)[0]
    return table[np.minimum(np.arange(inner_parts * tile.inners), sizes.u_i - 1)].reshape(
        inner_parts, tile.inners, *table.shape[1:]
    )


def elements_together(case: Case, *sizes: int) -> int:
    """How many elements, 16 bytes at most, may be copied at once where all `sizes` are multiples of them."""
    return gcd(16 // ITEM_BYTES[case.dtype], *sizes)


def copy_bytes(sizes: Sizes, case: Case) -> int:
    """X_BYTES (graph_tiles.cuh): bytes of X that are copied together, along n or, batch-major, along k."""
    along = (case.n,) if case.layout == "feature" else (case.k, sizes.tk)
    return ITEM_BYTES[case.dtype] * elements_together(case, *along)


def stores(sizes: Sizes, tile: Cut, case: Case) -> tuple[int, int]:
    """SPAN and OUT (graph_tiles.cuh): rows of a block that stay together, and elements of a store of Y."""
    span = sizes.bh if tile.pieces * tile.rows % sizes.bh == 0 else 1
    if case.layout == "feature":
        return span, elements_together(case, case.n)
    if span < sizes.bh:
        return span, 1  # parts cut through blocks: slots that follow each other are not neighbours in Y
    if tile.inners == sizes.u_i:  # a part without gaps
        rows = tile.pieces * tile.rows
        return span, elements_together(case, sizes.u_i * rows, sizes.u_i * sizes.shared_rows, case.m)
    return span, elements_together(case, tile.inners * span, sizes.u_i * span, case.m)


def of_wide_stores(sizes: Sizes, tiles: Sequence[Any], case: Case) -> list[Any]:
    """Those of `tiles` that store Y at least 4 bytes at a time, all of them where none does.

    Single 16-bit stores into a batch-major Y touch each 32-byte sector as often as they have elements in it.
    """
    if case.layout == "feature":
        return list(tiles)
    wide = [tile for tile in tiles if stores(sizes, tile, case)[1] * ITEM_BYTES[case.dtype] >= 4]
    return wide or list(tiles)

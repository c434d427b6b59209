"""How bsr.cuda, hbs.cuda and hbs.levels cut a product, and what follows from it for include/row_group.cuh.

A warp holds a group of rows x a tile of columns in registers. Its lanes lie side by side along n, and where n is too
small for 32 of them they split the lists of the group. X is read in one of two ways:

    direct  from global memory: warps walk their sorted lists of columns in step, so L1 holds what neighbours share
    slab    all k rows of a tile of columns copied to shared memory first: for small n, and for x [n, k], which has to
            be turned anyway. Every block pays for the copy, so few blocks take long shares of the groups each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Bsr, Hbs

from ._device import ceil_div

MOST_ROWS = 16  # of a group
MOST_LISTS = 8  # that one level may give a group: each costs an addition a step
MOST_WIDTH = 16  # columns of a block; wider ones are cut
VECTOR_BYTES = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """What a block computes; the macros of include/row_group.cuh.

    rows     of a group, that one warp holds
    lanes    of a warp along n; the other 32 / lanes split lists
    vector   neighbouring columns that a lane loads together
    pieces   vectors of a lane
    warps    of a block
    slab     X in shared memory
    parts    blocks that share a tile of columns
    bundle   groups whose rows are stored together
    """

    rows: int
    lanes: int
    vector: int
    pieces: int
    warps: int
    slab: bool
    parts: int = 1
    bundle: int = 1

    @property
    def columns(self) -> int:
        """Columns of a warp's tile."""
        return self.lanes * self.vector * self.pieces

    @property
    def split(self) -> int:
        """Lanes that take turns at the steps of a list."""
        return 32 // self.lanes


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one level: bh x bw each, `count` of them."""

    bh: int
    bw: int
    count: float

    def entries(self, rows: int) -> float:
        """Columns in the lists of all groups of `rows` rows: blocks higher than a group are met several times."""
        return self.count * self.bw * max(1, self.bh // rows)


@dataclass(frozen=True, slots=True)
class Level:
    """How groups walk one level: lists of `rows` rows, blocks cut to `width` columns, `step` columns at a time."""

    rows: int
    width: int
    step: int

    @property
    def macro(self) -> str:
        """What LEVELS holds for it."""
        return f"LEVEL(0x{self.rows:02x}{self.width:02x}{self.step:02x})"


def stored_blocks(packed: Bsr | Hbs) -> tuple[Blocks, ...]:
    """The levels of `packed`, coarse to fine."""
    levels = packed.levels if isinstance(packed, Hbs) else (packed,)
    return tuple(Blocks(*level.block, len(level.block_columns)) for level in levels)


def expected_blocks(case: Case) -> tuple[Blocks, ...]:
    """The levels that a matrix of `case` has on average, without drawing one."""
    asked = case.pattern_object.blocks()
    shares = [(1 - (own if own is not None else case.sparsity or 0.0), bh, bw) for own, bh, bw in asked]
    return tuple(Blocks(bh, bw, kept * case.m * case.k / (bh * bw)) for kept, bh, bw in shares)


def widest_divisor(size: int, most: int) -> int:
    """The largest divisor of `size` that is at most `most`.

    >>> widest_divisor(32, 16), widest_divisor(20, 16), widest_divisor(17, 16)
    (16, 10, 1)
    """
    return max(divisor for divisor in range(1, min(size, most) + 1) if size % divisor == 0)


def group_rows(heights: Sequence[int]) -> list[int]:
    """Heights that a group of a hierarchy with these block heights, coarse to fine, may have; the highest first.

    A level's blocks must cover the group or cut it evenly.

    >>> group_rows([16, 4, 1]), group_rows([6, 3]), group_rows([1])
    ([8, 4, 2, 1], [6, 3, 1], [1])
    """
    return [
        rows
        for rows in range(min(heights[0], MOST_ROWS), 0, -1)
        if heights[0] % rows == 0
        and all(height % rows == 0 or rows % height == 0 for height in heights)
        and rows <= MOST_LISTS * min(heights)
    ]


def walked(tile: Tile, case: Case, blocks: Sequence[Blocks]) -> tuple[Level, ...]:
    """How the groups of `tile` walk each level.

    Where lanes split a list, the step's values are 16 bytes, so that the warp reads its stretch of W without gaps;
    elsewhere 16 values, which all lanes share. A step holds at most 32 values of X.
    """
    item = ITEM_BYTES[case.dtype]

    def level(of: Blocks) -> Level:
        rows, width = min(tile.rows, of.bh), widest_divisor(of.bw, MOST_WIDTH)
        values = VECTOR_BYTES // item if tile.split > 1 else 16
        most = max(1, min(8, values // rows, 32 // (tile.vector * tile.pieces)))
        return Level(rows, width, _step(width, most))

    return tuple(level(of) for of in blocks)


def _step(width: int, most: int) -> int:
    """Columns of a step, up to `most`: a part of a block, or 1, 2, 4 .. blocks."""
    if width > most:
        return widest_divisor(width, most)
    step = width
    while 2 * step <= most:
        step *= 2
    return step


def store_elements(tile: Tile, case: Case) -> int:
    """Elements that are stored together from a warp's tile: along n of y [m, n], along m of y [n, m]."""
    most = VECTOR_BYTES // ITEM_BYTES[case.dtype]
    return gcd(most, case.m, tile.rows * tile.bundle) if case.layout == "batch" else gcd(most, case.n, tile.columns)


def bundles(rows: int, case: Case) -> set[int]:
    """Groups of `rows` rows to store together: for y [n, m] what makes words, and what makes 16 bytes, if m allows.

    >>> sorted(bundles(1, Case(m=32, k=8, n=8, dtype="bfloat16", layout="batch")))
    [2, 8]
    """
    if case.layout == "feature":
        return {1}
    item = ITEM_BYTES[case.dtype]
    wholes = (gcd(size // item, case.m) for size in (4, VECTOR_BYTES))
    return {whole // gcd(whole, rows) for whole in wholes}


def fill_elements(tile: Tile, case: Case) -> int:
    """Elements that are copied together into a slab; where the tile is all of x [k, n], across its rows too."""
    if not tile.slab:
        return 1
    most = VECTOR_BYTES // ITEM_BYTES[case.dtype]
    if case.layout == "batch":
        return gcd(most, case.k)
    return gcd(most, case.k * case.n) if case.n == tile.columns else gcd(most, case.n, tile.columns)


def shared_bytes(tile: Tile, case: Case) -> int:
    """Dynamic shared memory of a block: the slab, and a tile of sums a warp."""
    slab = ceil_div(case.k * tile.columns * ITEM_BYTES[case.dtype], 16) * 16 if tile.slab else 0
    tiled = case.layout == "batch" or tile.split > 1
    return slab + (4 * tile.warps * tile.bundle * tile.rows * (tile.columns + 1) if tiled else 0)


def units(tile: Tile, case: Case) -> int:
    """Bundles of groups: what a warp takes at a time."""
    return ceil_div(case.m, tile.rows * tile.bundle)

"""Tile sizes of rbgp4.triton: what a packed matrix asks of them, which are worth timing, which is the default."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Rbgp4
from sparsebench.kernel import Gpu

from .._device import ceil_div
from .._triton import depths, fills, most_sums, warps_for, widths
from .._tuning import largest_unit


@dataclass(frozen=True, slots=True)
class Tile:
    """Sizes of one variant of the body.

    rows     of one list, columns of Y that a program makes
    depth    entries of the list that a step multiplies
    lists    that a program makes one after another; 0: Y feature-major, transposed afterwards
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    lists: int = 1


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the launches need to know of a packed matrix.

    shared   V, rows that share a list
    run      neighbouring rows of W among them: bh, or all of them where there is one inner row
    inner    u_i, lists of a tile row
    outer    tile rows
    f        entries of a list, padded
    """

    shared: int
    run: int
    inner: int
    outer: int
    f: int

    @classmethod
    def of(cls, packed: Rbgp4) -> Sizes:
        """The sizes of `packed`."""
        (bh, bw), (u_o, d_o), (u_i, d_i) = packed.block, packed.outer.shape, packed.inner.shape
        shared = packed.row_repeat * bh
        return cls(shared, shared if u_i == 1 else bh, u_i, u_o, padded(d_o * d_i * bw))


def padded(f: int) -> int:
    """`f` rounded up to the largest step that adds at most an eighth: 64, 32 or 16.

    >>> [padded(f) for f in (1, 16, 40, 96, 500, 512)]
    [16, 16, 48, 96, 512, 512]
    """
    return next((up for unit in (64, 32) if 8 * (up := ceil_div(f, unit) * unit) <= 9 * f), ceil_div(f, 16) * 16)


def candidates(case: Case, gpu: Gpu, sizes: Sizes) -> list[Tile]:
    """The tiles worth timing, the default first; all fit in the GPU's shared memory and registers."""
    rows = [rows for rows in (64, 128) if sizes.shared % rows == 0]
    deep = [depth for depth in depths(case) if sizes.f % depth == 0] or [16]
    tiles = [
        Tile(height, width, depth, warps, stages, lists)
        for height, width, depth, stages, lists in product(rows, widths(case), deep, (3, 4), _lists(case, sizes))
        for warps in warps_for(case, gpu, height * width)
    ]
    tiles = [tile for tile in tiles if _fits(case, gpu, tile)]
    default = max(tiles, key=partial(_preference, case, gpu, sizes))
    return [default, *(tile for tile in tiles if tile != default)]


def _lists(case: Case, sizes: Sizes) -> tuple[int, ...]:
    """How many lists a program may make: one, or for a batch-major Y up to as many as stores of 16 bytes want."""
    if case.layout == "feature":
        return (1,)
    wanted = max(1, 16 // (largest_unit(sizes.run) * ITEM_BYTES[case.dtype]))
    possible = [lists for lists in (4, 2, 1) if lists <= wanted and _interleaves(sizes, lists)]
    return *[lists for lists in possible if store_bytes(case, sizes, lists) > 2], 0


def _interleaves(sizes: Sizes, lists: int) -> bool:
    """Whether a program can make `lists` neighbouring lists."""
    return lists == 1 or (sizes.inner % lists == 0 and 64 % sizes.run == 0)


def store_bytes(case: Case, sizes: Sizes, lists: int) -> int:
    """Bytes of the vectors that Y is stored in, batch-major, by programs of `lists` lists."""
    return min(16, largest_unit(lists * sizes.run) * ITEM_BYTES[case.dtype]) if lists else 16


def _fits(case: Case, gpu: Gpu, tile: Tile) -> bool:
    """Whether stages fit in shared memory, and finished lists beside the accumulator in registers."""
    item_bytes = ITEM_BYTES[case.dtype]
    sums = tile.rows * tile.columns / (32 * tile.warps)
    waiting = sums * tile.lists * item_bytes / 4 if tile.lists > 1 else 0
    most = most_sums(case, gpu) if not waiting else 128
    staged = tile.stages * tile.depth * (tile.rows + tile.columns) * item_bytes
    return sums + waiting <= most and staged <= gpu.shared_bytes


def _preference(case: Case, gpu: Gpu, sizes: Sizes, tile: Tile) -> tuple[Any, ...]:
    """What makes a tile the default before anything was timed; the largest wins. [derived]"""
    programs = case.m // (tile.rows * max(tile.lists, 1)) * ceil_div(case.n, tile.columns)
    return (
        tile.lists > 0,
        fills(gpu, programs) or -tile.rows * tile.columns * tile.lists,
        store_bytes(case, sizes, tile.lists),
        tile.rows,
        tile.columns if tile.columns <= 128 else 96,
        tile.rows * tile.columns <= 64 * 32 * tile.warps,
        -tile.warps,
        tile.depth,
        tile.stages == 3,
    )

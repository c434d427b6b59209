"""Which tile runs: all that fit a GPU, in the order in which they are expected to win.

`cycles` counts multiply-adds, rows of shared memory or L1, and bytes of L2: 128 multiply-adds, 128 bytes of L1 and
about 24 bytes of L2 a cycle and processor [derived; no constant was measured on a GPU]. It is a rank, not a prediction,
and decides what runs until the candidates have been timed on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import gcd
from typing import Any

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.kernel import Gpu

from ._device import ceil_div
from ._group_tiles import (
    VECTOR_BYTES,
    Blocks,
    Tile,
    bundles,
    expected_blocks,
    group_rows,
    shared_bytes,
    stored_blocks,
    units,
    walked,
)

MOST_SUMS = 64  # accumulators of a lane; with what is in flight 105 to 120 registers [compiled]
MOST_SUMS_OF_LEVELS = 32  # of levels lower than the group, each step of which has sums of its own: 64 spill [compiled]
OTHER_REGISTERS = 56  # of a thread, beside its sums [compiled]
MOST_CANDIDATES = 24
WARPS = 4  # of a block without a slab
WARPS_FOR_LATENCY = 12  # on a processor, so that one waits while others work


def _powers(most: int) -> Iterator[int]:
    power = 1
    while power <= most:
        yield power
        power *= 2


def _direct(rows: int, most_sums: int, case: Case) -> Iterator[Tile]:
    """Tiles that read X from global memory; x [n, k] can only be gathered element by element."""
    vector = gcd(VECTOR_BYTES // ITEM_BYTES[case.dtype], case.n) if case.layout == "feature" else 1
    while rows * vector > most_sums:
        vector //= 2
    for lanes in _powers(32):
        for pieces in (1, 2, 4):
            columns = lanes * vector * pieces
            if rows * vector * pieces <= most_sums and (columns < 2 * case.n or lanes * pieces == 1):
                for bundle in bundles(rows, case):
                    tile = Tile(rows, lanes, vector, pieces, WARPS, slab=False, bundle=bundle)
                    yield replace(tile, parts=ceil_div(units(tile, case), WARPS))


def _slabs(rows: int, most_sums: int, case: Case, gpu: Gpu) -> Iterator[Tile]:
    """Tiles with X in shared memory, as far as it fits; none for the k of which not even one column does."""
    for columns in _powers(128):
        vector = min(columns, VECTOR_BYTES // ITEM_BYTES[case.dtype])
        while rows * vector > most_sums:
            vector //= 2
        for pieces, warps, bundle in product((1, 2), (4, 8, 16, 32), bundles(rows, case)):
            lanes, sums = columns // (vector * pieces), rows * vector * pieces
            if columns >= 2 * case.n or not 1 <= lanes <= 32 or sums > (most_sums if warps < 32 else 8):
                continue
            tile = Tile(rows, lanes, vector, pieces, warps, slab=True, bundle=bundle)
            if shared_bytes(tile, case) <= gpu.shared_bytes:
                yield from _shares(tile, case, gpu)


def _shares(tile: Tile, case: Case, gpu: Gpu) -> Iterator[Tile]:
    """`tile` with as many blocks as run at once, rounded down and up."""
    at_once, across = gpu.processors * _resident(tile, case, gpu), ceil_div(case.n, tile.columns)
    most = ceil_div(units(tile, case), tile.warps)
    for parts in sorted({min(most, max(1, at_once // across)), min(most, ceil_div(at_once, across))}):
        yield replace(tile, parts=parts)


def _resident(tile: Tile, case: Case, gpu: Gpu) -> int:
    """Blocks that one processor holds: by shared memory and by registers."""
    by_memory = gpu.shared_bytes // max(1, shared_bytes(tile, case))
    registers = OTHER_REGISTERS + tile.rows * tile.vector * tile.pieces
    return max(1, min(by_memory, 2**16 // (32 * tile.warps * registers)))


def _bank_rows(tile: Tile, item: int) -> float:
    """Cycles of shared memory or L1 for one vector of X in each lane of a warp.

    A slab's rows start at random among the 32 banks; without one, each line that lanes meet takes a cycle.
    """
    bytes_of_lane, run = tile.vector * item, tile.lanes * tile.vector * item
    whole = max(1.0, 32 * bytes_of_lane / 128)
    if not tile.slab:
        return max(whole, tile.split)
    return whole * {1: 1.0, 2: 1.5, 4: 2.1, 8: 2.6}.get(max(1, min(8, 128 // max(run, 1), tile.split)), 2.6)


def cycles(case: Case, blocks: Sequence[Blocks], tile: Tile, gpu: Gpu) -> float:
    """What `tile` takes, in cycles of the whole GPU: a rank, no prediction."""
    across = ceil_div(case.n, tile.columns)
    count, resident = tile.parts * across, _resident(tile, case, gpu)
    together = min(resident, ceil_div(count, gpu.processors))
    multiply, banks = _instructions(case, blocks, tile)
    l2_bytes = _l2_bytes(case, blocks, tile, together * tile.warps)
    work = max(multiply, banks, l2_bytes / 24) / tile.parts  # of one block
    waits = max(1.0, WARPS_FOR_LATENCY / (together * tile.warps))
    fill = case.k * tile.columns * ITEM_BYTES[case.dtype] / 24 if tile.slab else 0.0
    return ceil_div(count, gpu.processors * resident) * together * (fill + work * waits) + 1000


def _instructions(case: Case, blocks: Sequence[Blocks], tile: Tile) -> tuple[float, float]:
    """Cycles of multiply-adds, and of shared memory or L1, for all groups x one tile of columns."""
    item, multiply, banks = ITEM_BYTES[case.dtype], 0.0, 0.0
    for of, level in zip(blocks, walked(tile, case, blocks), strict=True):
        entries, steps = of.entries(tile.rows), of.entries(tile.rows) / level.step
        additions = steps * tile.rows if level.rows < tile.rows else 0.0
        multiply += (entries * level.rows + additions) * tile.columns / 128
        value_bytes = level.step * level.rows * item
        loads = ceil_div(value_bytes, VECTOR_BYTES) * max(1.0, tile.split * min(value_bytes, VECTOR_BYTES) / 128)
        banks += entries * tile.pieces * _bank_rows(tile, item) / tile.split + steps / tile.split * (loads + 1)
    return multiply, banks


def _l2_bytes(case: Case, blocks: Sequence[Blocks], tile: Tile, warps: int) -> float:
    """Bytes between L2 and processors of `warps` warps, but for slabs, for all groups x one tile of columns."""
    item = ITEM_BYTES[case.dtype]
    weights = sum(of.entries(tile.rows) * (min(tile.rows, of.bh) * item + 2 / of.bw) for of in blocks)
    run = tile.rows * tile.bundle if case.layout == "batch" else tile.columns
    outputs = case.m * tile.columns * item * max(1.0, 32 / (run * item))  # L2 takes sectors of 32 bytes
    if tile.slab:
        return weights + outputs
    entries = sum(of.entries(tile.rows) for of in blocks)
    met = warps * entries / ceil_div(case.m, tile.rows) / case.k  # of these warps need the same row of X
    return weights + outputs + entries * tile.columns * item / max(1.0, met)


def ranked(case: Case, blocks: Sequence[Blocks], gpu: Gpu) -> list[Tile]:
    """All tiles for `case` that fit `gpu`, the one expected to win first."""
    heights = [of.bh for of in blocks]
    groups = [(rows, MOST_SUMS if rows <= min(heights) else MOST_SUMS_OF_LEVELS) for rows in group_rows(heights)]
    tiles = [tile for rows, sums in groups for tile in _slabs(rows, sums, case, gpu)]
    if case.layout == "feature" or not tiles:
        tiles += [tile for rows, sums in groups for tile in _direct(rows, sums, case)]
    return sorted(tiles, key=lambda tile: cycles(case, blocks, tile, gpu))


def candidates(case: Case, gpu: Gpu) -> list[Tile]:
    """The tiles to time against each other for `case` on `gpu`, the one expected to win first; no matrix is drawn."""
    return ranked(case, expected_blocks(case), gpu)[:MOST_CANDIDATES]


def choose(case: Case, packed: Any, gpu: Gpu) -> Tile:
    """The tile that runs for `packed` unless another was asked for."""
    return ranked(case, stored_blocks(packed), gpu)[0]

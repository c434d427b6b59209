"""Which Tile: candidates for a case, a count of cycles for each, and the least of them.

The count is of what a streaming processor must do at least [derived; no constant here was measured]: gathers at 128
bytes of shared memory a cycle, instructions at four a cycle, X and W from L2 at 24 bytes a cycle, W once from memory at
15, and the longest row's own chain of loads. It ranks tiles; on a GPU _tuning.py times the best of them instead.

What it says of the cases that count, on an H100 (tests/test_cuda_gather.py holds it to these):
- 768x3072, 90 %, n = 256, fp32: slabs of 16 columns, bound by shared memory; L2 would need 2.7x the bytes.
- n = 1..8: one slab of all n; the rows split over 4 to 16 walkers, so that short lists still fill the machine.
- k = 11008, n = 16, bf16: 352 KB do not fit. Two slabs of 8 columns read W twice but X once, and no part of k waits for
  another; the same tile with 16 columns takes k in two parts.
- 98 % and more with a long k: rows of X straight from L2, since filling a slab would move more than the gathers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.kernel import Gpu

from ._device import ceil_div
from ._slab_tile import MOST_WARPS, WARP, Cut, Rows, Tile, cut
from ._slices import window

SHARED_CLK, L2_CLK, MEMORY_CLK = 128.0, 24.0, 15.0  # bytes a cycle and processor
ISSUED_CLK = 4.0  # warp instructions
START_CLK, BARRIER_CLK, STEP_CLK = 1500.0, 700.0, 120.0  # a launch, the first bytes of a fill, one step of a lone warp
ENOUGH_WARPS = 16  # that keep shared memory and L2 busy


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles a launch takes at least, and what takes them."""

    cycles: float
    terms: Mapping[str, float]

    @property
    def bound(self) -> str:
        """The largest term's name."""
        return max(self.terms, key=lambda name: self.terms[name])


def padded_row(rows: Rows, cut: Cut) -> float:
    """Entries of a mean row as stored, padding included."""
    if not len(rows.counts):
        return 0.0
    if rows.even:
        return float(ceil_div(rows.longest, cut.row_step) * cut.row_step)
    return float(rows.counts.mean()) + cut.row_step / 2


def conflicts(rows: Rows, cut: Cut) -> float:
    """Reads of shared memory that one read becomes when entries are dealt over banks as _slices.py does.

    Of f random columns in b classes .4 sqrt(b / f) are left over, since a class holds f / b give or take its root; b
    walkers read together, and one out of place costs them a second read.
    """
    if cut.banks == 1 or not rows.longest:
        return 1.0
    free = window(cut, rows.longest)
    return float(1 + min(1.5, cut.banks * 0.4 * (cut.banks / free) ** 0.5))


def estimate(cut: Cut, rows: Rows, gpu: Gpu) -> Estimate:
    """Cycles of the launch that `cut` describes."""
    tile, direct = cut.tile, cut.tile.road == "direct"
    item, row_bytes, live = cut.item, cut.tile.columns * cut.item, len(rows.rows)
    slices = ceil_div(live, cut.slice_rows)
    blocks = max(1, ceil_div(slices, tile.warps)) if direct else cut.blocks
    waves = max(1, ceil_div(blocks * cut.slabs, gpu.processors * (max(1, 48 // tile.warps) if direct else 1)))
    share = live * cut.slabs / gpu.processors if direct else waves * ceil_div(slices, blocks) * cut.slice_rows
    entries = share * padded_row(rows, cut)

    steps = ceil_div(rows.longest, cut.row_step)
    resident = 48 if direct else min(tile.warps, max(1, ceil_div(slices, blocks)))
    idle = max(1.0, ENOUGH_WARPS / resident)
    width = cut.vector * (1 if item == 4 else 2)
    instructions = 5 + width + 10 / tile.entries
    weights = entries * (item + (2 if cut.column_dtype().itemsize == 2 else 4))
    filled = 0.0 if direct else waves * cut.k * row_bytes * max(1, ceil_div(cut.bands, cut.blocks) if cut.evict else 1)
    terms = {
        "shared memory": (0 if direct else idle * entries * max(4, row_bytes) / SHARED_CLK) * conflicts(rows, cut),
        "instructions": idle * entries * cut.lanes * instructions / WARP / ISSUED_CLK,
        "L2": (weights + filled + (entries * max(32, row_bytes) if direct else 0)) / L2_CLK,
        "memory": live * padded_row(rows, cut) * (item + 2) / gpu.processors / MEMORY_CLK,
        "longest row": waves * STEP_CLK * steps * max(1, ceil_div(slices, blocks) // tile.warps),
    }
    alone = 0.0 if direct else BARRIER_CLK + filled / L2_CLK / (1 if cut.evict else cut.parts)
    return Estimate(START_CLK + alone + max(terms.values()), terms)


def candidates(case: Case, gpu: Gpu) -> list[Tile]:
    """All tiles worth a thought for `case` on `gpu`, in no order; some may not fit (`cut` is then None)."""
    vector = 16 // ITEM_BYTES[case.dtype]
    widest = 1 << (case.n - 1).bit_length()
    slab = [columns for columns in (1, 2, 4, 8, 16, 32) if columns <= widest]
    direct = [columns for columns in (16, 32, 64, 128) if columns // 2 < case.n]
    tiles = []
    for columns, splits, entries in product(slab, (1, 2, 4, 8, 16, 32), (4, 8)):
        lanes = max(1, columns // vector)
        if lanes * splits <= WARP:
            blocks = max(1, gpu.processors // ceil_div(case.n, columns))
            slices = ceil_div(ceil_div(case.m, blocks), WARP // lanes // splits)
            tiles.append(Tile("slab", columns, splits, entries, _warps(slices)))
    if case.layout == "feature" and case.n > 1:
        tiles += [Tile("direct", columns, splits, 4, 8) for columns, splits in product(direct, (1, 2, 4))]
    return tiles


def _warps(slices: int) -> int:
    """Warps of a block that has `slices` to walk: as few rounds as MOST_WARPS allow, evenly filled; at least 8."""
    rounds = ceil_div(slices, MOST_WARPS)
    return min(MOST_WARPS, max(8, ceil_div(ceil_div(slices, rounds), 4) * 4))


def ranked(case: Case, rows: Rows, gpu: Gpu) -> list[tuple[Cut, Estimate]]:
    """The candidates that fit, the quickest by estimate first."""
    cuts = [found for tile in candidates(case, gpu) if (found := cut(tile, case, rows, gpu)) is not None]
    return sorted(((one, estimate(one, rows, gpu)) for one in cuts), key=lambda pair: pair[1].cycles)


def choose(case: Case, rows: Rows, gpu: Gpu) -> tuple[Cut, Estimate]:
    """The cut this kernel runs with when nothing was timed, and why."""
    return ranked(case, rows, gpu)[0]

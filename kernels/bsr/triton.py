"""bsr.triton: one block row x a tile of n on tensor cores, 3 or 4 stages of asynchronous copies, tiles tuned here.

Tile sizes. L2 gives every X row segment to a block row once, so a program of BH rows makes BH FLOP a byte of 16-bit X
whatever its COLUMNS: those decide only how often W is read again (COLUMNS FLOP a byte of W). The default is wide where
the grid still fills most of the GPU; the accumulator, BH * COLUMNS floats, bounds it from above (_triton.py). What is
fastest is measured on each machine (_tuning.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Bsr
from sparsebench.kernel import CudaToolchain, Gpu, Kernel, Limit

from .._device import INT32, Bound, ceil_div, device_product
from .._triton import MATHS, ONE_MATH, SOURCES, depths, fills, on_tensor_cores, warps_for, widths
from .._tuning import best, largest_unit, problem_class, timer

SIDES = (16, 32, 64, 128)

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """Sizes of one variant of the body.

    columns  of Y that a program makes
    depth    columns of W that a step multiplies
    swap     whether n takes the side of the 64 rows that wgmma asks for
    """

    columns: int
    depth: int
    warps: int
    stages: int
    swap: bool = False

    def shared_bytes(self, bh: int, item_bytes: int) -> int:
        """Shared memory for the stages of W and X; the compiler may ask for less, or for a little more."""
        return self.stages * self.depth * (bh + self.columns) * item_bytes


def pack(case: Case, packed: Bsr, gpu: Gpu) -> list[np.ndarray]:
    """Values, block columns, and the block rows with the fullest first: programs start in that order."""
    counts = np.diff(packed.block_offsets)
    order = np.argsort(-counts, kind="stable")
    rows = np.stack([order, packed.block_offsets[:-1][order], counts[order]], axis=1)
    return [packed.values, packed.block_columns, rows.astype(np.int32)]


def candidates(case: Case, gpu: Gpu, block: Shape) -> list[Tile]:
    """The tiles worth timing for blocks of `block`, the default first; all fit in the GPU's shared memory."""
    bh, _ = block
    tiles = [
        Tile(columns, depth, warps, stages, swap)
        for columns, depth, stages, swap in product(widths(case), depths(case), (3, 4), (False, True))
        for warps in warps_for(case, gpu, bh * columns)
        if not swap or _may_swap(case, gpu, bh, columns)
    ]
    tiles = [tile for tile in tiles if tile.shared_bytes(bh, ITEM_BYTES[case.dtype]) <= gpu.shared_bytes]
    default = max(tiles, key=partial(_preference, case, gpu, bh))
    return [default, *(tile for tile in tiles if tile != default)]


def _may_swap(case: Case, gpu: Gpu, bh: int, columns: int) -> bool:
    """Whether swapping can win: where there is wgmma, and n has 64 columns to give it but a block no 64 rows."""
    return gpu.sm // 10 == 9 and bh < 64 <= columns and on_tensor_cores(case)


def _preference(case: Case, gpu: Gpu, bh: int, tile: Tile) -> tuple[Any, ...]:
    """What makes a tile the default before anything was timed; the largest wins. [derived]"""
    programs = ceil_div(case.m, bh) * ceil_div(case.n, tile.columns)
    return (
        tile.swap == (case.dtype != "float32" and _may_swap(case, gpu, bh, tile.columns)),
        fills(gpu, programs) or -tile.columns,
        tile.columns if tile.columns <= 128 else 96,
        bh * tile.columns <= 64 * 32 * tile.warps,
        -tile.warps,
        tile.depth,
        tile.stages == 3,
    )


def variant(case: Case, block: Shape, tile: Tile, gpu: Gpu) -> dict[str, Any]:
    """The body's constants and the compiler's options, by name, for n = case.n."""
    x_bytes = case.k * case.n * ITEM_BYTES[case.dtype]
    return {
        "BH": block[0],
        "BW": block[1],
        "COLUMNS": tile.columns,
        "DEPTH": tile.depth,
        "N_UNIT": largest_unit(case.n),
        "BATCH": case.layout == "batch",
        "SWAP": tile.swap,
        "N_FASTEST": 2 * x_bytes <= gpu.cache_bytes,
        "PRECISION": case.math,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def bind(case: Case, packed: Bsr, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
    """One launch with the tile that is best here."""
    # triton: compiles the body; imported when the first matrix is prepared.
    from triton.runtime.errors import OutOfResources

    from ._spmm_triton import bsr_spmm

    bh, bw = packed.block
    sizes = (case.n // largest_unit(case.n), case.k // bw, case.m // bh)

    def grid(tile: Tile) -> tuple[int, ...]:
        return (sizes[2] * ceil_div(case.n, tile.columns),)

    def call(tile: Tile) -> Callable[[], None]:
        return partial(bsr_spmm[grid(tile)], *tensors, x, y, *sizes, **variant(case, packed.block, tile, toolchain.gpu))

    tiles = candidates(case, toolchain.gpu, packed.block)
    key = problem_class(case, toolchain, block=packed.block)
    choice = best("bsr.triton", key, tiles, timer(toolchain, call, (OutOfResources,)), tiles[0])
    tile = choice.tile
    facts = {**choice.facts(), "block": [bh, bw]}
    return Bound([call(tile)], grid(tile), (32 * tile.warps,), facts=facts)


def _sides_fit(case: Case) -> bool:
    return all(bh in SIDES and bw in SIDES for _, bh, bw in case.pattern_object.blocks())


KERNELS = [
    Kernel(
        name="bsr.triton",
        format=Bsr,
        prepare=device_product(pack, bind),
        about="blocks of 16 to 128 rows on tensor cores, 3 or 4 stages; low blocks swap sides to reach wgmma",
        source="own",
        devices=("cuda",),
        dtypes=("float32", "float16", "bfloat16"),
        maths=MATHS,
        layouts=("feature", "batch"),
        needs=("torch", "triton"),
        body="_spmm_triton.py",
        sources=SOURCES,
        limits=(
            INT32,
            ONE_MATH,
            Limit(
                _sides_fit,
                "blocks must have 16, 32, 64 or 128 rows and as many columns: tensor cores take no smaller ones, and "
                "Triton only powers of two; use bsr.cuda for small blocks",
            ),
        ),
    )
]

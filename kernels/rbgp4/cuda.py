"""rbgp4.cuda: the paper's division of labour on CUDA cores; X tiles staged once, rows that share a list in registers.

A thread block takes a tile row of G_o, or a part of it, and a tile of columns. Which part, how many columns and how
many rows a thread sums is a Tile; `candidates` lists those that fit, best first by a count of cycles [derived, not
measured], and `choose` takes the first. X tiles too large for shared memory (tk > 1500 or so) are read without staging.

Patterns that suit it [derived]: row_repeat x bh of 4 or 8; tiles of 128 rows and more, since X comes from L2
(1 - outer sparsity) m / tm times; tk of 32 to 64; at high sparsity a larger outer sparsity rather than a larger inner
one, since an absent tile costs nothing and a staged row that few lists name costs the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Rbgp4
from sparsebench.kernel import CudaToolchain, Gpu, Kernel

from .._conv import CONV_SOURCES, convolution
from .._device import ELEMENTS, INT32, SHARED, Bound, Prepare, body_beside, by_op, ceil_div, device_product
from .._product import ONE_GROUP
from ._inner import spelled_out
from ._tiles import TILES, Sizes, by_inner_parts, copy_bytes, of_wide_stores, powers, stores, values_by_parts


@dataclass(frozen=True, slots=True)
class Tile:
    """How a launch is cut; the macros of spmm.cu.

    rows                that a thread sums, all of one list
    lanes, vectors      threads side by side, and vectors of columns in each
    inners, pieces      inner rows of a block, and pieces of `rows` rows of each
    slices              thread groups that take the edges in turn
    stages              of the ring in shared memory; 0: nothing is staged
    """

    rows: int
    lanes: int
    vectors: int
    inners: int
    pieces: int
    slices: int
    stages: int

    @property
    def threads(self) -> int:
        return self.lanes * self.inners * self.pieces * self.slices

    @property
    def slots(self) -> int:
        """Rows of Y that a block makes."""
        return self.inners * self.pieces * self.rows


def padded_run(sizes: Sizes, tile: Tile, case: Case) -> int:
    """Entries of a list as stored: fours, and as many as make the W tile whole chunks of 16 bytes."""
    fours = 4 if 4 * tile.slots * ITEM_BYTES[case.dtype] % 16 == 0 else 8
    return ceil_div(sizes.run, fours) * fours


def each(case: Case) -> int:
    """Columns of one load from shared memory: 16 bytes of them, fewer where n is less; pairs at least of 16 bits."""
    vector = 16 // ITEM_BYTES[case.dtype]
    return min(vector, max(vector // 4, powers(1, case.n)[-1]))


def columns_of(tile: Tile, case: Case) -> int:
    """Columns of Y that a block makes."""
    return tile.lanes * tile.vectors * each(case)


def ring_bytes(sizes: Sizes, tile: Tile, case: Case) -> int:
    """Bytes of the staged X and W tiles."""
    item = ITEM_BYTES[case.dtype]
    pitch = columns_of(tile, case) + (16 // item if case.layout == "batch" else 0)
    x_bytes = ceil_div(sizes.tk * pitch * item, 16) * 16
    return tile.stages * tile.slices * (x_bytes + padded_run(sizes, tile, case) * tile.slots * item)


def shared_bytes(sizes: Sizes, tile: Tile, case: Case) -> int:
    """Dynamic shared memory of a block: ring, lists and edges; or, after them, what the sums pass through."""
    item, columns = ITEM_BYTES[case.dtype], columns_of(tile, case)
    lists = 4 * (padded_run(sizes, tile, case) * tile.inners + sizes.d_o)
    partial = 4 * (tile.slices - 1) * tile.slots * columns
    transposed = columns * (tile.slots * item + 16) if case.layout == "batch" else 0
    return max(ring_bytes(sizes, tile, case) + lists, partial, transposed)


def _tiles(sizes: Sizes, case: Case) -> list[Tile]:
    """All tiles worth a thought, whether they fit or not."""
    rows = powers(1, min(8, sizes.shared_rows))[-2:]
    widest = min(32, powers(1, ceil_div(case.n, each(case)))[-1])
    parts = sorted({ceil_div(sizes.u_i, part) for part in powers(1, sizes.u_i)})
    slices = [count for count in (1, 2, 4, 8, 16) if count <= sizes.d_o]
    return [
        Tile(r, lanes, vectors, inners, min(ceil_div(sizes.shared_rows, r), 16), count, stages)
        for r, lanes, vectors, inners, count, stages in product(
            rows, powers(1, widest), (1, 2) if case.dtype == "float32" else (1,), parts, slices, (3, 2)
        )
    ]


def cycles(sizes: Sizes, tile: Tile, case: Case, gpu: Gpu) -> float:
    """Clock cycles that the launch takes at least, to rank tiles by [derived; no constant was measured].

    An SM adds 128 products a cycle, reads 128 bytes of shared memory and about 24 bytes of L2, by sectors of 32; a
    stage takes at least the latency of its copies; fewer than 12 warps on an SM leave some of it idle.
    """
    item, columns = ITEM_BYTES[case.dtype], columns_of(tile, case)
    warps, run = ceil_div(tile.threads, 32), padded_run(sizes, tile, case)
    blocks = sizes.blocks(tile) * ceil_div(case.n, columns)
    resident = max(1, min(2048 // (32 * warps), 16 // warps * 2, gpu.shared_bytes // shared_bytes(sizes, tile, case)))
    stages = ceil_div(sizes.d_o, tile.slices)
    loads = tile.vectors * each(case) * item / 4 + 0.25 + ceil_div(tile.rows * item, 16)
    sums = tile.rows * tile.vectors * each(case) / 4 * (1 if item == 4 else 1.25)
    work = stages * warps * run * max(loads, sums) + tile.slices * tile.slots * columns / 32
    sectors = ceil_div(columns * item, 32) * 32
    copied = sizes.d_o * (sizes.tk * sectors + item * run * tile.slots) / 24
    wait = stages * 800 / (tile.stages - 1)
    rounds = ceil_div(blocks, gpu.processors * resident)
    together = min(resident, ceil_div(blocks, gpu.processors))
    return rounds * max(together * work * max(1.0, 12 / (together * warps)), together * copied, wait)


def candidates(case: Case, packed: Rbgp4, gpu: Gpu) -> list[Tile]:
    """Tiles that fit `gpu`, best first by `cycles`; the last is the one without staging, which always fits."""
    sizes = Sizes.of(packed)
    fit = [
        tile
        for tile in _tiles(sizes, case)
        if tile.threads <= 512 and shared_bytes(sizes, tile, case) <= gpu.shared_bytes
    ]
    fit = [tile for tile in fit if tile.threads >= 64] or fit  # a block of few threads leaves its warps half empty
    direct = Tile(powers(1, min(8, sizes.shared_rows))[-1], 64, 1, 1, 1, 1, 0)
    wide = of_wide_stores(sizes, fit, case)
    return [*sorted(wide, key=lambda tile: cycles(sizes, tile, case, gpu)), direct]


def choose(case: Case, packed: Rbgp4, gpu: Gpu) -> Tile:
    """The tile this kernel runs with."""
    return candidates(case, packed, gpu)[0]


def packed_by(tile: Tile, case: Case, packed: Rbgp4) -> list[np.ndarray]:
    """What spmm.cu reads of W: values [u_o, parts, d_o, entries, units, rows], outer, and the lists of each part."""
    sizes = Sizes.of(packed)
    run = padded_run(sizes, tile, case)
    values = values_by_parts(sizes, tile, packed.values, run).transpose(0, 1, 2, 3, 7, 4, 5, 6)
    spelled = spelled_out(packed.inner, packed.block[1])
    fours = np.pad(spelled, ((0, 0), (0, run - sizes.run)), mode="edge").reshape(sizes.u_i, run // 4, 4)
    lists = by_inner_parts(sizes, tile, fours).transpose(0, 2, 1, 3)
    return [np.ascontiguousarray(array) for array in (values, packed.outer, lists)]


def macros(sizes: Sizes, tile: Tile, case: Case) -> dict[str, Any]:
    """What spmm.cu is compiled with."""
    span, out = stores(sizes, tile, case)
    return {name.upper(): size for name, size in asdict(tile).items()} | {
        "STAGES": max(tile.stages, 2),
        "ELEMENT": ELEMENTS[case.dtype],
        "EACH": each(case),
        "TILE_K": sizes.tk,
        "BATCH": int(case.layout == "batch"),
        "X_BYTES": copy_bytes(sizes, case),
        "SPAN": span,
        "OUT": out,
    }


def bound_by(
    tile: Tile, case: Case, packed: Rbgp4, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain
) -> Bound:
    """The launch of `tile` over the arrays that `packed_by` made for it."""
    sizes = Sizes.of(packed)
    run = padded_run(sizes, tile, case)
    arguments = [
        *tensors,
        x,
        y,
        case.m,
        case.n,
        case.k,
        sizes.u_o,
        sizes.d_o,
        sizes.u_i,
        sizes.shared_rows,
        sizes.bh,
        run,
    ]
    units = sizes.blocks(tile)
    grid = (units * ceil_div(case.n, columns_of(tile, case) if tile.stages else tile.lanes),)
    name, last, room = "rbgp4_direct", units, 0
    if tile.stages:
        name, last, room = "rbgp4_spmm", ring_bytes(sizes, tile, case), shared_bytes(sizes, tile, case)
    function = toolchain.cuda(body_beside(__file__, "spmm.cu"), name, macros(sizes, tile, case))
    call = function.bind(grid, (tile.threads,), [*arguments, last], room)
    facts = {"V": sizes.shared_rows, "shared_bytes": room, "columns": columns_of(tile, case), **asdict(tile)}
    return Bound([call], grid, (tile.threads,), "" if tile.stages else "unstaged", facts)


def prepared_with(tile: Tile) -> Prepare:
    """The `prepare` that runs with `tile`, so that candidates can be timed against each other."""

    def pack(case: Case, packed: Rbgp4, gpu: Gpu) -> list[np.ndarray]:
        return packed_by(tile, case, packed)

    def bind(case: Case, packed: Rbgp4, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        return bound_by(tile, case, packed, tensors, x, y, toolchain)

    return device_product(pack, bind)


def prepare(case: Case, packed: Rbgp4, x: Any, toolchain: CudaToolchain) -> Any:
    """The launch of the chosen tile."""
    return prepared_with(choose(case, packed, toolchain.gpu))(case, packed, x, toolchain)


KERNELS = [
    Kernel(
        name="rbgp4.cuda",
        format=Rbgp4,
        prepare=by_op(prepare, convolution),
        about="a G_o edge's X tile staged once; 4 or 8 rows that share a list of columns summed in registers",
        source="own; the division of labour is RBGP4's (arXiv 2006.13486)",
        devices=("cuda",),
        dtypes=("float32", "float16", "bfloat16"),
        layouts=("feature", "batch"),
        ops=("gemm", "conv2d"),
        needs=("torch", "cupy"),
        body="spmm.cu",
        sources=(*SHARED, *TILES, *CONV_SOURCES),
        limits=(INT32, ONE_GROUP),
    )
]

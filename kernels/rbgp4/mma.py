"""rbgp4.mma: the gathered rows of a staged X tile straight into tensor cores, for V = 16, 32, 64 and more rows a list.

ldmatrix takes any row addresses, so a gather from shared memory costs nothing but bank conflicts, and those are dealt
away on the host (`dealt`). What is left to bound it [derived], 16 bits:

    L2              R N / (R + N) FLOP a byte, with R = (1 - inner sparsity) x rows of a block and N its columns. Sums
                    in registers allow rows x N = 256 x 128: inner 0.5 sees 64, inner 0.75 at best 45, and 0 sees 85
    shared memory   V N / (V + N) with the N of a warp: 64 x 64 a warp sees 32, 32 x 64 sees 21, 16 x 64 sees 13

So most of the sparsity belongs in the outer graph, and V = 64. At s = 0.875, n = 2048: tile 256x64, row_repeat 64,
block 1x1, outer 0.75, inner 0.5. X alone, as if W came for nothing, would allow 128 FLOP a byte of L2 there. The same
with row_repeat 32 gives warps of 32 x 128, which see 26; tiles of 128 rows read X from L2 twice as often.

A run (d_i * bw) that is no multiple of 16 (8 in TF32) is padded with zeros: 32 is two steps of 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Rbgp4
from sparsebench.kernel import CudaToolchain, Gpu, Kernel, Limit

from .._device import ELEMENTS, INT32, SHARED, Bound, Prepare, body_beside, ceil_div, device_product
from ._inner import spelled_out
from ._tiles import TILES, Sizes, by_inner_parts, copy_bytes, of_wide_stores, powers, stores, values_by_parts


@dataclass(frozen=True, slots=True)
class Tile:
    """How a launch is cut; the macros of mma.cu.

    rows                of a warp, all of one list: 16, 32 or 64
    warp_n, warps       columns of a warp, and warps side by side
    inners, pieces      inner rows of a block, and pieces of `rows` rows of each
    slices              groups of warps that take the edges in turn
    stages              of the ring in shared memory
    """

    rows: int
    warp_n: int
    warps: int
    inners: int
    pieces: int
    slices: int
    stages: int

    @property
    def threads(self) -> int:
        return 32 * self.warps * self.inners * self.pieces * self.slices

    @property
    def slots(self) -> int:
        """Rows of Y that a block makes."""
        return self.inners * self.pieces * self.rows

    @property
    def columns(self) -> int:
        """Columns of Y that a block makes."""
        return self.warp_n * self.warps

    @property
    def sums(self) -> int:
        """Registers of a thread that hold sums."""
        return self.rows * self.warp_n // 32


def step_of(case: Case) -> int:
    """Entries of a list that one mma takes: 32 bytes of W."""
    return 32 // ITEM_BYTES[case.dtype]


def padded_run(sizes: Sizes, case: Case) -> int:
    """Entries of a list as stored: whole steps."""
    return ceil_div(sizes.run, step_of(case)) * step_of(case)


def ring_bytes(sizes: Sizes, tile: Tile, case: Case) -> int:
    """Bytes of the staged X and W tiles."""
    stage = sizes.tk * tile.columns + padded_run(sizes, case) * tile.slots
    return tile.stages * tile.slices * ITEM_BYTES[case.dtype] * stage


def shared_bytes(sizes: Sizes, tile: Tile, case: Case) -> int:
    """Dynamic shared memory of a block: ring, lists and edges; or, after them, what the sums pass through."""
    item = ITEM_BYTES[case.dtype]
    lists = 4 * (padded_run(sizes, case) * tile.inners + sizes.d_o)
    partial = 4 * (tile.slices - 1) * tile.slots * tile.columns
    along, across = (tile.columns, tile.slots) if case.layout == "batch" else (tile.slots, tile.columns)
    return max(ring_bytes(sizes, tile, case) + lists, partial, along * (across * item + 16))


def dealt(lists: np.ndarray, group: int, length: int) -> np.ndarray:
    """For each list the entries that stand in its `length` places, int [lists, length]; -1 where none is left.

    Entries are dealt round the length / group groups in the order of their column mod `group`, so that a group, whose
    rows of X are read at once, meets each residue once wherever the list allows it, and as evenly as it can elsewhere.

    >>> dealt(np.array([[0, 8, 1, 9]]), 8, 16)[0, [0, 1, 8, 9]]
    array([0, 2, 1, 3])
    """
    groups, entries = length // group, lists.shape[1]
    order = np.argsort(lists % group, axis=1, kind="stable")
    padded = np.pad(order, ((0, 0), (0, length - entries)), constant_values=-1)
    return padded.reshape(len(lists), group, groups).transpose(0, 2, 1).reshape(len(lists), length)


def gathered(lists: np.ndarray, places: np.ndarray, group: int) -> np.ndarray:
    """Columns in the order of `places`, int32; a place without an entry repeats one its group or list has anyway."""
    columns = np.take_along_axis(lists, np.maximum(places, 0), axis=1)
    first = np.repeat(columns.reshape(len(lists), -1, group)[:, :, 0], group, axis=1)
    return np.where(places < 0, first, columns).astype(np.int32)


def in_fragment_order(values: np.ndarray) -> np.ndarray:
    """`values` [..., 16, step] as mma's A operand wants them: [..., 32 lanes, 4 registers, entries of a register].

    Lane 4 g + t, register r holds row g + 8 (r % 2), entries of t in half r / 2 of the step.
    """
    *before, rows, step = values.shape
    parts = values.reshape(*before, 2, 8, 2, 4, step // 8)
    lead = tuple(range(len(before)))
    low, g, half, t, pair = (len(before) + axis for axis in range(5))
    return parts.transpose(*lead, g, t, half, low, pair).reshape(*before, 2 * rows, 4, step // 8)


def packed_by(tile: Tile, case: Case, packed: Rbgp4) -> list[np.ndarray]:
    """What mma.cu reads of W: values in fragment order, outer, and the lists of each part."""
    sizes, step = Sizes.of(packed), step_of(case)
    group, run = step // 2, padded_run(sizes, case)
    spelled = spelled_out(packed.inner, packed.block[1])
    places = dealt(spelled, group, run)
    shape = (1, sizes.parts(tile)[0], 1, 1, tile.inners, 1, 1, run)
    which = by_inner_parts(sizes, tile, places).reshape(shape)
    values = np.take_along_axis(values_by_parts(sizes, tile, packed.values, run), np.maximum(which, 0), axis=-1)
    values = np.where(which < 0, values.dtype.type(0), values)
    steps = values.reshape(*values.shape[:6], tile.rows // 16, 16, run // step, step).transpose(
        0, 1, 2, 3, 8, 4, 5, 6, 7, 9
    )
    listed = gathered(spelled, places, group).reshape(sizes.u_i, run // step, step)
    lists = by_inner_parts(sizes, tile, listed).transpose(0, 2, 1, 3)
    return [np.ascontiguousarray(array) for array in (in_fragment_order(steps), packed.outer, lists)]


def _tiles(sizes: Sizes, case: Case) -> list[Tile]:
    """All tiles worth a thought, whether they fit or not."""
    rows = [rows for rows in (64, 32, 16) if sizes.shared_rows % rows == 0]
    pieces = {r: sorted({1, min(sizes.shared_rows // r, 4)}) for r in rows}
    widths = (32, 64) if case.dtype == "float32" else (16, 32, 64, 128)
    parts = sorted({ceil_div(sizes.u_i, part) for part in powers(1, sizes.u_i)})
    slices = [count for count in (1, 2, 4, 8) if count <= sizes.d_o]
    return [
        Tile(r, warp_n, warps, inners, share, count, stages)
        for r in rows
        for share, warp_n, warps, inners, count, stages in product(
            pieces[r], widths, (1, 2, 4), parts, slices, (3, 4, 2)
        )
    ]


def fits(sizes: Sizes, tile: Tile, case: Case, gpu: Gpu) -> bool:
    """Whether registers and shared memory hold the tile; no wider than n asks for."""
    registers = tile.threads * (tile.sums + 90) <= 65536 and tile.sums <= (64 if case.dtype == "float32" else 128)
    wide = tile.columns > tile.warp_n and tile.columns // 2 >= case.n
    return registers and not wide and tile.threads <= 512 and shared_bytes(sizes, tile, case) <= gpu.shared_bytes


def cycles(sizes: Sizes, tile: Tile, case: Case, gpu: Gpu) -> float:
    """Clock cycles that the launch takes at least, to rank tiles by [derived; no constant was measured].

    An SM starts an mma of 16 x 8 x 32 bytes in 1.6 cycles (three times that in tf32x3), reads 128 bytes of shared
    memory and about 24 of L2 a cycle; a stage takes at least the latency of its copies.
    """
    item, step = ITEM_BYTES[case.dtype], step_of(case)
    run, warps = padded_run(sizes, case), tile.threads // 32
    blocks = sizes.blocks(tile) * ceil_div(case.n, tile.columns)
    registers = 65536 // (tile.threads * (tile.sums + 90))
    resident = max(1, min(registers, gpu.shared_bytes // shared_bytes(sizes, tile, case)))
    stages = ceil_div(sizes.d_o, tile.slices)
    products = tile.rows * tile.warp_n / 128 * (4.8 if case.math == "tf32x3" else 1.6)
    work = stages * warps * run // step * max(products, (tile.rows + tile.warp_n) / 4) + tile.slots * tile.columns / 16
    work += tile.slices * tile.slots * tile.columns / 16
    sectors = ceil_div(tile.columns * item, 32) * 32
    copied = sizes.d_o * (sizes.tk * sectors + item * run * tile.slots) / 24
    together = min(resident, ceil_div(blocks, gpu.processors))
    wait = stages * 800 / (tile.stages - 1)
    rounds = ceil_div(blocks, gpu.processors * resident)
    return rounds * max(together * work * max(1.0, 8 / (together * warps)), together * copied, wait)


def candidates(case: Case, packed: Rbgp4, gpu: Gpu) -> list[Tile]:
    """Tiles that fit `gpu`, best first by `cycles`."""
    sizes = Sizes.of(packed)
    fit = [tile for tile in _tiles(sizes, case) if fits(sizes, tile, case, gpu)]
    return sorted(of_wide_stores(sizes, fit, case), key=lambda tile: cycles(sizes, tile, case, gpu))


def choose(case: Case, packed: Rbgp4, gpu: Gpu) -> Tile:
    """The tile this kernel runs with."""
    return candidates(case, packed, gpu)[0]


def macros(sizes: Sizes, tile: Tile, case: Case) -> dict[str, Any]:
    """What mma.cu is compiled with."""
    span, out = stores(sizes, tile, case)
    return {name.upper(): size for name, size in asdict(tile).items()} | {
        "ELEMENT": ELEMENTS[case.dtype],
        "STEPS": padded_run(sizes, case) // step_of(case),
        "TILE_K": sizes.tk,
        "BATCH": int(case.layout == "batch"),
        "X_BYTES": copy_bytes(sizes, case),
        "SPAN": span,
        "OUT": out,
        "SPLIT": int(case.math == "tf32x3"),
    }


def bound_by(
    tile: Tile, case: Case, packed: Rbgp4, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain
) -> Bound:
    """The launch of `tile` over the arrays that `packed_by` made for it."""
    sizes = Sizes.of(packed)
    frame = (case.m, case.n, case.k, sizes.u_o, sizes.d_o, sizes.u_i, sizes.shared_rows, sizes.bh)
    grid = (sizes.blocks(tile) * ceil_div(case.n, tile.columns),)
    room = shared_bytes(sizes, tile, case)
    function = toolchain.cuda(body_beside(__file__, "mma.cu"), "rbgp4_mma", macros(sizes, tile, case))
    arguments = [*tensors, x, y, *frame, ring_bytes(sizes, tile, case)]
    call = function.bind(grid, (tile.threads,), arguments, room)
    facts = {"V": sizes.shared_rows, "shared_bytes": room, "columns": tile.columns, **asdict(tile)}
    return Bound([call], grid, (tile.threads,), "", facts)


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


def _pattern(case: Case) -> Any:
    return case.pattern_object


def _rows_share_lists(case: Case) -> bool:
    pattern = _pattern(case)
    return bool(pattern.row_repeat * pattern.block[0] % 16 == 0)


def _tile_fits(case: Case) -> bool:
    """Whether two stages of the smallest tile fit in the 163 KiB of an A100, beside lists and edges."""
    tk = _pattern(case).tile[1]
    return bool(tk <= (384 if case.dtype == "float32" else 1024) and case.k // tk <= 4096)


KERNELS = [
    Kernel(
        name="rbgp4.mma",
        format=Rbgp4,
        prepare=prepare,
        about="rows of a staged X tile gathered by ldmatrix into mma.sync; 16, 32 or 64 rows share a list",
        source="own; the structure is RBGP4's (arXiv 2006.13486)",
        devices=("cuda",),
        dtypes=("float32", "float16", "bfloat16"),
        maths=("ieee", "tf32", "tf32x3"),
        layouts=("feature", "batch"),
        needs=("torch", "cupy"),
        body="mma.cu",
        sources=(*SHARED, *TILES, "../include/fragments.cuh"),
        limits=(
            INT32,
            Limit(
                lambda case: (case.dtype == "float32") == (case.math != "ieee"),
                "tensor cores take float32 as math tf32 or tf32x3, float16 and bfloat16 as math ieee; ask for those",
            ),
            Limit(
                _rows_share_lists,
                "row_repeat x block rows must be a multiple of 16, as many rows as an mma takes; use rbgp4.cuda",
            ),
            Limit(
                _tile_fits,
                "a tile may have 1024 columns (float32: 384), so that two fit in shared memory, and k at most 4096 "
                "tiles; use rbgp4.cuda",
            ),
        ),
    )
]

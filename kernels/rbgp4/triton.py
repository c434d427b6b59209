"""rbgp4.triton: rows that share a list of columns, 64 and more of them, as GEMMs over gathered rows of X.

V, the rows that share a list, is row_repeat * bh. It bounds the kernel: V FLOP for each byte of 16-bit X that L2 hands
over (designs: 64 rows reach half of an H100's dense rate, 128 all of it [derived]). Below 64 rows wgmma has nothing to
hold; rbgp4.mma stages X in shared memory for V = 16 and 32.

Batch-major X is transposed first, by a launch of its own that is timed with the rest. Batch-major Y is written from
registers by programs that make several lists (_spmm_triton.py); with `lists` = 0 the product is made feature-major and
transposed after it, which is the one way left where neither bh nor u_i is even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Rbgp4
from sparsebench.kernel import CudaToolchain, Gpu, Kernel, Limit, least_moved_bytes
from sparsebench.patterns.rbgp4 import Rbgp4 as Rbgp4Pattern

from .._device import Bound, ceil_div, device_product
from .._triton import MATHS, ONE_MATH, SOURCES
from .._tuning import best, largest_unit, problem_class, timer
from ._inner import spelled_out
from ._triton_tiles import Sizes, Tile, candidates, store_bytes

Shape = tuple[int, int]

SIDE = 64  # of a tile of the transposing launch
PADDED = 16  # columns that a transposed X or Y is padded to: 32 bytes of 16-bit values, so every vector is whole


def pack(case: Case, packed: Rbgp4, gpu: Gpu) -> list[np.ndarray]:
    """Values [lists, V, f] and columns [lists, f] of every list; padding is zero on the list's last column."""
    sizes = Sizes.of(packed)
    columns = packed.outer[:, None, :, None] * packed.tile[1] + spelled_out(packed.inner, packed.block[1])[:, None, :]
    u_o, d_o, _, run = packed.values.shape
    split = packed.values.reshape(u_o, d_o, packed.row_repeat, sizes.inner, packed.block[0], run)
    values = split.transpose(0, 3, 2, 4, 1, 5).reshape(u_o * sizes.inner, sizes.shared, d_o * run)
    tail = (0, sizes.f - d_o * run)
    lists = np.pad(columns.reshape(len(values), d_o * run), ((0, 0), tail), mode="edge")
    return [np.pad(values, ((0, 0), (0, 0), tail)), lists.astype(np.int32)]


def bind(case: Case, packed: Rbgp4, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
    """The launches with the tile that is best here: the product, and around it what a batch-major case needs."""
    # triton: compiles the body; imported when the first matrix is prepared.
    from triton.runtime.errors import OutOfResources

    sizes = Sizes.of(packed)

    def calls(tile: Tile) -> list[Callable[[], None]]:
        if case.layout == "feature":
            return [_product(case, sizes, tile, tensors, x, y)]
        return _batch_calls(case, sizes, tile, tensors, x, y, toolchain)

    def together(tile: Tile) -> Callable[[], None]:
        launches = calls(tile)

        def call() -> None:
            for launch in launches:
                launch()

        return call

    tiles = candidates(case, toolchain.gpu, sizes)
    key = problem_class(case, toolchain, block=packed.block, shared=sizes.shared, inner=sizes.inner, f=sizes.f)
    choice = best("rbgp4.triton", key, tiles, timer(toolchain, together, (OutOfResources,)), tiles[0])
    tile = choice.tile
    facts = {**choice.facts(), "V": sizes.shared, "f": sizes.f}
    if case.layout == "batch":
        facts["store_bytes"] = store_bytes(case, sizes, tile.lists)
    return Bound(calls(tile), grid(case, sizes, tile), (32 * tile.warps,), facts=facts)


def grid(case: Case, sizes: Sizes, tile: Tile) -> tuple[int, ...]:
    """Programs of the product."""
    groups = sizes.outer * sizes.inner // max(tile.lists, 1)
    return (sizes.shared // tile.rows * groups * ceil_div(case.n, tile.columns),)


def variant(case: Case, sizes: Sizes, tile: Tile) -> dict[str, Any]:
    """The product's constants and the compiler's options, by name."""
    return {
        "V": sizes.shared,
        "BH": sizes.run,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "DEPTH": tile.depth,
        "LISTS": max(tile.lists, 1),
        "N_UNIT": largest_unit(case.n) if case.layout == "feature" else PADDED,
        "BATCH": case.layout == "batch" and tile.lists > 0,
        "PRECISION": case.math,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _product(case: Case, sizes: Sizes, tile: Tile, tensors: Sequence[Any], x: Any, y: Any) -> Callable[[], None]:
    """One launch of the product; x is feature-major, its rows as long as N_UNIT asks."""
    from ._spmm_triton import rbgp4_spmm

    constants = variant(case, sizes, tile)
    columns = ceil_div(case.n, constants["N_UNIT"])
    groups = sizes.inner // constants["LISTS"]
    numbers = (sizes.f // tile.depth, columns, case.n, groups, sizes.outer)
    return partial(rbgp4_spmm[grid(case, sizes, tile)], *tensors, x, y, *numbers, **constants)


def _batch_calls(
    case: Case, sizes: Sizes, tile: Tile, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain
) -> list[Callable[[], None]]:
    """X transposed, the product, and Y transposed where the product was made feature-major."""
    width = ceil_div(case.n, PADDED) * PADDED
    x_feature = toolchain.scratch("x feature-major", (case.k, width), case.dtype)
    turn_x = _transpose(x, x_feature, (case.n, case.k), (case.k, width))
    if tile.lists:
        return [turn_x, _product(case, sizes, tile, tensors, x_feature, y)]
    y_feature = toolchain.scratch("y feature-major", (case.m, width), case.dtype)
    turn_y = _transpose(y_feature, y, (case.m, case.n), (width, case.m))
    return [turn_x, _product(case, sizes, tile, tensors, x_feature, y_feature), turn_y]


def _transpose(given: Any, out: Any, shape: Shape, strides: Shape) -> Callable[[], None]:
    """The launch that writes given [rows, columns] = `shape` to out [columns, rows]; `strides` of given and of out."""
    from ._spmm_triton import transpose

    (rows, columns), (in_stride, out_stride) = shape, strides
    in_unit, out_unit = map(largest_unit, strides)
    programs = (ceil_div(columns, SIDE), ceil_div(out_stride, SIDE))
    numbers = (rows, columns, in_stride // in_unit, out_stride // out_unit)
    return partial(
        transpose[programs], given, out, *numbers, IN_UNIT=in_unit, OUT_UNIT=out_unit, SIDE=SIDE, num_warps=4
    )


def moved_bytes(case: Case, packed: Rbgp4) -> int:
    """W, X and Y once each, and a batch-major X twice more: written and read again feature-major."""
    turned = 2 * ITEM_BYTES[case.dtype] * case.k * case.n if case.layout == "batch" else 0
    return least_moved_bytes(case, packed) + turned


def _shares_64(case: Case) -> bool:
    pattern = case.pattern_object
    return isinstance(pattern, Rbgp4Pattern) and pattern.row_repeat * pattern.block[0] % 64 == 0


KERNELS = [
    Kernel(
        name="rbgp4.triton",
        format=Rbgp4,
        prepare=device_product(pack, bind),
        about="a GEMM over gathered rows of X for each list of columns; 64 and more rows share a list",
        source="own; the structure is RBGP4's (arXiv 2006.13486)",
        moved_bytes=moved_bytes,
        devices=("cuda",),
        dtypes=("float32", "float16", "bfloat16"),
        maths=MATHS,
        layouts=("feature", "batch"),
        needs=("torch", "triton"),
        body="_spmm_triton.py",
        sources=("_triton_tiles.py", "_inner.py", *SOURCES),
        limits=(
            Limit(
                lambda case: max(case.m * case.k, max(case.m, case.k) * (case.n + PADDED)) < 2**31,
                "m*k, k*(n+16) and m*(n+16) must be below 2**31: offsets are 32-bit",
            ),
            ONE_MATH,
            Limit(
                _shares_64,
                "64 rows, or a multiple, must share each list of columns (row_repeat x block rows): wgmma takes no "
                "fewer; use rbgp4.mma for 16 and 32, rbgp4.cuda for fewer",
            ),
        ),
    )
]

"""hbs.levels: one launch of bsr.cuda's body a level, as HBsNN's cost model assumes (arXiv 1808.03420, equation 2).

The first level writes, each later one adds to what it finds. For float32 the sums are kept in Y itself. For 16-bit
outputs they are kept in float32 beside it, and the last level rounds once: rounding between levels would make this a
kernel of another accuracy. No convolutions: theirs is one road for all families, which adds all levels at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Hbs
from sparsebench.kernel import CudaToolchain, Gpu, Kernel

from .._device import INT32, SHARED, Bound, Prepare, device_product, shape_of_y
from .._group_choice import ranked
from .._group_streams import SOURCES, bound_streams, packed_streams
from .._group_tiles import Tile, expected_blocks, stored_blocks

__all__ = ["KERNELS", "Tile", "candidates", "choose", "prepared_with"]

ARRAYS = 3  # of one level: records, columns, values


def choose(case: Case, packed: Hbs, gpu: Gpu) -> tuple[Tile, ...]:
    """The tile of each level, chosen as bsr.cuda would for that level alone."""
    return tuple(ranked(case, [blocks], gpu)[0] for blocks in stored_blocks(packed))


def candidates(case: Case, gpu: Gpu) -> list[tuple[Tile, ...]]:
    """Tiles of all levels to time against each other: the i-th best of each level together."""
    each = [ranked(case, [blocks], gpu) for blocks in expected_blocks(case)]
    return list(zip(*each, strict=False))


def moved_bytes(case: Case, packed: Hbs) -> int:
    """Bytes moved at least: W, X once a level, Y once, and the sums between levels written and read in float32."""
    sums = 8 * case.m * case.n * (len(packed.levels) - 1)
    return packed.nbytes + ITEM_BYTES[case.dtype] * (len(packed.levels) * case.k * case.n + case.m * case.n) + sums


def prepared_with(tiles: Sequence[Tile]) -> Prepare:
    """The `prepare` that runs level i with tiles[i], so that candidates can be timed against each other."""

    def pack(case: Case, packed: Hbs, gpu: Gpu) -> Sequence[np.ndarray]:
        levels = zip(tiles, packed.levels, strict=True)
        return [array for tile, level in levels for array in packed_streams(tile, case, [level])]

    def bind(case: Case, packed: Hbs, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        body, last = Path(__file__).parents[1] / "bsr" / "spmm.cu", len(tiles) - 1
        rounds = case.dtype != "float32" and last > 0
        sums = toolchain.scratch("sums of levels", shape_of_y(case)) if rounds else y
        bounds = [
            bound_streams(
                (body, "bsr_spmm"),
                tile,
                case,
                [packed.levels[i]],
                [*tensors[ARRAYS * i : ARRAYS * (i + 1)], x, y, sums],
                toolchain,
                add=i > 0,
                keep=rounds and i < last,
            )
            for i, tile in enumerate(tiles)
        ]
        calls = [call for bound in bounds for call in bound.calls]
        facts = {"levels": [dict(bound.facts) for bound in bounds]}
        return Bound(calls, bounds[-1].grid, bounds[-1].block, f"{len(calls)} launches", facts)

    return device_product(pack, bind)


def prepare(case: Case, packed: Hbs, x: Any, toolchain: CudaToolchain) -> Any:
    """The launches of the chosen tiles."""
    return prepared_with(choose(case, packed, toolchain.gpu))(case, packed, x, toolchain)


KERNELS = [
    Kernel(
        name="hbs.levels",
        format=Hbs,
        prepare=prepare,
        about="one launch a level, each adding to what the one before wrote: what equation 2 of HBsNN assumes",
        source="own; the cost model is that of HBsNN (arXiv 1808.03420, equation 2)",
        moved_bytes=moved_bytes,
        devices=("cuda",),
        dtypes=("float32", "float16", "bfloat16"),
        layouts=("feature", "batch"),
        needs=("torch", "cupy"),
        body="../bsr/spmm.cu",
        sources=(*SHARED, *SOURCES),
        limits=(INT32,),
    )
]

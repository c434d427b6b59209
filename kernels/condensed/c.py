"""condensed.c: one row x 64 columns in registers, 16- or 32-bit columns, own C."""

from __future__ import annotations

from pathlib import Path

from sparsebench.formats import Condensed
from sparsebench.kernel import Kernel

from .._product import ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer


def arguments(packed: Condensed) -> tuple[Argument, ...]:
    """What condensed_f32 takes before n, x and y."""
    sizes = (packed.shape[0], *packed.values.shape, packed.columns.itemsize)
    return *integers(*sizes), *map(pointer, (packed.rows, packed.columns, packed.values))


KERNELS = [
    Kernel(
        name="condensed.c",
        format=Condensed,
        prepare=c_product(Path(__file__).with_name("spmm.c"), "condensed_f32", arguments),
        about="one live row x 64 columns held in registers; at n = 1 sixteen nonzeros in flight",
        source="own; the format is the condensed form of SRigL (arXiv 2305.02299, algorithm 1)",
        moved_bytes=moved_bytes,
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmm.c",
        sources=(*SHARED, "../include/tile.h", "../include/four.h"),
        limits=(ONE_GROUP,),
    )
]

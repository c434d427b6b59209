"""bsr.c: up to 4 rows of a block x 64 columns in registers, own C."""

from __future__ import annotations

from pathlib import Path

from sparsebench.formats import Bsr
from sparsebench.kernel import Kernel

from .._product import ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer

HEADERS = tuple(f"../include/{name}.h" for name in ("tile", "four", "block_rows", "block_dots"))


def arguments(packed: Bsr) -> tuple[Argument, ...]:
    """What bsr_f32 takes before n, x and y."""
    arrays = (packed.block_offsets, packed.block_columns, packed.values)
    return *integers(packed.shape[0], *packed.block), *map(pointer, arrays)


KERNELS = [
    Kernel(
        name="bsr.c",
        format=Bsr,
        prepare=c_product(Path(__file__).with_name("spmm.c"), "bsr_f32", arguments),
        about="any block; up to 4 of its rows x 64 columns held in registers, so that they share each load of X",
        source="own",
        moved_bytes=moved_bytes,
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmm.c",
        sources=(*SHARED, *HEADERS),
        limits=(ONE_GROUP,),
    )
]

"""csr.c: one row x 64 columns in registers, own C."""

from __future__ import annotations

from pathlib import Path

from sparsebench.formats import Csr
from sparsebench.kernel import Kernel

from .._product import ONE_GROUP, SHARED, Argument, c_product, integers, moved_bytes, pointer


def arguments(packed: Csr) -> tuple[Argument, ...]:
    """What csr_f32 takes before n, x and y."""
    return *integers(packed.shape[0]), *map(pointer, (packed.offsets, packed.columns, packed.values))


KERNELS = [
    Kernel(
        name="csr.c",
        format=Csr,
        prepare=c_product(Path(__file__).with_name("spmm.c"), "csr_f32", arguments),
        about="one row x 64 columns held in registers over the whole row of W",
        source="own",
        moved_bytes=moved_bytes,
        ops=("gemm", "conv2d"),
        needs=("cc",),
        body="spmm.c",
        sources=(*SHARED, "../include/tile.h"),
        limits=(ONE_GROUP,),
    )
]

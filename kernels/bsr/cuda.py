"""bsr.cuda: block rows in registers on CUDA cores, X through L1 or from a slab in shared memory.

It is meant for blocks too small or too flat for tensor cores: 4x1, 1x4, 4x4, 8x8. Higher blocks are cut into strips of
up to 16 rows and wider ones into pieces of up to 16 columns, so any block runs; bsr.triton takes those of 16x16 and
more to tensor cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Bsr
from sparsebench.kernel import CudaToolchain, Gpu, Kernel

from .._conv import CONV_SOURCES, convolution
from .._device import INT32, SHARED, Bound, Prepare, body_beside, by_op, device_product
from .._group_choice import candidates, choose
from .._group_streams import SOURCES, bound_streams, packed_streams
from .._group_tiles import Tile
from .._product import ONE_GROUP

__all__ = ["KERNELS", "Tile", "candidates", "choose", "prepared_with"]


def prepared_with(tile: Tile) -> Prepare:
    """The `prepare` that runs with `tile`, so that candidates can be timed against each other."""

    def pack(case: Case, packed: Bsr, gpu: Gpu) -> Sequence[np.ndarray]:
        return packed_streams(tile, case, [packed])

    def bind(case: Case, packed: Bsr, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        body = body_beside(__file__, "spmm.cu"), "bsr_spmm"
        return bound_streams(body, tile, case, [packed], [*tensors, x, y, y], toolchain)

    return device_product(pack, bind)


def prepare(case: Case, packed: Bsr, x: Any, toolchain: CudaToolchain) -> Any:
    """The launch of the chosen tile."""
    return prepared_with(choose(case, packed, toolchain.gpu))(case, packed, x, toolchain)


KERNELS = [
    Kernel(
        name="bsr.cuda",
        format=Bsr,
        prepare=by_op(prepare, convolution),
        about="small and flat blocks on CUDA cores: up to 16 rows that share each load of X, summed in registers",
        source="own; rows in order of length, lanes that split rows: Sputnik's (arXiv 2006.10901, section 5)",
        devices=("cuda",),
        dtypes=("float32", "float16", "bfloat16"),
        layouts=("feature", "batch"),
        ops=("gemm", "conv2d"),
        needs=("torch", "cupy"),
        body="spmm.cu",
        sources=(*SHARED, *SOURCES, *CONV_SOURCES),
        limits=(INT32, ONE_GROUP),
    )
]

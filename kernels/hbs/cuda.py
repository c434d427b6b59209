"""hbs.cuda: all levels of a row group added to the same sums in registers, in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Hbs
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

    def pack(case: Case, packed: Hbs, gpu: Gpu) -> Sequence[np.ndarray]:
        return packed_streams(tile, case, packed.levels)

    def bind(case: Case, packed: Hbs, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        body = body_beside(__file__, "spmm.cu"), "hbs_spmm"
        return bound_streams(body, tile, case, packed.levels, [*tensors, x, y], toolchain)

    return device_product(pack, bind)


def prepare(case: Case, packed: Hbs, x: Any, toolchain: CudaToolchain) -> Any:
    """The launch of the chosen tile."""
    return prepared_with(choose(case, packed, toolchain.gpu))(case, packed, x, toolchain)


KERNELS = [
    Kernel(
        name="hbs.cuda",
        format=Hbs,
        prepare=by_op(prepare, convolution),
        about="any levels, all of them in one launch into one sum in registers",
        source="own; the pattern is that of HBsNN (arXiv 1808.03420, section 2.3)",
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

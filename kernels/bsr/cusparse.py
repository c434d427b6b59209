"""bsr.cusparse and bsr.cusparse_ell: cuSPARSE's two block products, over BSR and over Blocked-ELL.

Blocked-ELL gives every block row as many blocks as the longest one has. Padding is blocks of zeros under a column that
the row has already: NVIDIA's manual allows -1 there, but its kernels were seen to read it as 0 (CUDALibrarySamples#80).
Padding is stored and read, so it is in the bytes and the record says how much there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.formats import Bsr
from sparsebench.kernel import CudaToolchain, Gpu, Kernel, Limit, least_moved_bytes

from .._cusparse import SHARED, SOURCE, blocked_ell, bsr, cusparse, product
from .._device import Bound, device_product
from .._library import at_least_one, naming

SQUARE = Limit(
    lambda case: all(bh == bw for _, bh, bw in case.pattern_object.blocks()),
    "blocks must be square: cuSPARSE has no others; use bsr.cuda or bsr.triton",
)
TF32_ALONE = Limit(
    lambda case: (case.dtype == "float32") == (case.math == "tf32"),
    "Blocked-ELL computes float32 in TF32 alone: ask for math tf32 with float32, and for ieee with 16-bit types",
)
NOT_ONE = Limit(
    lambda case: all(bh > 1 for _, bh, _ in case.pattern_object.blocks()),
    "Blocked-ELL has no kernels for blocks of one entry; use csr.cusparse",
)


def pack(case: Case, packed: Bsr, gpu: Gpu) -> Sequence[np.ndarray]:
    """The format's own arrays."""
    return packed.block_offsets, at_least_one(packed.block_columns), at_least_one(packed.values)


def bind(case: Case, packed: Bsr, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
    """cusparseSpMM over BSR, which has one algorithm."""
    library = cusparse()
    w = bsr(library, case, len(packed.block_columns), packed.block, *tensors)
    return product(library, w, case, x, y, "BSR_ALG1", toolchain)


def width(packed: Bsr) -> int:
    """Blocks that Blocked-ELL stores in each block row: as many as the longest has, and at least one."""
    return max(1, int(np.diff(packed.block_offsets).max(initial=0)))


def pack_ell(case: Case, packed: Bsr, gpu: Gpu) -> Sequence[np.ndarray]:
    """Block columns int32 [m / b, width] and values [m, width * b]; padding is zeros under the row's last column."""
    counts, b, wide = np.diff(packed.block_offsets), packed.block[0], width(packed)
    any_column = packed.block_columns[0] if len(packed.block_columns) else 0  # for rows without a block
    last = np.full(len(counts), any_column, np.int32)
    last[counts > 0] = packed.block_columns[packed.block_offsets[1:][counts > 0] - 1]
    stored = np.arange(wide) < counts[:, None]
    columns = np.repeat(last[:, None], wide, axis=1)
    columns[stored] = packed.block_columns
    values = np.zeros((len(counts), wide, b, b), packed.values.dtype)
    values[stored] = packed.values
    return columns, np.ascontiguousarray(values.transpose(0, 2, 1, 3)).reshape(case.m, wide * b)


def bind_ell(case: Case, packed: Bsr, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
    """cusparseSpMM over Blocked-ELL; the record says which share of its blocks is padding."""
    library = cusparse()
    w = blocked_ell(library, case, packed.block[0], *tensors)
    bound = product(library, w, case, x, y, "BLOCKED_ELL_ALG1", toolchain)
    blocks = len(packed.block_columns)
    padding = 1 - blocks / (width(packed) * (len(packed.block_offsets) - 1))
    return Bound(bound.calls, ran=bound.ran, facts={**bound.facts, "padding": padding})


def moved_bytes_ell(case: Case, packed: Bsr) -> int:
    """W with its padding, X and Y once each."""
    blocks, (bh, bw) = width(packed) * (len(packed.block_offsets) - 1), packed.block
    return least_moved_bytes(case, packed) - packed.nbytes + blocks * (bh * bw * ITEM_BYTES[case.dtype] + 4)


KERNELS = [
    Kernel(
        name="bsr.cusparse",
        format=Bsr,
        prepare=naming(device_product(pack, bind)),
        about="cusparseSpMM over BSR with BSR_ALG1, square blocks, 32-bit indices",
        source=SOURCE,
        dtypes=("float32", "float16", "bfloat16"),
        layouts=("feature", "batch"),
        devices=("cuda",),
        needs=("torch",),
        sources=SHARED,
        limits=(SQUARE,),
    ),
    Kernel(
        name="bsr.cusparse_ell",
        format=Bsr,
        prepare=naming(device_product(pack_ell, bind_ell)),
        about="cusparseSpMM over Blocked-ELL, padded to the longest block row, on tensor cores",
        source=SOURCE,
        moved_bytes=moved_bytes_ell,
        dtypes=("float32", "float16", "bfloat16"),
        maths=("ieee", "tf32"),
        layouts=("feature", "batch"),
        devices=("cuda",),
        needs=("torch",),
        sources=SHARED,
        limits=(SQUARE, NOT_ONE, TF32_ALONE),
    ),
]

"""csr.cusparse and csr.cusparse_alg1..3: cuSPARSE's CSR product with its default and with each of its algorithms.

The default is what every library calls and is not preprocessed, as torch does not. The algorithms are what a user gets
who looks for the best: each is preprocessed before the clock starts, once a matrix, and timed over both layouts of X.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Csr
from sparsebench.kernel import CudaToolchain, Gpu, Kernel

from .._cusparse import SHARED, SOURCE, csr, cusparse, product
from .._device import Bind, Bound, device_product
from .._library import at_least_one, naming


def pack(case: Case, packed: Csr, gpu: Gpu) -> Sequence[np.ndarray]:
    """The format's own arrays."""
    return packed.offsets, at_least_one(packed.columns), at_least_one(packed.values)


def binding(algorithm: str) -> Bind:
    """The `bind` of one algorithm."""

    def bind(case: Case, packed: Csr, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        library = cusparse()
        return product(library, csr(library, case, packed.nnz, *tensors), case, x, y, algorithm, toolchain)

    return bind


def kernel(name: str, algorithm: str, about: str) -> Kernel:
    """The face of one algorithm."""
    return Kernel(
        name=name,
        format=Csr,
        prepare=naming(device_product(pack, binding(algorithm))),
        about=about,
        source=SOURCE,
        dtypes=("float32", "float16", "bfloat16"),
        layouts=("feature", "batch"),
        devices=("cuda",),
        needs=("torch",),
        sources=SHARED,
    )


KERNELS = [
    kernel("csr.cusparse", "ALG_DEFAULT", "cusparseSpMM with its default algorithm, 32-bit indices"),
    *(
        kernel(f"csr.cusparse_alg{i}", f"CSR_ALG{i}", f"cusparseSpMM with CSR_ALG{i}, preprocessed, 32-bit indices")
        for i in (1, 2, 3)
    ),
]
